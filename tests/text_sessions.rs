//! Connections that behave badly, and many that behave well: what one may cost the others.

#[path = "text/node.rs"]
mod node;

use node::{Connection, Node, PATIENCE, command};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// How long the node gives half a command, and a client that does not read.
const CUT_OFF_AFTER: Duration = Duration::from_secs(30);

fn assert_serves(node: &Node) {
    let mut connection = node.connect();
    assert_eq!(connection.ask(&["SET", "others", "are served"]), b"+OK\r\n");
    assert_eq!(connection.ask(&["GET", "others"]), b"$10\r\nare served\r\n");
}

/// The number that `INFO` shows under `name`.
fn counted(connection: &mut Connection, name: &str) -> u64 {
    let info = String::from_utf8(connection.ask(&["INFO"])).expect("INFO is text");
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {info}")).parse().expect("a number")
}

/// Pseudo-random bytes: the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = ringdove::random::Random::new(seed);
    (0..length).map(|_| random.next_u64() as u8).collect()
}

#[test]
fn random_and_truncated_bytes_cost_their_connection_only_and_are_counted() {
    let node = Node::start("", "");
    let mut watcher = node.connect();
    let before = counted(&mut watcher, "malformed_connections");
    for seed in 0..200 {
        let mut connection = node.connect();
        // Errors in writing are the node's right: it may have closed already.
        let _ = connection.stream.write_all(&noise(seed, 1 + (seed as usize * 37) % 5000));
        let _ = connection.stream.write_all(b"\r\n*1\r\n$-7\r\n");
        connection.rest();
    }
    let whole = command(&["SET", "truncated", "value"]);
    for length in 1..whole.len() {
        let mut connection = node.connect();
        connection.send(&whole[..length]);
        connection.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        assert_eq!(connection.rest(), b"", "half a command has no answer");
    }
    assert_eq!(watcher.ask(&["GET", "truncated"]), b"$-1\r\n");
    assert!(counted(&mut watcher, "malformed_connections") >= before + 200);
    assert_serves(&node);
}

#[test]
fn a_value_that_is_a_little_too_large_is_refused_and_the_connection_goes_on() {
    let node = Node::start("", "[limits]\nkey_bytes = 100\nvalue_bytes = 1000\n");
    let mut connection = node.connect();
    let refused = connection.ask(&["SET", "k", &"v".repeat(1001)]);
    assert!(refused.starts_with(b"-TOOLARGE "), "{}", refused.escape_ascii());
    let refused = connection.ask(&["SET", &"k".repeat(101), "v"]);
    assert!(refused.starts_with(b"-TOOLARGE "), "{}", refused.escape_ascii());
    assert_eq!(connection.ask(&["SET", "k", &"v".repeat(1000)]), b"+OK\r\n");
}

#[test]
fn a_client_that_closes_its_side_hears_all_its_answers() {
    let node = Node::start("", "");
    let mut connection = node.connect();
    let mut bytes = Vec::new();
    for i in 0..2000 {
        bytes.extend(command(&["SET", &format!("half-closed:{}", i % 700), "v"]));
    }
    connection.send(&bytes);
    connection.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(connection.rest(), b"+OK\r\n".repeat(2000));
}

#[test]
fn a_pipeline_longer_than_may_be_under_way_is_answered_in_order() {
    // A command's time begins when its bytes are read, and 16 KiB of them go through the 8 one after the
    // other: on a busy machine for longer than the usual two seconds.
    let settings = "[requests]\ntimeout_ms = 30000\nmax_in_flight_per_connection = 8\n";
    let node = Node::start("", settings);
    let mut connection = node.connect();
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for i in 0..3000 {
        let (key, value) = (format!("pipeline:{}", i % 97), i.to_string());
        bytes.extend(command(&["SET", &key, &value]));
        bytes.extend(command(&["GET", &key]));
        expected.extend(format!("+OK\r\n${}\r\n{value}\r\n", value.len()).into_bytes());
    }
    connection.send(&bytes);
    for (i, expected) in expected.chunk_by(|a, b| *a != b'\n' || *b != b'+').enumerate() {
        let found =
            [connection.reply().expect("OK"), connection.reply().expect("a value")].concat();
        assert_eq!(found, expected, "pair {i}");
    }
}

#[test]
fn a_connection_too_many_is_told_so_and_a_closed_one_makes_room() {
    let node = Node::start("", "[limits]\nconnections = 4\n");
    let mut kept: Vec<Connection> = Vec::new();
    let began = Instant::now();
    // The connection that found out that the node serves may still be on its way out.
    while kept.len() < 4 {
        let mut connection = node.connect();
        connection.send(&command(&["PING"]));
        match connection.reply().as_deref() {
            Some(b"+PONG\r\n") => kept.push(connection),
            _ => assert!(began.elapsed() < PATIENCE, "only {} are let in", kept.len()),
        }
    }
    assert_eq!(node.connect().rest(), b"-ERR max number of clients reached\r\n");
    kept.pop();
    loop {
        let mut connection = node.connect();
        let _ = connection.stream.write_all(&command(&["PING"]));
        if connection.reply().as_deref() == Some(b"+PONG\r\n") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "a closed connection makes no room");
    }
}

