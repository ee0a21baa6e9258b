//! One connection, from its first byte to its last.

mod itself;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Server;
use super::answers::{self, Answered, Last};
use super::asks::Asks;
use super::expiring::Expiring;
use super::inside::Inside;
use super::keyed;
use super::lists::Lists;
use super::many::Several;
use super::output::Output;
use super::pulse::Listener;
use super::queue::{Queue, Uses, Work};
use super::settings::Settings;
use crate::limits;
use crate::resp::table::{self, Offer};
use crate::resp::{Command, Parser, ParserLimits, ProtocolError, Reply, Version};
use crate::server::window::Window;

/// Memory that is read into at once.
const READ_BYTES: usize = 16 * 1024;
/// A command that has begun has this long to arrive: else a client could keep memory for as long
/// as it likes with half a command. A connection that is quiet between commands may stay.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that is told of its fault has this long to stop sending.
const FAREWELL: Duration = Duration::from_secs(1);

/// The answer to a write that has waited here while its client may have written elsewhere.
const TOO_LATE: &str = "this node stood still for longer than a request may take; nothing was done";

/// Why this side closed a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// It sent something that is no command.
    #[error("{0}")]
    Malformed(#[from] ProtocolError),
    /// It began a command and did not end it.
    #[error("a command stopped half way")]
    HalfCommand,
    /// It asked and did not read.
    #[error("it does not read its answers")]
    NoReader,
}

/// What a connection may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Anything.
    Open,
    /// Its side is closed: what it sent before is still done and answered.
    Finishing,
    /// It takes no more commands: what is under way is answered.
    Closing,
}

