//! Commands about the connection itself, and those that need nobody else.

use super::{Phase, Session};
use crate::resp::command::{ClientCommand, Credentials, Hello};
use crate::resp::table;
use crate::resp::{Command, Reply, Version};
use crate::server::text::answers::{self, Last};
use crate::server::text::{faults, information};

impl Session {
    /// Answers what needs nobody else. All but `PING` and `ECHO` get here only when nothing is
    /// under way, so whatever they change, no earlier answer is affected.
    pub(super) fn by_itself(&mut self, command: Command) -> Reply {
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
            Command::Table(command) => table::describe(self.offer, &command),
            Command::ConfigGet(patterns) => information::config(&self.server, &patterns),
            Command::Last => self.last.as_ref().map_or(Reply::Null, Last::reply),
            Command::Quorum(None) => self.settings.quorum(),
            Command::Quorum(Some(quorum)) => {
                self.settings.set_quorum(&quorum);
                Reply::Ok
            }
            Command::Bucket(None) => Reply::text(self.settings.bucket.clone()),
            Command::Bucket(Some(name)) => self.change_bucket(name),
            Command::Fault(order) => faults::obey(&self.server.node, order),
            Command::Help(name) => table::help(self.offer, name.as_deref()),
            _ => answers::unexpected(),
        }
    }

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

/// Compares in a time that does not tell where the two differ.
fn is_equal(given: &[u8], secret: &[u8]) -> bool {
    let differences = given
        .iter()
        .enumerate()
        .fold(0, |differences, (i, byte)| differences | (byte ^ secret[i % secret.len()]));
    differences == 0 && given.len() == secret.len()
}
