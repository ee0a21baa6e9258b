//! A server that speaks RESP and misbehaves as it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ringdove::resp::{Parser, ParserLimits, Reply, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a stub does wrong.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Answers nothing from so long after the first command on, for so long.
    pub stall: Option<(Duration, Duration)>,
    /// Acknowledges every so-manieth `SET` without doing it.
    pub drops_set: Option<u64>,
    /// Acknowledges every so-manieth `DEL` without doing it.
    pub drops_del: Option<u64>,
    /// Answers every so-manieth `GET` with the value before the last.
    pub stale_get: Option<u64>,
}

/// A turn of the thread that the stub shares with the generator.
const TURN: Duration = Duration::from_millis(5);

/// How many turns ago the last change of a key must be for anything to be done wrong with it: more
/// than it takes the generator to see an answer, or a request to arrive. Of requests that are on
/// their way at once any may be the first, so with them there is nothing to find. Not a time:
/// however long this process stands still, they stay on their way.
const A_WHILE: u64 = 12;

#[derive(Default)]
struct Entry {
    value: Option<Bytes>,
    before: Option<Bytes>,
    /// The turn of the last write or deletion.
    changed_at: Option<u64>,
    /// The last write or deletion was dropped.
    is_wrong: bool,
}

#[derive(Default)]
struct State {
    faults: Faults,
    entries: HashMap<Bytes, Entry>,
    first_at: Option<Instant>,
    turns: u64,
    counts: [u64; 3],
    stale_gets: u64,
    /// Commands by name, key and bytes of the value, in the order in which they came.
    log: Vec<(String, Bytes, usize)>,
}

/// A stub that listens.
pub struct Stub {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Stub {
    pub async fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { faults, ..State::default() }));
        let (shared, turned) = (state.clone(), state.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TURN).await;
                turned.lock().unwrap().turns += 1;
            }
        });
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, state }
    }

    /// Behaves from now on.
    pub fn mend(&self) {
        self.state.lock().unwrap().faults = Faults::default();
    }

    /// Keys whose last write or deletion was acknowledged and not done.
    pub fn wrong_keys(&self) -> u64 {
        self.state.lock().unwrap().entries.values().filter(|entry| entry.is_wrong).count() as u64
    }

    /// `GET`s that were answered with an old value.
    pub fn stale_gets(&self) -> u64 {
        self.state.lock().unwrap().stale_gets
    }

    pub fn log(&self) -> Vec<(String, Bytes, usize)> {
        self.state.lock().unwrap().log.clone()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    stream.set_nodelay(true).unwrap();
    let (mut parser, mut buffer) = (Parser::new(), BytesMut::new());
    let mut out = BytesMut::new();
    while let Ok(1..) = stream.read_buf(&mut buffer).await {
        while let Some(command) = parser.next(&mut buffer, &ParserLimits::default()).unwrap() {
            let until = state.lock().unwrap().stalled_until();
            if let Some(until) = until {
                tokio::time::sleep_until(until.into()).await;
            }
            state.lock().unwrap().answer(&command).encode(&mut out, Version::Resp2);
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

impl State {
    fn stalled_until(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let first_at = *self.first_at.get_or_insert(now);
        let (after, span) = self.faults.stall?;
        let (from, until) = (first_at + after, first_at + after + span);
        (from..until).contains(&now).then_some(until)
    }

    fn answer(&mut self, command: &[Bytes]) -> Reply {
        let name = String::from_utf8(command[0].to_vec()).unwrap();
        let length = command.get(2).map_or(0, Bytes::len);
        self.log.push((name.clone(), command[1].clone(), length));
        let entry = self.entries.entry(command[1].clone()).or_default();
        let is_settled = entry.changed_at.is_some_and(|at| self.turns - at > A_WHILE);
        match name.as_str() {
            "SET" => {
                entry.is_wrong = is_settled && is_turn(&mut self.counts[0], self.faults.drops_set);
                if !entry.is_wrong {
                    entry.before = entry.value.replace(command[2].clone()).filter(|_| is_settled);
                    entry.changed_at = Some(self.turns);
                }
                Reply::Ok
            }
            "DEL" => {
                let there = i64::from(entry.value.is_some());
                let drops = is_settled && is_turn(&mut self.counts[1], self.faults.drops_del);
                entry.is_wrong = drops && entry.value.is_some();
                if !drops {
                    (entry.value, entry.before) = (None, None);
                    entry.changed_at = Some(self.turns);
                }
                Reply::Integer(there)
            }
            "GET" => {
                let before = entry.before.clone().filter(|_| is_settled);
                if before.is_some() && is_turn(&mut self.counts[2], self.faults.stale_get) {
                    self.stale_gets += 1;
                    return before.map_or(Reply::Null, Reply::Bulk);
                }
                entry.value.clone().map_or(Reply::Null, Reply::Bulk)
            }
            "MGET" => Reply::Array(vec![Reply::Null; command.len() - 1]),
            _ => Reply::error("ERR", "unknown command"),
        }
    }
}

fn is_turn(count: &mut u64, every: Option<u64>) -> bool {
    *count += 1;
    every.is_some_and(|every| count.is_multiple_of(every))
}
