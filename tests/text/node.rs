//! One real node, as a process, and plain connections to its text port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use self::ports::free_port;

#[path = "../processes/ports.rs"]
mod ports;

/// Longer than a debug build on a loaded machine takes for anything that is tested.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A node of a cluster of its own; killed, and its data deleted, when this is dropped.
pub struct Node {
    process: Child,
    _directory: tempfile::TempDir,
    pub text_port: u16,
}

impl Node {
    /// Starts a node and waits until it serves. `listen` and `rest` are put into its configuration,
    /// the first into its section `[listen]`.
    pub fn start(listen: &str, rest: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [frames, text_port] = [free_port(), free_port()];
        let config = format!(
            "[node]\ndata_dir = \"data\"\n\
             [cluster]\npartitions = 64\nreplicas = 1\nseeds = []\n\
             [log]\nlevel = \"warn\"\n\
             [listen]\naddress = \"127.0.0.1:{frames}\"\ntext = \"127.0.0.1:{text_port}\"\nadmin = \"\"\n\
             {listen}\n{rest}\n"
        );
        let file = directory.path().join("ringdove.toml");
        std::fs::write(&file, config).expect("the directory is ours");
        let process = Command::new(env!("CARGO_BIN_EXE_ringdove"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("the binary was built for this test");
        let mut node = Self { process, _directory: directory, text_port };
        node.wait_until_it_serves();
        node
    }

    fn wait_until_it_serves(&mut self) {
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.text_port)).is_err() {
            if let Some(status) = self.process.try_wait().expect("it is our child") {
                panic!("the node ended at once: {status}");
            }
            assert!(began.elapsed() < PATIENCE, "the node does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        while self.connect().ask(&["GET", "a-key-nobody-writes"]).starts_with(b"-FORMING") {
            assert!(began.elapsed() < PATIENCE, "the node does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.text_port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_nodelay(true).expect("it is a TCP socket");
        Connection { stream, unread: Vec::new() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection that knows no more of the protocol than where an answer ends.
pub struct Connection {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node takes it");
    }

    /// Sends one command and answers the bytes of its reply.
    pub fn ask(&mut self, words: &[&str]) -> Vec<u8> {
        self.send(&command(words));
        self.reply().expect("an answer")
    }

    /// The bytes of the next reply; `None` when the node has closed the connection.
    pub fn reply(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = end_of_reply(&self.unread, 0) {
                let rest = self.unread.split_off(end);
                return Some(std::mem::replace(&mut self.unread, rest));
            }
            if !self.hear() {
                return None;
            }
        }
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.hear() {}
        std::mem::take(&mut self.unread)
    }

    fn hear(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                count > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

/// A command as clients send it.
pub fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Where the reply that begins at `at` ends, if all of it is there.
pub fn end_of_reply(bytes: &[u8], at: usize) -> Option<usize> {
    let line = bytes.get(at..)?;
    let length = line.windows(2).position(|pair| pair == b"\r\n")?;
    let behind = at + length + 2;
    let number =
        || std::str::from_utf8(&line[1..length]).expect("digits").parse::<i64>().expect("a number");
    match line[0] {
        b'$' | b'=' => {
            let end = usize::try_from(number()).map_or(behind, |length| behind + length + 2);
            (end <= bytes.len()).then_some(end)
        }
        b'*' | b'%' => {
            let items = number().max(0) * if line[0] == b'%' { 2 } else { 1 };
            (0..items).try_fold(behind, |at, _| end_of_reply(bytes, at))
        }
        b'+' | b'-' | b':' | b'_' => Some(behind),
        other => panic!("{:?} begins no reply of this protocol", char::from(other)),
    }
}
