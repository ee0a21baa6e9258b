//! The clients: sessions that read, write and delete a few keys through whatever node they meet.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use ringdove::ids::WriteId;
use ringdove::key::Key;
use ringdove::limits;
use ringdove::random::Random;
use ringdove::wire::messages::{
    Basis, Condition, Expiry, Failure, Get, Level, Outcome as Applied, Put, Request, Response,
};
use ringdove::wire::{codec, frame};

use crate::history::{self, Kind, Named, Op, Outcome, Time, Token};
use crate::plan::{MS, Plan, SECOND};
use crate::world::{Event, World};

/// How often one write is tried.
const ATTEMPTS: u8 = 4;
/// Sessions of the final reads have numbers from here on.
const FINAL_SESSION: u32 = 1000;

/// All sessions, and what the clients' side of the world remembers.
pub struct Clients {
    keys: Vec<Key>,
    sessions: Vec<Session>,
    tokens: BTreeMap<(Key, Bytes), Token>,
    last_write: u128,
    last_request: u64,
    /// No new operations from here on.
    pub closed: bool,
    /// Requests of final reads, with their operations.
    final_reads: BTreeMap<u64, usize>,
}

struct Session {
    random: Random,
    /// Contexts by key, oldest first.
    contexts: BTreeMap<Key, Vec<(Bytes, Token)>>,
    doing: Option<Doing>,
}

/// An operation under way.
struct Doing {
    op: usize,
    request: Request,
    attempts: u8,
    /// The number of the last attempt's request; answers to earlier ones come too late.
    id: u64,
    /// An earlier attempt may have been applied.
    uncertain: bool,
}

impl Clients {
    pub fn new(plan: &Plan, random: &mut Random) -> Self {
        let key = |bucket: &str, number: u64| {
            Key::new(bucket.as_bytes(), format!("k{number}").as_bytes()).expect("a sound key")
        };
        let siblings = (0..plan.keys).map(|number| key("sib", number));
        let latest = (0..plan.keys_last_write_wins).map(|number| key("lww", number));
        let session = |_| Session {
            random: Random::new(random.next_u64()),
            contexts: BTreeMap::new(),
            doing: None,
        };
        Self {
            keys: siblings.chain(latest).collect(),
            sessions: (0..plan.sessions).map(session).collect(),
            tokens: BTreeMap::new(),
            last_write: 0,
            last_request: 0,
            closed: false,
            final_reads: BTreeMap::new(),
        }
    }

    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn token(&mut self, key: &Key, bytes: &Bytes) -> Token {
        let next = Token(self.tokens.len() as u32);
        *self.tokens.entry((key.clone(), bytes.clone())).or_insert(next)
    }

    pub fn is_idle(&self) -> bool {
        self.sessions.iter().all(|session| session.doing.is_none())
    }
}

impl Session {
    /// Mostly the youngest context of the key, sometimes an old one.
    fn context(&mut self, key: &Key) -> Option<(Bytes, Token)> {
        let contexts = self.contexts.get(key)?;
        let last = contexts.len().checked_sub(1)?;
        let back = if self.random.chance(12) { self.random.below(4) as usize } else { 0 };
        Some(contexts[last.saturating_sub(back)].clone())
    }

    fn learn(&mut self, key: &Key, context: (Bytes, Token)) {
        let contexts = self.contexts.entry(key.clone()).or_default();
        contexts.push(context);
        if contexts.len() > 4 {
            contexts.remove(0);
        }
    }
}

impl World {
    /// All sessions begin.
    pub fn open_sessions(&mut self) {
        for session in 0..self.clients.sessions.len() {
            let delay = 100 * MS + self.random.below(300 * MS);
            self.after(delay, Event::Session(session));
        }
    }

    /// A session's time to think is over: it begins an operation, or tries one again.
    pub fn session(&mut self, number: usize) {
        if self.clients.sessions[number].doing.is_none() {
            if self.clients.closed {
                return;
            }
            self.begin(number);
        }
        self.attempt(number);
    }

