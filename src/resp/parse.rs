//! From the arguments of one command to its value: a function for each row of the table.
//!
//! The arity was checked by the row before any of these runs, so the arguments that every form of
//! a command has are there to be indexed. What follows them are options, in any order, each at
//! most once.

use bytes::Bytes;

use super::command::{
    ClientCommand, Command, CommandError, Credentials, DeleteBasis, Hello, PutBasis, QuorumMode,
    QuorumSettings, RdDelete, RdPut, Scan, Set, TableCommand,
};
use super::glob;
use super::reply::Version;
use super::table;
use crate::key::{self, KeyError};
use crate::limits;
use crate::wire::messages::{Condition, Level};

type Parsed = Result<Command, CommandError>;

/// A number in its shortest decimal form, as Redis reads them: no plus, no leading zeros.
pub(super) fn integer(digits: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(digits).ok()?;
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    match magnitude.as_bytes() {
        [b'0'] if magnitude.len() < text.len() => None,
        [b'0', _, ..] | [] | [b'+' | b'-', ..] => None,
        _ => text.parse().ok(),
    }
}

/// Text for people, at most 128 bytes of it, as Redis cuts what it repeats.
pub(super) fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(128)].escape_ascii().to_string()
}

fn wrong_arity(name: &str) -> CommandError {
    CommandError::Arity(name.to_ascii_lowercase())
}

/// Options that have not been read yet.
struct Options<'a> {
    rest: &'a [Bytes],
}

impl<'a> Options<'a> {
    fn behind(arguments: &'a [Bytes], count: usize) -> Self {
        Self { rest: &arguments[count..] }
    }

    /// The next option's name, in capitals.
    fn name(&mut self) -> Option<Vec<u8>> {
        let (name, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(name.to_ascii_uppercase())
    }

    /// What stands behind the name that was just read.
    fn value(&mut self) -> Result<&'a Bytes, CommandError> {
        let (value, rest) = self.rest.split_first().ok_or(CommandError::Syntax)?;
        self.rest = rest;
        Ok(value)
    }

    /// Sets `option` to the level that follows.
    fn level(
        &mut self,
        option: &mut Option<Level>,
        name: &'static str,
    ) -> Result<(), CommandError> {
        let level = level(self.value()?).ok_or(CommandError::Level(name))?;
        once(option, level)
    }

    /// Sets `option` to the milliseconds that follow, given as units of `unit_ms`.
    fn expiry(
        &mut self,
        option: &mut Option<u64>,
        unit_ms: i64,
        command: &'static str,
    ) -> Result<(), CommandError> {
        let count = integer(self.value()?).ok_or(CommandError::NotAnInteger)?;
        let expiry = || CommandError::Expiry(command);
        let ttl_ms = count.checked_mul(unit_ms).filter(|ms| *ms > 0).ok_or_else(expiry)?;
        once(option, ttl_ms.unsigned_abs())
    }
}

/// Sets what was not set before.
fn once<T>(option: &mut Option<T>, value: T) -> Result<(), CommandError> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(CommandError::Syntax),
    }
}

fn level(text: &[u8]) -> Option<Level> {
    match text.to_ascii_lowercase().as_slice() {
        b"one" => Some(Level::Count(1)),
        b"quorum" => Some(Level::Quorum),
        b"all" => Some(Level::All),
        b"default" => Some(Level::Default),
        digits => {
            let count = u8::try_from(integer(digits)?).ok()?;
            (1..=limits::REPLICAS_MAX).contains(&count).then_some(Level::Count(count))
        }
    }
}

// ---- connection ---------------------------------------------------------------------------------

pub(super) fn ping(arguments: &[Bytes]) -> Parsed {
    match arguments {
        [_] => Ok(Command::Ping(None)),
        [_, message] => Ok(Command::Ping(Some(message.clone()))),
        _ => Err(wrong_arity("ping")),
    }
}

pub(super) fn echo(arguments: &[Bytes]) -> Parsed {
    Ok(Command::Echo(arguments[1].clone()))
}

