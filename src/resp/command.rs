//! Commands as values: what the server is asked to do, with every option read and checked.
//!
//! [`Command::parse`] (in `table`) makes one from arguments. Whatever the language alone can refuse
//! never becomes a command: it is a [`CommandError`], whose text is the line to answer with.

use std::fmt;

use bytes::Bytes;

use super::reply::{Reply, Version};
use crate::key::KeyError;
use crate::wire::faults::FaultOrder;
use crate::wire::messages::{Condition, Expiry, Goals, Level};

/// One command. Keys and values share the memory of the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `PING [message]`.
    Ping(Option<Bytes>),
    /// `ECHO message`.
    Echo(Bytes),
    /// `HELLO [2|3 …]`.
    Hello(Hello),
    /// `AUTH [user] password`.
    Auth(Credentials),
    /// `SELECT 0`; other numbers are refused before.
    Select,
    /// `QUIT`.
    Quit,
    /// `RESET`.
    Reset,
    /// `CLIENT …`.
    Client(ClientCommand),

    /// `INFO [section …]`: the sections in small letters; none for the usual ones.
    Info(Vec<String>),
    /// `COMMAND …`; `table::describe` has the answer.
    Table(TableCommand),
    /// `CONFIG GET pattern …`: the patterns.
    ConfigGet(Vec<Bytes>),
    /// `DBSIZE`.
    DatabaseSize,

    /// `GET key`.
    Get {
        /// The key.
        key: Bytes,
    },
    /// `SET key value …`.
    Set(Set),
    /// `GETDEL key`.
    GetDelete {
        /// The key.
        key: Bytes,
    },
    /// `DEL key …` and `UNLINK key …`.
    Delete(Vec<Bytes>),
    /// `EXISTS key …`.
    Exists(Vec<Bytes>),
    /// `MGET key …`.
    MultiGet(Vec<Bytes>),
    /// `MSET key value …`.
    MultiSet(Vec<(Bytes, Bytes)>),
    /// `STRLEN key`.
    StringLength {
        /// The key.
        key: Bytes,
    },
    /// `TYPE key`.
    Type {
        /// The key.
        key: Bytes,
    },
    /// `TTL key`, `PTTL key`, `EXPIRETIME key` and `PEXPIRETIME key`.
    TimeToLive {
        /// The key.
        key: Bytes,
        /// Answer in milliseconds instead of seconds.
        milliseconds: bool,
        /// Answer the time at which it expires, not how long that is from now.
        absolute: bool,
    },
    /// `EXPIRE key …`, `PEXPIRE`, `EXPIREAT` and `PEXPIREAT`.
    Expire(Expire),
    /// `PERSIST key`.
    Persist {
        /// The key.
        key: Bytes,
    },
    /// `GETEX key …` with an option; without one it is a `Get`.
    GetExpire {
        /// The key.
        key: Bytes,
        /// What its expiry becomes.
        expiry: Expiry,
    },
    /// `SCAN cursor …` and `RD.SCAN bucket cursor …`.
    Scan(Scan),

    /// `RD.GET key …`.
    RdGet {
        /// The key.
        key: Bytes,
        /// `R`, if it is not the connection's.
        r: Option<Level>,
        /// `PR`, if it is not the connection's.
        pr: Option<Level>,
    },
    /// `RD.PUT key value …`.
    RdPut(RdPut),
    /// `RD.DEL key …`.
    RdDelete(RdDelete),
    /// `RD.SIBLINGS key`.
    Siblings {
        /// The key.
        key: Bytes,
    },
    /// `RD.LAST`.
    Last,
    /// `RD.QUORUM …`: what to change, or `None` to show what is set.
    Quorum(Option<QuorumSettings>),
    /// `RD.BUCKET [name]`: the bucket to change to, or `None` to show which it is.
    Bucket(Option<String>),
    /// `RD.EXPLAIN key`.
    Explain {
        /// The key.
        key: Bytes,
    },
    /// `RD.TRACE command …`: one of `Get`, `Set`, `Delete` of one key, `RdGet`, `RdPut`,
    /// `RdDelete`.
    Trace(Box<Command>),
    /// `RD.RING`.
    Ring,
    /// `RD.NODES`.
    Nodes,
    /// `RD.TRANSFERS`.
    Transfers,
    /// `RD.DIGEST`.
    Digest,
    /// `RD.HINTS`.
    Hints,
    /// `RD.TOMBSTONES`.
    Tombstones,
    /// `RD.SYNC STATUS|PARTITION partition|NOW|PAUSE|RESUME`.
    Sync(SyncCommand),
    /// `RD.WAIT`.
    Wait {
        /// What for.
        goals: Goals,
        /// Milliseconds after which to answer with what is still open.
        timeout_ms: u64,
    },
    /// `RD.CONFLICTS`: counts by bucket.
    Tallies,
    /// `RD.CONFLICTS bucket …`.
    Conflicts {
        /// The bucket.
        bucket: String,
        /// Where to go on; 0 begins.
        cursor: u64,
        /// Keys of one page.
        count: usize,
    },
    /// `RD.TOP`.
    Outliers,
    /// `RD.FAULT …`, where the node has it.
    Fault(FaultOrder),
    /// `RD.HELP [command]`; `table::help` has the answer.
    Help(Option<Bytes>),
}