/// One connection.
pub(super) struct Session {
    server: Arc<Server>,
    id: u64,
    settings: Settings,
    /// The commands there are.
    offer: Offer,
    version: Version,
    owes_password: bool,
    parser: Parser,
    input: BytesMut,
    /// The next command, which has to wait for others.
    held: Option<(Uses, Command)>,
    /// What was read last had waited while the node stood still, for longer than requests may take.
    is_late: bool,
    pulse: Listener,
    asks: Asks,
    queue: Queue,
    window: Window,
    output: Output,
    last: Option<Last>,
    phase: Phase,
    /// Why this side closes the connection once everything before it is answered.
    fault: Option<ProtocolError>,
    /// When the command that is arriving began to.
    half_since: Option<Instant>,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, id: u64) -> Self {
        let node = &server.node;
        let most = node.config.requests.max_in_flight_per_connection;
        Self {
            id,
            settings: Settings::new(node.config.requests.timeout_ms),
            offer: if node.faults.are_allowed() { Offer::WithFaults } else { Offer::Usual },
            version: Version::Resp2,
            owes_password: !node.config.listen.password.is_empty(),
            parser: Parser::new(),
            input: BytesMut::new(),
            held: None,
            is_late: false,
            pulse: Listener::new(&server.pulse),
            asks: Asks::new(node),
            queue: Queue::default(),
            window: Window::new(most.min(limits::TEXT_PIPELINE)),
            output: Output::new(server.waiting.clone()),
            last: None,
            phase: Phase::Open,
            fault: None,
            half_since: None,
            server,
        }
    }

    /// Serves the connection until one side ends it.
    ///
    /// # Errors
    /// Why this side ended it, where the other is at fault.
    pub(super) async fn run(mut self, mut stream: TcpStream) -> Result<(), Closed> {
        loop {
            self.take_commands();
            if self.queue.is_empty() && self.output.is_empty() && self.held.is_none() {
                match (self.phase, self.fault) {
                    (_, Some(fault)) => {
                        drop(tokio::time::timeout(FAREWELL, farewell(stream)).await);
                        return Err(fault.into());
                    }
                    (Phase::Open, None) => {}
                    (Phase::Finishing | Phase::Closing, None) => return Ok(()),
                }
            }
            let (reads, writes) = (self.reads(), !self.output.is_empty());
            let stands_still =
                self.held.as_ref().is_some_and(|(_, command)| self.stands_still_for(command));
            let (answers, deadline) = (self.output.has_room(), self.deadline());
            if reads && self.input.capacity() - self.input.len() < READ_BYTES / 4 {
                self.input.reserve(READ_BYTES);
            }
            let (mut reader, mut writer) = stream.split();
            tokio::select! {
                // What is there is written before more is taken on.
                biased;
                written = writer.write_buf(self.output.bytes()), if writes => match written {
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(_) => self.output.written(),
                },
                answered = poll_fn(|context| self.queue.poll_first(context)), if answers => {
                    self.answer(answered);
                    self.take_answers();
                }
                arrived = reader.read_buf(&mut self.input), if reads => match arrived {
                    Ok(0) => self.phase = Phase::Finishing,
                    Ok(_) => {
                        let is_all = self.input.len() < self.input.capacity();
                        self.is_late = self.pulse.waited(is_all) >= self.settings.budget();
                        self.asks.renew(&self.server.node);
                    }
                    Err(_) => return Ok(()),
                },
                () = self.server.node.faults.pass_pause(), if stands_still => {}
                () = sleep_until(deadline) => return Err(self.overdue()),
            }
        }
    }

    // ---- bounds ----------------------------------------------------------------------------

    /// Whether another command may begin.
    fn has_room(&self) -> bool {
        self.output.has_room() && self.queue.len() < self.window.size()
    }

    fn reads(&self) -> bool {
        self.phase == Phase::Open && self.held.is_none() && self.has_room()
    }

    fn deadline(&self) -> Option<Instant> {
        let arrival = self.half_since.map(|since| since + COMMAND_TIMEOUT);
        arrival.into_iter().chain(self.output.deadline()).min()
    }

    fn overdue(&self) -> Closed {
        match self.output.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            true => Closed::NoReader,
            false => Closed::HalfCommand,
        }
    }

    // ---- commands --------------------------------------------------------------------------

    /// Begins whatever has arrived and may begin, and gives the requests to the shards.
    fn take_commands(&mut self) {
        while self.phase != Phase::Closing && self.has_room() {
            let (uses, command) = match self.held.take() {
                Some(held) => held,
                None => match self.next_command() {
                    Some(Ok(command)) => (Uses::of(&command), command),
                    Some(Err(reply)) => {
                        self.reply(reply);
                        continue;
                    }
                    None => break,
                },
            };
            if !self.queue.admits(&uses) || self.stands_still_for(&command) {
                self.held = Some((uses, command));
                break;
            }
            self.begin(uses, command);
        }
        self.asks.offer(&self.server.node);
    }

    /// Whether the node stands still, and this is not heard then.
    fn stands_still_for(&self, command: &Command) -> bool {
        self.server.node.faults.is_paused() && !matches!(command, Command::Fault(_))
    }

    /// The next command, or why it is none; `None` until more has arrived.
    fn next_command(&mut self) -> Option<Result<Command, Reply>> {
        let limits = match self.owes_password {
            true => ParserLimits::UNAUTHENTICATED,
            false => ParserLimits::default(),
        };
        match self.parser.next(&mut self.input, &limits) {
            Ok(Some(arguments)) => {
                self.half_since = None;
                Some(table::parse(self.offer, &arguments).map_err(Reply::from))
            }
            Ok(None) => {
                let half = self.parser.is_within_command() || !self.input.is_empty();
                self.half_since = half.then(|| self.half_since.unwrap_or_else(Instant::now));
                None
            }
            Err(fault) => {
                self.phase = Phase::Closing;
                self.fault = Some(fault);
                self.half_since = None;
                Some(Err(fault.into()))
            }
        }
    }

    fn begin(&mut self, uses: Uses, command: Command) {
        if self.owes_password && !command.is_allowed_without_password() {
            return self.reply(Reply::error("NOAUTH", "Authentication required."));
        }
        if self.is_late && uses.writes() {
            return self.reply(Reply::error("TIMEOUT", TOO_LATE));
        }
        let node = &self.server.node;
        match keyed::request(node, &self.settings, &command) {
            Some(Ok((request, question))) => {
                let answer = self.asks.ask(node, request);
                return self.queue.push(uses, Work::Asked(answer, question));
            }
            Some(Err(error)) => return self.reply(answers::bad_key(&error)),
            None => {}
        }
        match command {
            Command::GetDelete { .. }
            | Command::Delete(_)
            | Command::Exists(_)
            | Command::MultiGet(_)
            | Command::MultiSet(_) => {
                let several = Several { node: node.clone(), settings: self.settings.clone() };
                self.queue.push(uses, Work::running(several.run(command)));
            }
            Command::Set(_)
            | Command::Expire(_)
            | Command::Persist { .. }
            | Command::GetExpire { .. } => {
                let expiring = Expiring { node: node.clone(), settings: self.settings.clone() };
                self.queue.push(uses, Work::running(expiring.run(command)));
            }
            Command::Scan(_)
            | Command::DatabaseSize
            | Command::Tallies
            | Command::Conflicts { .. }
            | Command::Outliers => {
                let lists = Lists { node: node.clone(), settings: self.settings.clone() };
                let work = async move { lists.run(command).await.into() };
                self.queue.push(uses, Work::running(work));
            }
            Command::Explain { .. }
            | Command::Ring
            | Command::Nodes
            | Command::Transfers
            | Command::Digest
            | Command::Hints
            | Command::Tombstones
            | Command::Sync(_)
            | Command::Wait { .. } => {
                let (server, settings) = (self.server.clone(), self.settings.clone());
                let inside = Inside { server, settings };
                let work = async move { inside.run(command).await.into() };
                self.queue.push(uses, Work::running(work));
            }
            command => {
                let reply = self.by_itself(command);
                self.reply(reply);
            }
        }
    }

    // ---- answers ---------------------------------------------------------------------------

    /// Answers a command as soon as those before it are.
    fn reply(&mut self, reply: Reply) {
        match self.queue.is_empty() {
            true => self.put(&reply),
            false => self.queue.push(Uses::Nothing, Work::Answered(reply.into())),
        }
    }

    /// Takes the answers that are there, up to the first that is not.
    fn take_answers(&mut self) {
        while self.output.has_room()
            && let Some(answered) = self.queue.take_first()
        {
            self.answer(answered);
        }
    }

    fn put(&mut self, reply: &Reply) {
        let bytes = self.output.put(reply, self.version);
        self.window.answered(bytes);
    }

    fn answer(&mut self, answered: Answered) {
        self.put(&answered.reply);
        if answered.last.is_some() {
            self.last = answered.last;
        }
    }
}

/// Says that nothing more will come, and hears the client out: closing a socket on bytes that are
/// unread would take the last answer away from it.
async fn farewell(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut unheard = [0; 4096];
    while stream.read(&mut unheard).await.is_ok_and(|count| count > 0) {}
}

/// Waits for a time; for ever where there is none.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