pub(super) fn hello(arguments: &[Bytes]) -> Parsed {
    let mut hello = Hello::default();
    let mut options = Options::behind(arguments, 1);
    if !options.rest.is_empty() {
        hello.version = Some(match integer(options.value()?) {
            Some(2) => Version::Resp2,
            Some(3) => Version::Resp3,
            _ => return Err(CommandError::ProtocolVersion),
        });
    }
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"AUTH" => {
                let user = Some(options.value()?.clone());
                let password = options.value()?.clone();
                once(&mut hello.credentials, Credentials { user, password })?;
            }
            b"SETNAME" => once(&mut hello.name, connection_name(options.value()?)?)?,
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(Command::Hello(hello))
}

pub(super) fn auth(arguments: &[Bytes]) -> Parsed {
    let (user, password) = match arguments {
        [_, password] => (None, password.clone()),
        [_, user, password] => (Some(user.clone()), password.clone()),
        _ => return Err(CommandError::Syntax),
    };
    Ok(Command::Auth(Credentials { user, password }))
}

pub(super) fn select(arguments: &[Bytes]) -> Parsed {
    match integer(&arguments[1]) {
        Some(0) => Ok(Command::Select),
        Some(_) => Err(CommandError::Refused(
            "DB index is out of range: there is only database 0. Use RD.BUCKET for separate keys",
        )),
        None => Err(CommandError::NotAnInteger),
    }
}

pub(super) fn quit(_: &[Bytes]) -> Parsed {
    Ok(Command::Quit)
}

pub(super) fn reset(_: &[Bytes]) -> Parsed {
    Ok(Command::Reset)
}

