//! Real nodes as real processes, with ports and data directories of their own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ringdove::client::{Client, direct};
use ringdove::wire::messages::{Control, ControlReply, NodeStatus, Request, Response};
use tempfile::TempDir;

use crate::ports::free_port;

/// Longer than anything takes on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    directory: TempDir,
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub frames: String,
    pub text: String,
    pub admin: String,
    pub home: PathBuf,
    process: Option<Child>,
}

impl Cluster {
    /// Starts `count` nodes that form one cluster, and waits until all serve.
    pub fn start(count: usize) -> Self {
        Self::start_with(count, "")
    }

    /// As [`Cluster::start`]; `extra` goes into each configuration.
    pub fn start_with(count: usize, extra: &str) -> Self {
        let mut cluster = Self::prepare(count, extra);
        for node in &mut cluster.nodes {
            node.start();
        }
        for index in 0..count {
            cluster.wait_ready(index);
        }
        cluster
    }

    /// Writes the configurations; `extra` goes into each.
    pub fn prepare(count: usize, extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(count);
        let seeds: Vec<String> =
            ports.iter().map(|[frames, ..]| format!("\"127.0.0.1:{frames}\"")).collect();
        let seeds = seeds.join(", ");
        let node = |(index, ports): (usize, &[u16; 3])| {
            Node::prepare(directory.path(), index, ports, &seeds, count, extra)
        };
        let nodes = ports.iter().enumerate().map(node).collect();
        Self { directory, nodes }
    }

    /// Starts one more node, which has the others for its seeds and has never met them.
    pub fn start_newcomer(&mut self) -> usize {
        self.start_newcomer_with("")
    }

    /// As [`Cluster::start_newcomer`]; `extra` goes into its configuration.
    pub fn start_newcomer_with(&mut self, extra: &str) -> usize {
        let index = self.prepare_newcomer(extra);
        self.nodes[index].start();
        index
    }

    /// Writes the configuration of one more node.
    pub fn prepare_newcomer(&mut self, extra: &str) -> usize {
        let seeds: Vec<String> =
            self.nodes.iter().map(|node| format!("\"{}\"", node.frames)).collect();
        let index = self.nodes.len();
        let directory = self.directory.path();
        let ports = free_ports(1)[0];
        self.nodes.push(Node::prepare(directory, index, &ports, &seeds.join(", "), 1, extra));
        index
    }