impl Command {
    /// Whether somebody who owes a password may give this command.
    #[must_use]
    pub fn is_allowed_without_password(&self) -> bool {
        matches!(self, Self::Hello(_) | Self::Auth(_) | Self::Quit | Self::Reset)
    }
}

/// `HELLO [2|3 [AUTH user password] [SETNAME name]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The version to change to, if one was named.
    pub version: Option<Version>,
    /// Who it is.
    pub credentials: Option<Credentials>,
    /// The connection's new name.
    pub name: Option<Bytes>,
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user; `None` for the short form, which means `default`.
    pub user: Option<Bytes>,
    /// The password.
    pub password: Bytes,
}

impl fmt::Debug for Credentials {
    /// Without the password: commands are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// `CLIENT …`: what client libraries send when they connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCommand {
    /// `SETNAME name`; an empty name takes it away.
    SetName(Bytes),
    /// `GETNAME`.
    Name,
    /// `SETINFO LIB-NAME name`.
    SetLibraryName(Bytes),
    /// `SETINFO LIB-VER version`.
    SetLibraryVersion(Bytes),
    /// `ID`.
    Id,
    /// `INFO`.
    Info,
    /// `LIST`.
    List,
    /// `NO-EVICT on|off` and `NO-TOUCH on|off`: nothing is evicted here, so they are answered with
    /// `OK`.
    Nothing,
}

/// What all nodes are asked about their anti-entropy, or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncCommand {
    /// How it stands.
    Status,
    /// How the owners of one partition stand with each other.
    Partition(u16),
    /// Compare everything now.
    Now,
    /// Begin no comparison until further notice.
    Pause,
    /// Go on.
    Resume,
}

/// `COMMAND …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableCommand {
    /// All rows, in Redis' form.
    All,
    /// How many there are.
    Count,
    /// Their names.
    List,
    /// The rows of these names, in Redis' form; all for none.
    Info(Vec<Bytes>),
    /// Summary, group and syntax of these names; all for none.
    Docs(Vec<Bytes>),
}

/// `SET key value [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL] [NX|XX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// From when on it reads as absent.
    pub expiry: Expiry,
    /// `KEEPTTL`: from when on what was there would have.
    pub keeps_expiry: bool,
    /// `NX` or `XX`.
    pub condition: Condition,
}

/// `EXPIRE key seconds [NX|XX|GT|LT]`, and its siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expire {
    /// The key.
    pub key: Bytes,
    /// When: milliseconds from now, or since 1970. In the past it deletes the key.
    pub millis: i64,
    /// `millis` is a time, not a span.
    pub absolute: bool,
    /// When not to.
    pub only: ExpireOnly,
}

/// Under which conditions an expiry is changed; all that are named must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireOnly {
    /// `NX`: there is none.
    pub without: bool,
    /// `XX`: there is one.
    pub with: bool,
    /// `GT`: it is later than before. No expiry is later than all.
    pub later: bool,
    /// `LT`: it is earlier.
    pub earlier: bool,
}

/// `SCAN cursor [MATCH pattern] [COUNT count]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The bucket, if it is not the connection's.
    pub bucket: Option<String>,
    /// Where to go on; 0 begins.
    pub cursor: u64,
    /// Only keys that match this (`glob::matches`).
    pub pattern: Option<Bytes>,
    /// How many keys to look at, 1 to `limits::PAGE_KEYS`.
    pub count: usize,
    /// `R`, if it is not the connection's.
    pub r: Option<Level>,
}