#[test]
fn a_scan_answers_every_key_that_is_there_and_none_that_is_deleted() {
    let node = Node::start("", "");
    let mut connection = node.connect();
    let (mut bytes, mut expected) = (Vec::new(), BTreeSet::new());
    for i in 0..1000 {
        let key = format!("scan:{i}");
        bytes.extend(command(&["SET", &key, "v"]));
        if i % 3 == 0 {
            bytes.extend(command(&["DEL", &key]));
        } else {
            expected.insert(key);
        }
    }
    bytes.extend(command(&["SET", "another", "v"]));
    connection.send(&bytes);
    for _ in 0..1000 + 334 + 1 {
        connection.reply().expect("an answer");
    }
    for count in ["1", "7", "1000"] {
        let (mut found, mut cursor) = (BTreeSet::new(), "0".to_owned());
        loop {
            let scan = ["SCAN", &cursor, "MATCH", "scan:*", "COUNT", count];
            let page = String::from_utf8(connection.ask(&scan)).expect("the keys are text");
            let mut lines = page.split("\r\n").filter(|line| !line.starts_with(['$', '*']));
            let next = lines.next().expect("the cursor").to_owned();
            found.extend(lines.filter(|key| !key.is_empty()).map(str::to_owned));
            if next == "0" {
                break;
            }
            cursor = next;
        }
        assert_eq!(found, expected, "COUNT {count}");
    }
}

#[test]
fn an_expiry_that_is_changed_while_others_write_brings_no_old_value_back() {
    const WRITES: usize = 500;
    let node = Node::start("", "");
    let mut connection = node.connect();
    assert_eq!(connection.ask(&["SET", "k", "0"]), b"+OK\r\n");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = node.connect();
            for seconds in 100..100 + WRITES {
                let answer = connection.ask(&["EXPIRE", "k", &seconds.to_string()]);
                let expected: [&[u8]; 2] = [b":1\r\n", b"-BUSY"];
                assert!(expected.iter().any(|one| answer.starts_with(one)), "{answer:?}");
            }
        });
        for value in 1..=WRITES {
            assert_eq!(connection.ask(&["SET", "k", &value.to_string()]), b"+OK\r\n");
        }
    });
    let last = WRITES.to_string();
    assert_eq!(connection.ask(&["GET", "k"]), format!("$3\r\n{last}\r\n").into_bytes());
    assert!(connection.ask(&["RD.SIBLINGS", "k"]).starts_with(b"*1\r\n"), "siblings");
}

#[test]
fn half_commands_and_clients_that_do_not_read_are_cut_off_in_time_and_others_are_served() {
    let node = Node::start("", "");
    let value = "v".repeat(1000 * 1000);
    assert_eq!(node.connect().ask(&["SET", "large", &value]), b"+OK\r\n");
    let began = Instant::now();
    let half: Vec<Connection> =
        [&b"SET k"[..], b"*2\r\n", b"*2\r\n$3\r\nGET\r\n$1", b"*1\r\n$400\r\nx"]
            .into_iter()
            .map(|bytes| {
                let mut connection = node.connect();
                connection.send(bytes);
                connection
            })
            .collect();
    let mut quiet = node.connect();
    let deaf = node.connect();
    let asking = std::thread::spawn(move || never_read(deaf));
    let trickling = {
        let connection = node.connect();
        std::thread::spawn(move || trickle(connection))
    };
    let mut slowest = Duration::ZERO;
    let mut most_memory = 0;
    let mut watcher = node.connect();
    while began.elapsed() < CUT_OFF_AFTER - Duration::from_secs(1) {
        let asked = Instant::now();
        assert_serves(&node);
        slowest = slowest.max(asked.elapsed());
        most_memory = most_memory.max(counted(&mut watcher, "used_memory"));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(slowest < Duration::from_secs(5), "others waited {slowest:?}");
    assert!(most_memory < 1 << 30, "{most_memory} bytes of memory");
    for mut connection in half {
        assert_eq!(connection.rest(), b"", "half a command is cut off, without an answer");
    }
    asking.join().expect("the client that does not read is cut off");
    trickling.join().expect("a command that trickles in is cut off");
    assert!(began.elapsed() >= CUT_OFF_AFTER, "cut off too early: {:?}", began.elapsed());
    // It sent nothing half.
    assert_eq!(quiet.ask(&["PING"]), b"+PONG\r\n");
    assert_serves(&node);
}

/// Asks for a large value again and again, and reads nothing, until it is cut off.
fn never_read(mut connection: Connection) {
    let request = command(&["GET", "large"]).repeat(100);
    connection.stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    while connection.stream.write_all(&request).is_ok() {}
}

/// Sends a byte of a command twice a second, until it is cut off.
fn trickle(mut connection: Connection) {
    connection.stream.set_read_timeout(Some(Duration::from_millis(500))).expect("not zero");
    connection.send(b"*2\r\n$3\r\nGET\r\n$1000\r\n");
    let began = Instant::now();
    loop {
        let sent = connection.stream.write_all(b"x");
        let heard = connection.stream.read(&mut [0; 1]);
        let would_block = |error: &std::io::Error| {
            [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind())
        };
        if sent.is_err() || !heard.as_ref().is_err_and(would_block) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "it may trickle for ever");
    }
}