    fn think(&mut self, number: usize) {
        let random = &mut self.clients.sessions[number].random;
        let delay = random.below(2 * self.plan.think);
        self.after(delay, Event::Session(number));
    }

    fn begin(&mut self, number: usize) {
        let (plan, clients) = (&self.plan, &mut self.clients);
        let session = &mut clients.sessions[number];
        let random = &mut session.random;
        let key = clients.keys[random.below(clients.keys.len() as u64) as usize].clone();
        let budget_ms = 200 + random.below(1300) as u32;
        let least = plan.w_least;
        let dice = random.below(100);
        if dice < 36 {
            let (r, needed) = level(random, plan.n_least, 1);
            let strict = !plan.sloppy || random.chance(20);
            let get = Get { key, r, pr: Level::Default, budget_ms, strict, trace: false };
            self.invoke(number, Request::Get(get), None, needed);
            return;
        }
        let (w, needed) = level(random, plan.n_least, least);
        let large = if random.chance(10) { random.below(2000) as usize } else { 0 };
        let is_delete = (78..92).contains(&dice) || plan.calm && (48..66).contains(&dice);
        let (basis, condition) = match dice {
            36..66 | 78..89 => match session.context(&key) {
                Some((bytes, token)) => {
                    ((Basis::Context(bytes), history::Basis::Context(token)), Condition::None)
                }
                None if is_delete => OBSERVED,
                None => BLIND,
            },
            66..74 => BLIND,
            74..78 | 89..92 => OBSERVED,
            92..96 => (OBSERVED.0, Condition::Absent),
            _ => (OBSERVED.0, Condition::Present),
        };
        let strict = !plan.sloppy || session.random.chance(20);
        clients.last_write += 1;
        let write_id = WriteId(clients.last_write);
        let value = (!is_delete).then(|| value(write_id, large));
        let expiry = plan.expiry(write_id, self.now);
        let condition = match (&basis.0, expiry) {
            // As `EXPIRE` asks.
            (Basis::Context(_), Expiry::After(_)) if !is_delete => Condition::Unchanged,
            _ => condition,
        };
        let put = Put {
            key,
            write_id,
            attempt: 0,
            basis: basis.0,
            condition,
            value,
            expiry,
            w,
            pw: Level::Default,
            strict,
            budget_ms,
        };
        self.invoke(number, Request::Put(put), Some(basis.1), needed);
    }

    fn invoke(
        &mut self,
        number: usize,
        request: Request,
        basis: Option<history::Basis>,
        needed: u8,
    ) {
        let op = self.record(number as u32, &request, basis, needed, false);
        let doing = Doing { op, request, attempts: 0, id: 0, uncertain: false };
        self.clients.sessions[number].doing = Some(doing);
    }

    fn record(
        &mut self,
        session: u32,
        request: &Request,
        basis: Option<history::Basis>,
        needed: u8,
        is_final: bool,
    ) -> usize {
        let id = self.history.ops.len();
        let (kind, key, write) = match request {
            Request::Put(put) if put.value.is_none() => {
                (Kind::Delete, &put.key, Some(put.write_id))
            }
            Request::Put(put) => (Kind::Put, &put.key, Some(put.write_id)),
            Request::Get(get) => (Kind::Get, &get.key, None),
            _ => unreachable!("clients read and write"),
        };
        let expiry = match request {
            Request::Put(put) if put.value.is_some() => self.written_out(put),
            _ => Expiry::Never,
        };
        let op = Op {
            id,
            session,
            kind,
            key: key.to_string(),
            write,
            basis,
            expiry,
            n: self.plan.n,
            needed,
            attempts: 0,
            begin_by: 0,
            invoked: self.now,
            returned: Time::MAX,
            outcome: Outcome::Info,
            values: Vec::new(),
            context_out: None,
            coordinator: None,
            is_final,
        };
        self.note(format!("invoke {op}"));
        self.history.ops.push(op);
        id
    }

    /// When a value expires, whether its writer or its bucket says so.
    fn written_out(&self, put: &Put) -> Expiry {
        match (put.expiry, self.plan.ttl_ms) {
            (Expiry::Bucket, Some(ttl_ms)) if put.key.bucket() == "lww" => Expiry::After(ttl_ms),
            (Expiry::Bucket, _) => Expiry::Never,
            (asked, _) => asked,
        }
    }

