//! One connection, from its first byte to its last.

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
use super::information;
use super::inside::Inside;
use super::keyed;
use super::many::Several;
use super::queue::{Queue, Uses, Work};
use super::settings::Settings;
use crate::limits;
use crate::resp::command::{ClientCommand, Credentials, Hello};
use crate::resp::table;
use crate::resp::{Command, Parser, ParserLimits, ProtocolError, Reply, Version};

/// Memory that is read into at once.
const READ_BYTES: usize = 16 * 1024;
/// Answered bytes that may wait for the client to read them. Past it no more is read from it and
/// nothing more is begun. As much as the largest frame, so that clients which send a long pipeline
/// and only then begin to read are served.
const OUTPUT_BYTES: usize = limits::FRAME_PAYLOAD_BYTES;
/// Memory for output that is kept between writes.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;
/// A command that has begun has this long to arrive: else a client could keep memory for as long
/// as it likes with half a command. A connection that is quiet between commands may stay.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that is owed answers and takes none of their bytes for this long is cut off.
const READER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that is told of its fault has this long to stop sending.
const FAREWELL: Duration = Duration::from_secs(1);

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
    version: Version,
    owes_password: bool,
    parser: Parser,
    input: BytesMut,
    /// The next command, which has to wait for others.
    held: Option<(Uses, Command)>,
    asks: Asks,
    queue: Queue,
    output: BytesMut,
    last: Option<Last>,
    phase: Phase,
    /// Why this side closes the connection once everything before it is answered.
    fault: Option<ProtocolError>,
    /// When the command that is arriving began to.
    half_since: Option<Instant>,
    /// Since when the client has taken none of the output.
    unread_since: Option<Instant>,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, id: u64) -> Self {
        let node = &server.node;
        Self {
            id,
            settings: Settings::new(node.config.requests.timeout_ms),
            version: Version::Resp2,
            owes_password: !node.config.listen.password.is_empty(),
            parser: Parser::new(),
            input: BytesMut::new(),
            held: None,
            asks: Asks::new(node),
            queue: Queue::default(),
            output: BytesMut::new(),
            last: None,
            phase: Phase::Open,
            fault: None,
            half_since: None,
            unread_since: None,
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
            let deadline = self.deadline();
            let (reads, answers) = (self.reads(), self.output.len() < OUTPUT_BYTES);
            if reads && self.input.capacity() - self.input.len() < READ_BYTES / 4 {
                self.input.reserve(READ_BYTES);
            }
            let (mut reader, mut writer) = stream.split();
            tokio::select! {
                // What is there is written before more is taken on.
                biased;
                written = writer.write_buf(&mut self.output), if !self.output.is_empty() => {
                    match written {
                        Ok(0) | Err(_) => return Ok(()),
                        Ok(_) => self.was_read(),
                    }
                }
                answered = poll_fn(|context| self.queue.poll_first(context)), if answers => {
                    self.answer(answered);
                    self.take_answers();
                }
                arrived = reader.read_buf(&mut self.input), if reads => match arrived {
                    Ok(0) => self.phase = Phase::Finishing,
                    Ok(_) => self.asks.renew(&self.server.node),
                    Err(_) => return Ok(()),
                },
                () = sleep_until(deadline) => return Err(self.overdue()),
            }
        }
    }

    // ---- bounds ----------------------------------------------------------------------------

    /// Whether another command may begin.
    fn has_room(&self) -> bool {
        let configured = self.server.node.config.requests.max_in_flight_per_connection;
        self.output.len() < OUTPUT_BYTES && self.queue.len() < configured.min(limits::TEXT_PIPELINE)
    }

    fn reads(&self) -> bool {
        self.phase == Phase::Open && self.held.is_none() && self.has_room()
    }

    fn deadline(&self) -> Option<Instant> {
        let arrival = self.half_since.map(|since| since + COMMAND_TIMEOUT);
        let reading = self.unread_since.map(|since| since + READER_TIMEOUT);
        arrival.into_iter().chain(reading).min()
    }

    fn overdue(&self) -> Closed {
        match self.unread_since.is_some_and(|since| since.elapsed() >= READER_TIMEOUT) {
            true => Closed::NoReader,
            false => Closed::HalfCommand,
        }
    }

    /// The client has taken some of the output.
    fn was_read(&mut self) {
        self.unread_since = (!self.output.is_empty()).then(Instant::now);
        if self.output.is_empty() && self.output.capacity() > OUTPUT_BYTES_KEPT {
            self.output = BytesMut::new();
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
            if !self.queue.admits(&uses) {
                self.held = Some((uses, command));
                break;
            }
            self.begin(uses, command);
        }
        self.asks.offer(&self.server.node);
        if !self.output.is_empty() && self.unread_since.is_none() {
            self.unread_since = Some(Instant::now());
        }
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
                Some(Command::parse(&arguments).map_err(Reply::from))
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
            Command::Scan(_)
            | Command::Explain { .. }
            | Command::Ring
            | Command::Nodes
            | Command::Digest => {
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

    /// Answers what needs nobody else. All but `PING` and `ECHO` get here only when nothing is
    /// under way, so whatever they change, no earlier answer is affected.
    fn by_itself(&mut self, command: Command) -> Reply {
        match command {
            Command::Ping(None) => Reply::status("PONG"),
            Command::Ping(Some(message)) | Command::Echo(message) => Reply::Bulk(message),
            Command::Hello(hello) => self.hello(hello),
            Command::Auth(credentials) => match self.authenticate(&credentials) {
                Ok(()) => Reply::Ok,
                Err(refused) => refused,
            },
            Command::Select => Reply::Ok,
            Command::Quit => {
                self.phase = Phase::Closing;
                Reply::Ok
            }
            Command::Reset => self.reset(),
            Command::Client(command) => self.client(command),
            Command::Info(sections) => information::info(&self.server, &sections),
            Command::Table(command) => table::describe(&command),
            Command::ConfigGet(patterns) => information::config(&self.server, &patterns),
            Command::DatabaseSize => information::database_size(&self.server),
            Command::Last => self.last.as_ref().map_or(Reply::Null, Last::reply),
            Command::Quorum(None) => self.settings.quorum(),
            Command::Quorum(Some(quorum)) => {
                self.settings.set_quorum(&quorum);
                Reply::Ok
            }
            Command::Bucket(None) => Reply::text(self.settings.bucket.clone()),
            Command::Bucket(Some(name)) => self.change_bucket(name),
            Command::Help(name) => table::help(name.as_deref()),
            _ => answers::unexpected(),
        }
    }

    // ---- answers ---------------------------------------------------------------------------

    /// Answers a command as soon as those before it are.
    fn reply(&mut self, reply: Reply) {
        match self.queue.is_empty() {
            true => reply.encode(&mut self.output, self.version),
            false => self.queue.push(Uses::Nothing, Work::Answered(reply.into())),
        }
    }

    /// Takes the answers that are there, up to the first that is not.
    fn take_answers(&mut self) {
        while self.output.len() < OUTPUT_BYTES
            && let Some(answered) = self.queue.take_first()
        {
            self.answer(answered);
        }
    }

    fn answer(&mut self, answered: Answered) {
        answered.reply.encode(&mut self.output, self.version);
        if answered.last.is_some() {
            self.last = answered.last;
        }
    }

    // ---- the connection itself ---------------------------------------------------------------

    fn hello(&mut self, hello: Hello) -> Reply {
        if let Some(credentials) = &hello.credentials
            && let Err(refused) = self.authenticate(credentials)
        {
            return refused;
        }
        if self.owes_password {
            let message = "Authentication required: HELLO 3 AUTH default password";
            return Reply::error("NOAUTH", message);
        }
        let version = hello.version.unwrap_or(self.version);
        self.version = version;
        let name = hello.name.map(|name| name.escape_ascii().to_string());
        self.server.clients.update(self.id, |client| {
            client.version = version;
            client.name = name.unwrap_or_else(|| std::mem::take(&mut client.name));
        });
        let proto = match version {
            Version::Resp2 => 2,
            Version::Resp3 => 3,
        };
        Reply::map([
            ("server", Reply::text("ringdove")),
            ("version", Reply::text(env!("CARGO_PKG_VERSION"))),
            ("proto", Reply::Integer(proto)),
            ("id", Reply::Integer(self.id as i64)),
            ("mode", Reply::text("standalone")),
            ("role", Reply::text("master")),
            ("modules", Reply::Array(Vec::new())),
        ])
    }

    fn authenticate(&mut self, credentials: &Credentials) -> Result<(), Reply> {
        let password = &self.server.node.config.listen.password;
        if password.is_empty() {
            let message = "AUTH called without any password set: listen.password sets one";
            return Err(Reply::error("ERR", message));
        }
        let user_is_known = credentials.user.as_ref().is_none_or(|user| user == "default");
        if !is_equal(&credentials.password, password.as_bytes()) || !user_is_known {
            return Err(Reply::error("NOAUTH", "invalid username or password"));
        }
        self.owes_password = false;
        Ok(())
    }

    fn reset(&mut self) -> Reply {
        self.settings.reset();
        self.version = Version::Resp2;
        self.owes_password = !self.server.node.config.listen.password.is_empty();
        self.last = None;
        self.server.clients.update(self.id, |client| {
            client.version = Version::Resp2;
            client.name.clear();
        });
        Reply::status("RESET")
    }

    fn change_bucket(&mut self, name: String) -> Reply {
        if self.server.node.topology().bucket(&name).is_none() {
            let message = format!(
                "there is no bucket {name:?}; create it with: ringdove bucket create {name}"
            );
            return Reply::error("NOBUCKET", message);
        }
        self.settings.bucket = name;
        Reply::Ok
    }

    fn client(&mut self, command: ClientCommand) -> Reply {
        let clients = &self.server.clients;
        let text = |name: bytes::Bytes| name.escape_ascii().to_string();
        let now = self.server.node.clock.instant();
        match command {
            ClientCommand::SetName(name) => {
                clients.update(self.id, |client| client.name = text(name));
            }
            ClientCommand::SetLibraryName(name) => {
                clients.update(self.id, |client| client.library_name = text(name));
            }
            ClientCommand::SetLibraryVersion(version) => {
                clients.update(self.id, |client| client.library_version = text(version));
            }
            ClientCommand::Name => {
                let name = clients.name(self.id);
                return if name.is_empty() { Reply::Null } else { Reply::text(name) };
            }
            ClientCommand::Id => return Reply::Integer(self.id as i64),
            ClientCommand::Info => return Reply::Verbatim(clients.describe(Some(self.id), now)),
            ClientCommand::List => return Reply::Verbatim(clients.describe(None, now)),
            ClientCommand::Nothing => {}
        }
        Reply::Ok
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

/// Compares in a time that does not tell where the two differ.
fn is_equal(given: &[u8], secret: &[u8]) -> bool {
    let differences = given
        .iter()
        .enumerate()
        .fold(0, |differences, (i, byte)| differences | (byte ^ secret[i % secret.len()]));
    differences == 0 && given.len() == secret.len()
}