/// What an `RD.PUT` builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutBasis {
    /// What an earlier answer's context covers: that is replaced.
    Context(Bytes),
    /// There is no value yet, or else `EXISTS`.
    New,
    /// Nothing: becomes a sibling of whatever is there.
    Blind,
}

/// What an `RD.DEL` builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteBasis {
    /// What an earlier answer's context covers: that is deleted.
    Context(Bytes),
    /// Nothing: the deletion stands beside whatever is there.
    Blind,
}

/// `RD.PUT key value CTX context|NEW|BLIND [W w] [PW n] [EX s|PX ms|EXAT s|PXAT ms]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdPut {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// What it builds on.
    pub basis: PutBasis,
    /// `W`, if it is not the connection's.
    pub w: Option<Level>,
    /// `PW`, if it is not the connection's.
    pub pw: Option<Level>,
    /// From when on it reads as absent.
    pub expiry: Expiry,
}

/// `RD.DEL key CTX context|BLIND [W w] [PW n]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdDelete {
    /// The key.
    pub key: Bytes,
    /// What it builds on.
    pub basis: DeleteBasis,
    /// `W`, if it is not the connection's.
    pub w: Option<Level>,
    /// `PW`, if it is not the connection's.
    pub pw: Option<Level>,
}

/// Which replicas may stand in for those that are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumMode {
    /// Only the key's own replicas count.
    Strict,
    /// Fallbacks count too.
    Sloppy,
}

/// `RD.QUORUM [R r] [W w] [PR n] [PW n] [STRICT|SLOPPY]`: what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuorumSettings {
    /// Replicas that must answer a read.
    pub r: Option<Level>,
    /// Replicas that must confirm a write.
    pub w: Option<Level>,
    /// Of a read's, how many must be primaries.
    pub pr: Option<Level>,
    /// Of a write's, how many must be primaries.
    pub pw: Option<Level>,
    /// Whether fallbacks count.
    pub mode: Option<QuorumMode>,
}

/// Arguments that make no command. The client is at fault, nothing was changed, and the
/// connection goes on. The text is the line to answer with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such command. The rest are the first few arguments, quoted.
    #[error("ERR unknown command '{name}', with args beginning with: {arguments}")]
    UnknownCommand {
        /// Its name, cut to 128 bytes.
        name: String,
        /// What follows it, cut to 128 bytes.
        arguments: String,
    },
    /// The command exists, that part of it does not.
    #[error("ERR unknown subcommand '{name}'. Try RD.HELP {command}.")]
    UnknownSubcommand {
        /// The command.
        command: &'static str,
        /// What was asked of it, cut to 128 bytes.
        name: String,
    },
    /// Too few arguments, or too many. Holds the command's name in small letters.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    /// An option that does not exist, stands twice, or contradicts another.
    #[error("ERR syntax error")]
    Syntax,
    /// A number was expected.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// An expiry that is not above zero, or beyond all calendars. Holds the command's name.
    #[error("ERR invalid expire time in '{0}' command")]
    Expiry(&'static str),
    /// `EXPIRE` with an option that it does not have.
    #[error("ERR Unsupported option {0}")]
    ExpireOption(String),
    /// `SCAN` was given something that no `SCAN` answered.
    #[error("ERR invalid cursor")]
    Cursor,
    /// `HELLO` with a version that is neither 2 nor 3.
    #[error("NOPROTO unsupported protocol version: this server speaks 2 and 3")]
    ProtocolVersion,
    /// A level of `R`, `W`, `PR` or `PW` that is none. Holds the option's name.
    #[error("ERR {0} must be a number from 1 to {most}, one, quorum, all or default", most = crate::limits::REPLICAS_MAX)]
    Level(&'static str),
    /// A name or a pattern that is too long.
    #[error("ERR {what} has at most {most} bytes")]
    TooLong {
        /// What it was meant to be.
        what: &'static str,
        /// The bound it passed.
        most: usize,
    },
    /// A name that no bucket can have.
    #[error("ERR {0}")]
    BucketName(KeyError),
    /// Understood, and not done here. Says why and what to do instead.
    #[error("ERR {0}")]
    Refused(&'static str),
}

impl CommandError {
    /// The first word of the line.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ProtocolVersion => "NOPROTO",
            _ => "ERR",
        }
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        Self::error_line(error.code(), &error.to_string())
    }
}