    fn attempt(&mut self, number: usize) {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].up).collect();
        let session = &mut self.clients.sessions[number];
        let Some(doing) = &mut session.doing else { return };
        if up.is_empty() {
            // Refused connections: nothing was sent.
            let outcome = if doing.uncertain { Outcome::Info } else { Outcome::Fail };
            self.finish(number, outcome);
            return;
        }
        let node = up[session.random.below(up.len() as u64) as usize];
        let budget_ms = match &mut doing.request {
            Request::Put(put) => {
                put.attempt = doing.attempts;
                put.budget_ms
            }
            Request::Get(get) => get.budget_ms,
            _ => unreachable!("clients read and write"),
        };
        doing.attempts += 1;
        self.clients.last_request += 1;
        let id = self.clients.last_request;
        doing.id = id;
        let (op, request) = (doing.op, doing.request.clone());
        self.history.ops[op].attempts += 1;
        self.history.ops[op].begin_by = self.now + u64::from(budget_ms) * MS;
        self.note(format!("op {op} goes to n{node}"));
        self.ask(node, id, &request);
        let patience = u64::from(budget_ms) * MS + 150 * MS;
        self.after(patience, Event::ClientTimeout { session: number, request: id });
    }

    pub fn client_timeout(&mut self, number: usize, request: u64) {
        let Some(doing) = &mut self.clients.sessions[number].doing else { return };
        if doing.id == request {
            doing.uncertain |= matches!(doing.request, Request::Put(_));
            // An answer that comes later finds nobody.
            doing.id = 0;
            self.again_or(number, Outcome::Info);
        }
    }

    /// A write that did not succeed is tried again through some node, or given up.
    fn again_or(&mut self, number: usize, outcome: Outcome) {
        let session = &mut self.clients.sessions[number];
        let Some(doing) = &mut session.doing else { return };
        let is_write = matches!(doing.request, Request::Put(_));
        if !is_write
            || self.clients.closed
            || doing.attempts >= ATTEMPTS
            || session.random.chance(35)
        {
            self.finish(number, outcome);
            return;
        }
        let delay = match session.random.chance(30) {
            true => session.random.below(2 * SECOND),
            false => session.random.below(100 * MS),
        };
        self.after(delay, Event::Session(number));
    }

    fn finish(&mut self, number: usize, outcome: Outcome) {
        let Some(doing) = self.clients.sessions[number].doing.take() else { return };
        self.end(doing.op, outcome);
        self.think(number);
    }

    fn end(&mut self, op: usize, outcome: Outcome) {
        let now = self.now;
        let op = &mut self.history.ops[op];
        op.returned = now;
        op.outcome = outcome;
        let line = format!("return {op}");
        self.note(line);
    }

    pub fn answer_client(&mut self, frame: Bytes) {
        let mut buffer = BytesMut::from(&frame[..]);
        let frame = frame::decode(&mut buffer, limits::FRAME_PAYLOAD_BYTES);
        let frame = frame.expect("the network damages nothing").expect("frames arrive whole");
        let response = codec::decode_response(&frame).expect("nodes send sound answers");
        if let Some(op) = self.clients.final_reads.remove(&frame.id) {
            let outcome = self.take_answer(op, None, response).unwrap_or(Outcome::Fail);
            self.end(op, outcome);
            return;
        }
        let doing = |session: &Session| session.doing.as_ref().map(|doing| doing.id);
        let number = self.clients.sessions.iter().position(|s| doing(s) == Some(frame.id));
        let Some(number) = number else { return };
        let Some(doing) = &self.clients.sessions[number].doing else { return };
        let op = doing.op;
        match self.take_answer(op, Some(number), response) {
            Ok(outcome) => self.finish(number, outcome),
            Err(failure) => {
                self.note(format!("op {op} failed: {:?} {:?}", failure.code, failure.outcome));
                let Some(doing) = &mut self.clients.sessions[number].doing else { return };
                doing.uncertain |= failure.outcome == Applied::Unknown;
                doing.id = 0;
                let outcome = if doing.uncertain { Outcome::Info } else { Outcome::Fail };
                self.again_or(number, outcome);
            }
        }
    }

    /// Writes down what an answer says.
    fn take_answer(
        &mut self,
        op: usize,
        session: Option<usize>,
        response: Response,
    ) -> Result<Outcome, Failure> {
        let (context, receipt, values) = match response {
            Response::Got(got) => {
                let values = got.values.iter().map(|value| named_by(&value.data)).collect();
                (got.context, got.receipt, values)
            }
            Response::Done(done) => (done.context, done.receipt, Vec::new()),
            Response::Failed(failure) => return Err(failure),
            other => panic!("a client was answered with {other:?}"),
        };
        let name = self.history.ops[op].key.clone();
        let key = self.clients.keys.iter().find(|key| key.to_string() == name);
        let key = key.expect("clients use these keys").clone();
        let token = self.clients.token(&key, &context);
        let coordinator = self.number(receipt.coordinator);
        let record = &mut self.history.ops[op];
        record.context_out = Some(token);
        record.coordinator = coordinator;
        // What fallbacks confirmed overlaps with no other quorum.
        record.needed = record.needed.min(receipt.primaries);
        if record.kind == Kind::Get {
            // A read is of one set of slots; a write may be of two, and counts as the smaller says.
            record.needed = receipt.needed.min(receipt.primaries);
            record.n = receipt.n;
        }
        record.values = values;
        let is_read = record.kind == Kind::Get;
        if let Some(number) = session {
            let session = &mut self.clients.sessions[number];
            if is_read || session.random.chance(70) {
                session.learn(&key, (context, token));
            }
        }
        Ok(Outcome::Ok)
    }

    /// A read of the last phase: waits for its answer.
    pub fn final_read(&mut self, key: &Key, via: usize, r: u8, is_final: bool) -> Outcome {
        let (r, needed) = (Level::Count(r), r);
        let get = Get {
            key: key.clone(),
            r,
            pr: Level::Default,
            budget_ms: 3000,
            strict: true,
            trace: false,
        };
        let request = Request::Get(get);
        let session = FINAL_SESSION + via as u32;
        let op = self.record(session, &request, None, needed, is_final);
        self.clients.last_request += 1;
        let id = self.clients.last_request;
        self.clients.final_reads.insert(id, op);
        self.ask(via, id, &request);
        let limit = self.now + 4 * SECOND;
        self.run(limit, |world| !world.clients.final_reads.contains_key(&id));
        if self.clients.final_reads.remove(&id).is_some() {
            self.end(op, Outcome::Info);
        }
        self.history.ops[op].outcome
    }
}