/// A name that can stand in a line of `CLIENT LIST`.
fn connection_name(name: &Bytes) -> Result<Bytes, CommandError> {
    if name.len() > limits::NAME_BYTES * 4 {
        return Err(CommandError::Refused("a connection's name has at most 192 bytes"));
    }
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(CommandError::Refused(
            "Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(name.clone())
}

pub(super) fn client(arguments: &[Bytes]) -> Parsed {
    let word = arguments[1].to_ascii_uppercase();
    let exactly = |count: usize, command: ClientCommand| match arguments.len() == count {
        true => Ok(Command::Client(command)),
        false => Err(wrong_arity(&format!("client|{}", shown(&word)))),
    };
    let argument = |i: usize| arguments.get(i).cloned().unwrap_or_default();
    match word.as_slice() {
        b"SETNAME" => exactly(3, ClientCommand::SetName(connection_name(&argument(2))?)),
        b"GETNAME" => exactly(2, ClientCommand::Name),
        b"ID" => exactly(2, ClientCommand::Id),
        b"INFO" => exactly(2, ClientCommand::Info),
        b"LIST" => exactly(2, ClientCommand::List),
        b"NO-EVICT" | b"NO-TOUCH" => match argument(2).to_ascii_uppercase().as_slice() {
            b"ON" | b"OFF" | b"" => exactly(3, ClientCommand::Nothing),
            _ => Err(CommandError::Syntax),
        },
        b"SETINFO" => match argument(2).to_ascii_uppercase().as_slice() {
            b"LIB-NAME" => {
                exactly(4, ClientCommand::SetLibraryName(connection_name(&argument(3))?))
            }
            b"LIB-VER" => {
                exactly(4, ClientCommand::SetLibraryVersion(connection_name(&argument(3))?))
            }
            b"" => Err(wrong_arity("client|setinfo")),
            _ => Err(CommandError::Refused("CLIENT SETINFO knows LIB-NAME and LIB-VER")),
        },
        _ => unknown_subcommand("CLIENT", &word),
    }
}

fn unknown_subcommand(command: &'static str, name: &[u8]) -> Parsed {
    Err(CommandError::UnknownSubcommand { command, name: shown(name) })
}

// ---- server -------------------------------------------------------------------------------------

pub(super) fn info(arguments: &[Bytes]) -> Parsed {
    let section = |name: &Bytes| shown(name).to_ascii_lowercase();
    Ok(Command::Info(arguments[1..].iter().map(section).collect()))
}

pub(super) fn command(arguments: &[Bytes]) -> Parsed {
    let Some(word) = arguments.get(1) else {
        return Ok(Command::Table(TableCommand::All));
    };
    let names = || arguments[2..].to_vec();
    let alone = |command: TableCommand| match arguments.len() {
        2 => Ok(Command::Table(command)),
        _ => Err(wrong_arity(&format!("command|{}", shown(word)))),
    };
    match word.to_ascii_uppercase().as_slice() {
        b"COUNT" => alone(TableCommand::Count),
        b"LIST" => alone(TableCommand::List),
        b"INFO" => Ok(Command::Table(TableCommand::Info(names()))),
        b"DOCS" => Ok(Command::Table(TableCommand::Docs(names()))),
        _ => unknown_subcommand("COMMAND", word),
    }
}

pub(super) fn config(arguments: &[Bytes]) -> Parsed {
    match arguments[1].to_ascii_uppercase().as_slice() {
        b"GET" if arguments.len() < 3 => Err(wrong_arity("config|get")),
        b"GET" => {
            let patterns = &arguments[2..];
            patterns.iter().try_for_each(|pattern| bounded(pattern).map(drop))?;
            Ok(Command::ConfigGet(patterns.to_vec()))
        }
        b"SET" => Err(CommandError::Refused(
            "CONFIG SET is not supported: settings live in the node's configuration file",
        )),
        word => unknown_subcommand("CONFIG", word),
    }
}

pub(super) fn database_size(_: &[Bytes]) -> Parsed {
    Ok(Command::DatabaseSize)
}

pub(super) fn cluster(_: &[Bytes]) -> Parsed {
    // Clients turn to a single node's ways when they read this very sentence.
    Err(CommandError::Refused("This instance has cluster support disabled"))
}

pub(super) fn keys(_: &[Bytes]) -> Parsed {
    Err(CommandError::Refused(
        "KEYS is not supported: it would hold up every node to list all keys at once. Use SCAN",
    ))
}

// ---- keys and values ----------------------------------------------------------------------------

pub(super) fn get(arguments: &[Bytes]) -> Parsed {
    Ok(Command::Get { key: arguments[1].clone() })
}

pub(super) fn set(arguments: &[Bytes]) -> Parsed {
    let (mut ttl_ms, mut condition) = (None, None);
    let mut options = Options::behind(arguments, 3);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"EX" => options.expiry(&mut ttl_ms, 1000, "set")?,
            b"PX" => options.expiry(&mut ttl_ms, 1, "set")?,
            b"NX" => once(&mut condition, Condition::Absent)?,
            b"XX" => once(&mut condition, Condition::Present)?,
            b"GET" => {
                return Err(CommandError::Refused(
                    "SET with GET is not supported: read with RD.GET, then RD.PUT with its context",
                ));
            }
            b"KEEPTTL" | b"EXAT" | b"PXAT" => {
                return Err(CommandError::Refused(
                    "SET with KEEPTTL, EXAT or PXAT is not supported: use EX or PX",
                ));
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let (key, value) = (arguments[1].clone(), arguments[2].clone());
    Ok(Command::Set(Set { key, value, ttl_ms, condition: condition.unwrap_or_default() }))
}

pub(super) fn get_delete(arguments: &[Bytes]) -> Parsed {
    Ok(Command::GetDelete { key: arguments[1].clone() })
}

pub(super) fn delete(arguments: &[Bytes]) -> Parsed {
    Ok(Command::Delete(arguments[1..].to_vec()))
}

pub(super) fn exists(arguments: &[Bytes]) -> Parsed {
    Ok(Command::Exists(arguments[1..].to_vec()))
}

pub(super) fn multi_get(arguments: &[Bytes]) -> Parsed {
    Ok(Command::MultiGet(arguments[1..].to_vec()))
}

pub(super) fn multi_set(arguments: &[Bytes]) -> Parsed {
    let (pairs, odd) = arguments[1..].as_chunks::<2>();
    if !odd.is_empty() {
        return Err(wrong_arity("mset"));
    }
    Ok(Command::MultiSet(pairs.iter().map(|[key, value]| (key.clone(), value.clone())).collect()))
}

pub(super) fn string_length(arguments: &[Bytes]) -> Parsed {
    Ok(Command::StringLength { key: arguments[1].clone() })
}

pub(super) fn value_type(arguments: &[Bytes]) -> Parsed {
    Ok(Command::Type { key: arguments[1].clone() })
}

pub(super) fn time_to_live_seconds(arguments: &[Bytes]) -> Parsed {
    Ok(Command::TimeToLive { key: arguments[1].clone(), milliseconds: false })
}

pub(super) fn time_to_live_milliseconds(arguments: &[Bytes]) -> Parsed {
    Ok(Command::TimeToLive { key: arguments[1].clone(), milliseconds: true })
}

/// A pattern that is not too long to be matched against many keys.
fn bounded(pattern: &Bytes) -> Result<Bytes, CommandError> {
    if pattern.len() > glob::PATTERN_BYTES {
        return Err(CommandError::Refused("a pattern has at most 256 bytes"));
    }
    Ok(pattern.clone())
}

pub(super) fn scan(arguments: &[Bytes]) -> Parsed {
    let cursor = std::str::from_utf8(&arguments[1]).ok().and_then(|text| text.parse().ok());
    let cursor = cursor.ok_or(CommandError::Cursor)?;
    let (mut pattern, mut count) = (None, None);
    let mut options = Options::behind(arguments, 2);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"MATCH" => once(&mut pattern, bounded(options.value()?)?)?,
            b"COUNT" => {
                let asked = integer(options.value()?).ok_or(CommandError::NotAnInteger)?;
                let asked = usize::try_from(asked).ok().filter(|asked| *asked > 0);
                once(&mut count, asked.ok_or(CommandError::Syntax)?.min(limits::PAGE_KEYS))?;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    // 10 is what Redis looks at when nothing is said.
    Ok(Command::Scan(Scan { cursor, pattern, count: count.unwrap_or(10) }))
}

// ---- what Redis has no word for -------------------------------------------------------------------

pub(super) fn rd_get(arguments: &[Bytes]) -> Parsed {
    let (mut r, mut pr) = (None, None);
    let mut options = Options::behind(arguments, 2);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"R" => options.level(&mut r, "R")?,
            b"PR" => options.level(&mut pr, "PR")?,
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(Command::RdGet { key: arguments[1].clone(), r, pr })
}

pub(super) fn rd_put(arguments: &[Bytes]) -> Parsed {
    let (mut basis, mut w, mut pw, mut ttl_ms) = (None, None, None, None);
    let mut options = Options::behind(arguments, 3);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"CTX" => once(&mut basis, put_basis(options.value()?))?,
            b"NEW" => once(&mut basis, PutBasis::New)?,
            b"BLIND" => once(&mut basis, PutBasis::Blind)?,
            b"W" => options.level(&mut w, "W")?,
            b"PW" => options.level(&mut pw, "PW")?,
            b"EX" => options.expiry(&mut ttl_ms, 1000, "rd.put")?,
            b"PX" => options.expiry(&mut ttl_ms, 1, "rd.put")?,
            _ => return Err(CommandError::Syntax),
        }
    }
    let basis = basis.ok_or(CommandError::Refused(
        "RD.PUT must say what it builds on: CTX and a context from RD.GET, NEW or BLIND",
    ))?;
    let (key, value) = (arguments[1].clone(), arguments[2].clone());
    Ok(Command::RdPut(RdPut { key, value, basis, w, pw, ttl_ms }))
}

/// What stands behind `CTX`. "CTX context|NEW|BLIND" can be read in two ways, so `CTX NEW` means
/// what `NEW` means; no context token is that short.
fn put_basis(word: &Bytes) -> PutBasis {
    match word.to_ascii_uppercase().as_slice() {
        b"NEW" => PutBasis::New,
        b"BLIND" => PutBasis::Blind,
        _ => PutBasis::Context(word.clone()),
    }
}

pub(super) fn rd_delete(arguments: &[Bytes]) -> Parsed {
    const BASIS: CommandError = CommandError::Refused(
        "RD.DEL must say what it builds on: CTX and a context from RD.GET, or BLIND",
    );
    let (mut basis, mut w, mut pw) = (None, None, None);
    let mut options = Options::behind(arguments, 2);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"CTX" => match put_basis(options.value()?) {
                PutBasis::Context(context) => once(&mut basis, DeleteBasis::Context(context))?,
                PutBasis::Blind => once(&mut basis, DeleteBasis::Blind)?,
                PutBasis::New => return Err(BASIS),
            },
            b"BLIND" => once(&mut basis, DeleteBasis::Blind)?,
            b"NEW" => return Err(BASIS),
            b"W" => options.level(&mut w, "W")?,
            b"PW" => options.level(&mut pw, "PW")?,
            _ => return Err(CommandError::Syntax),
        }
    }
    let basis = basis.ok_or(BASIS)?;
    Ok(Command::RdDelete(RdDelete { key: arguments[1].clone(), basis, w, pw }))
}