    /// Waits until the log of a node says this.
    pub async fn wait_log(&self, index: usize, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.nodes[index].log().contains(what) {
            assert!(Instant::now() < deadline, "node {index} does not say {what:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a node ends by itself.
    pub async fn wait_ended(&mut self, index: usize) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.nodes[index].has_ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "node {index} does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn wait_ready(&mut self, index: usize) {
        let deadline = Instant::now() + PATIENCE;
        while !self.nodes[index].is_ready() {
            let ended = self.nodes[index].has_ended();
            if ended.is_some() || Instant::now() > deadline {
                panic!("node {index} is not ready ({ended:?}):\n{}", self.nodes[index].log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a node serves and is connected to all others that run: before that it refuses
    /// what must not be answered without them.
    pub async fn wait_back(&mut self, index: usize) {
        self.wait_ready(index);
        for other in self.nodes.iter().filter(|node| node.has_started()) {
            if other.frames != self.nodes[index].frames {
                self.nodes[index].wait_connected_to(&other.frames).await;
            }
        }
    }

    pub async fn client(&self) -> Client {
        let seeds = self.nodes.iter().map(|node| node.frames.clone());
        Client::builder().seeds(seeds).connect().await.unwrap()
    }

    /// Each node's count of objects and digest over them, equal once all have become equal.
    pub async fn equal_digests(&self) -> (u64, u128) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut digests = Vec::new();
            for node in &self.nodes {
                match node.control(Control::Digest).await {
                    ControlReply::Digest { objects, digest } => digests.push((objects, digest)),
                    other => panic!("{other:?}"),
                }
            }
            if digests.windows(2).all(|pair| pair[0] == pair[1]) {
                return digests[0];
            }
            assert!(Instant::now() < deadline, "the stores stay different: {digests:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until nobody keeps anything for anybody; returns how long that took.
    pub async fn wait_drained(&self) -> Duration {
        let began = Instant::now();
        loop {
            let mut kept = 0;
            for node in &self.nodes {
                kept += node.hints().await;
            }
            if kept == 0 {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{kept} hints stay");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Node {
    /// Writes a configuration.
    fn prepare(
        directory: &Path,
        index: usize,
        [frames, text, admin]: &[u16; 3],
        seeds: &str,
        initial_members: usize,
        extra: &str,
    ) -> Self {
        let home = directory.join(format!("node-{index}"));
        fs::create_dir(&home).unwrap();
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let config = format!(
            "[node]\nname = \"node-{index}\"\ndata_dir = \".\"\n\
             [cluster]\npartitions = 64\nseeds = [{seeds}]\ninitial_members = {initial_members}\n\
             replicas = {}\n\
             [listen]\naddress = \"{}\"\ntext = \"{}\"\nadmin = \"{}\"\n\
             [storage]\ncache_mb = 16\nmemtable_mb = 16\n{extra}",
            initial_members.min(3),
            address(frames),
            address(text),
            address(admin),
        );
        fs::write(home.join("ringdove.toml"), config).unwrap();
        let (frames, text, admin) = (address(frames), address(text), address(admin));
        Self { frames, text, admin, home, process: None }
    }

    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it with further words on its command line.
    pub fn start_with(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.home.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ringdove"))
            .args(["serve", "--config"])
            .arg(self.home.join("ringdove.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
    }

    /// Changes its configuration, for the next start.
    pub fn configure(&self, from: &str, to: &str) {
        let file = self.home.join("ringdove.toml");
        let config = fs::read_to_string(&file).unwrap();
        assert!(config.contains(from), "{config}");
        fs::write(&file, config.replace(from, to)).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node was started").id()
    }

    /// Sends a signal. Of `-STOP` it is waited for that it has stopped every thread: until then some
    /// read on.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        while name == "-STOP" && !self.stands_still() {
            assert!(Instant::now() < deadline, "{pid} does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
        })
    }

    /// SIGKILL: no goodbye.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the node was started");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM; returns how it ended and how long that took.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.signal("-TERM");
        let mut process = self.process.take().expect("the node was started");
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "it does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it was started, and has not been stopped since.
    pub fn has_started(&self) -> bool {
        self.process.is_some()
    }

    /// Waits until this node is connected to the one that has these frames.
    pub async fn wait_connected_to(&self, frames: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let peers = self.status().await.peers;
            if peers.iter().any(|peer| peer.address == frames && peer.up) {
                return;
            }
            assert!(Instant::now() < deadline, "{peers:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.try_wait().unwrap()
    }

    pub fn is_ready(&self) -> bool {
        self.page("/ready").starts_with("HTTP/1.1 200")
    }

    /// A page of the admin port, with its head; empty where nobody answers.
    pub fn page(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(&self.admin) else { return String::new() };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: ringdove\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let heard = stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok();
        if heard { answer } else { String::new() }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub async fn control(&self, control: Control) -> ControlReply {
        let request = Request::Control(control);
        match direct::request(&self.frames, &request, PATIENCE).await.unwrap() {
            Response::Control(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub async fn status(&self) -> NodeStatus {
        match self.control(Control::Status).await {
            ControlReply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// How many keys this node keeps for others.
    pub async fn hints(&self) -> u64 {
        match self.control(Control::Hints).await {
            ControlReply::Hints(hints) => hints.iter().map(|hint| hint.count).sum(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn counter(&self, name: &str) -> u64 {
        let status = self.status().await;
        status.counters.iter().find(|(row, _)| row == name).expect("a counter of that name").1
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if let Some(mut process) = node.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
            if std::thread::panicking() {
                let log = node.log();
                let start = log.len().saturating_sub(3000);
                eprintln!("--- the end of node {index}'s log\n{}", &log[start..]);
            }
        }
    }
}

/// Three ports for each of `count` nodes.
fn free_ports(count: usize) -> Vec<[u16; 3]> {
    (0..count).map(|_| [(); 3].map(|()| free_port())).collect()
}