const BLIND: ((Basis, history::Basis), Condition) =
    ((Basis::Blind, history::Basis::Blind), Condition::None);
const OBSERVED: ((Basis, history::Basis), Condition) =
    ((Basis::Observed, history::Basis::Observed), Condition::None);

/// A level for R or W, and the number it stands for.
fn level(random: &mut Random, n: u8, least: u8) -> (Level, u8) {
    let quorum = n / 2 + 1;
    let (level, count) = match random.below(10) {
        0..4 => (Level::Default, quorum),
        4..6 => (Level::Quorum, quorum),
        6 => (Level::All, n),
        7 => (Level::Count(2), 2),
        _ => (Level::Count(1), 1),
    };
    if count < least { (Level::Count(least), least) } else { (level, count) }
}

/// A value says which write it is of; some are long.
fn value(write: WriteId, extra: usize) -> Bytes {
    let mut text = Named(write).to_string();
    if extra > 0 {
        text.push(' ');
        text.push_str(&"x".repeat(extra));
    }
    Bytes::from(text)
}

fn named_by(value: &[u8]) -> WriteId {
    let text = std::str::from_utf8(value).expect("values are text");
    let number = text.split(' ').next().and_then(|name| name.strip_prefix('v'));
    WriteId(number.and_then(|n| n.parse().ok()).expect("values say which write they are of"))
}