pub(super) fn siblings(arguments: &[Bytes]) -> Parsed {
    Ok(Command::Siblings { key: arguments[1].clone() })
}

pub(super) fn last(_: &[Bytes]) -> Parsed {
    Ok(Command::Last)
}

pub(super) fn quorum(arguments: &[Bytes]) -> Parsed {
    let mut settings = QuorumSettings::default();
    let mut options = Options::behind(arguments, 1);
    if options.rest.is_empty() {
        return Ok(Command::Quorum(None));
    }
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"R" => options.level(&mut settings.r, "R")?,
            b"W" => options.level(&mut settings.w, "W")?,
            b"PR" => options.level(&mut settings.pr, "PR")?,
            b"PW" => options.level(&mut settings.pw, "PW")?,
            b"STRICT" => once(&mut settings.mode, QuorumMode::Strict)?,
            b"SLOPPY" => once(&mut settings.mode, QuorumMode::Sloppy)?,
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(Command::Quorum(Some(settings)))
}

pub(super) fn bucket(arguments: &[Bytes]) -> Parsed {
    let name = match arguments {
        [_] => None,
        [_, name] if key::is_bucket_name(name) => Some(name.escape_ascii().to_string()),
        [_, _] => return Err(CommandError::BucketName(KeyError::BucketName)),
        _ => return Err(wrong_arity("rd.bucket")),
    };
    Ok(Command::Bucket(name))
}

pub(super) fn explain(arguments: &[Bytes]) -> Parsed {
    Ok(Command::Explain { key: arguments[1].clone() })
}

pub(super) fn trace(arguments: &[Bytes]) -> Parsed {
    const TRACED: [&str; 6] = ["GET", "SET", "DEL", "RD.GET", "RD.PUT", "RD.DEL"];
    let refused = CommandError::Refused(
        "RD.TRACE runs GET, SET, DEL of one key, RD.GET, RD.PUT and RD.DEL, and nothing else",
    );
    // Looked at before parsing: a trace of a trace of a trace must not be followed.
    let name = arguments[1].to_ascii_uppercase();
    if !TRACED.iter().any(|traced| traced.as_bytes() == name) {
        return Err(refused);
    }
    match table::parse(&arguments[1..])? {
        Command::Delete(keys) if keys.len() > 1 => Err(refused),
        command => Ok(Command::Trace(Box::new(command))),
    }
}

pub(super) fn ring(_: &[Bytes]) -> Parsed {
    Ok(Command::Ring)
}

pub(super) fn nodes(_: &[Bytes]) -> Parsed {
    Ok(Command::Nodes)
}

pub(super) fn digest(_: &[Bytes]) -> Parsed {
    Ok(Command::Digest)
}

pub(super) fn help(arguments: &[Bytes]) -> Parsed {
    match arguments {
        [_] => Ok(Command::Help(None)),
        [_, name] => Ok(Command::Help(Some(name.clone()))),
        _ => Err(wrong_arity("rd.help")),
    }
}
