//! From arguments to values: a function for each command that has its name from Redis.
//!
//! The arity was checked by the row before any of these runs, so the arguments that every form of
//! a command has are there to be indexed. What follows them are options, in any order, each at
//! most once.

use bytes::Bytes;

use super::command::{
    ClientCommand, Command, CommandError, Credentials, Hello, Scan, Set, TableCommand,
};
use super::glob;
use super::options::{Options, integer, once, shown, wrong_arity};
use super::reply::Version;
use crate::limits;
use crate::wire::messages::Condition;

type Parsed = Result<Command, CommandError>;

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

/// Longest name of a connection or of its library: each is kept as long as the connection.
const CONNECTION_NAME_BYTES: usize = 256;

/// A name that can stand in a line of `CLIENT LIST`.
fn connection_name(name: &Bytes) -> Result<Bytes, CommandError> {
    if name.len() > CONNECTION_NAME_BYTES {
        let (what, most) = ("a name of a client", CONNECTION_NAME_BYTES);
        return Err(CommandError::TooLong { what, most });
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
    let (mut expiry, mut keeps_expiry, mut condition) = (None, None, None);
    let mut options = Options::behind(arguments, 3);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"KEEPTTL" => once(&mut keeps_expiry, ())?,
            b"NX" => once(&mut condition, Condition::Absent)?,
            b"XX" => once(&mut condition, Condition::Present)?,
            b"GET" => {
                return Err(CommandError::Refused(
                    "SET with GET is not supported: read with RD.GET, then RD.PUT with its context",
                ));
            }
            name => options.expiry(&mut expiry, name, "set")?,
        }
    }
    if expiry.is_some() && keeps_expiry.is_some() {
        return Err(CommandError::Syntax);
    }
    let (key, value) = (arguments[1].clone(), arguments[2].clone());
    let (expiry, condition) = (expiry.unwrap_or_default(), condition.unwrap_or_default());
    Ok(Command::Set(Set { key, value, expiry, keeps_expiry: keeps_expiry.is_some(), condition }))
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

/// A pattern that is not too long to be matched against many keys.
fn bounded(pattern: &Bytes) -> Result<Bytes, CommandError> {
    if pattern.len() > glob::PATTERN_BYTES {
        return Err(CommandError::TooLong { what: "a pattern", most: glob::PATTERN_BYTES });
    }
    Ok(pattern.clone())
}

pub(super) fn scan(arguments: &[Bytes]) -> Parsed {
    scan_of(None, arguments, 1)
}

/// A scan whose cursor stands at `at`.
pub(super) fn scan_of(bucket: Option<String>, arguments: &[Bytes], at: usize) -> Parsed {
    let cursor = cursor(&arguments[at])?;
    let (mut pattern, mut count, mut r) = (None, None, None);
    let mut options = Options::behind(arguments, at + 1);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"MATCH" => once(&mut pattern, bounded(options.value()?)?)?,
            b"COUNT" => once(&mut count, page_of(options.value()?)?)?,
            b"R" if bucket.is_some() => options.level(&mut r, "R")?,
            _ => return Err(CommandError::Syntax),
        }
    }
    // 10 is what Redis looks at when nothing is said.
    Ok(Command::Scan(Scan { bucket, cursor, pattern, count: count.unwrap_or(10), r }))
}

/// Where a listing goes on.
pub(super) fn cursor(text: &[u8]) -> Result<u64, CommandError> {
    let cursor = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    cursor.ok_or(CommandError::Cursor)
}

/// How many keys a page holds.
pub(super) fn page_of(text: &[u8]) -> Result<usize, CommandError> {
    let asked = integer(text).ok_or(CommandError::NotAnInteger)?;
    let asked = usize::try_from(asked).ok().filter(|asked| *asked > 0);
    Ok(asked.ok_or(CommandError::Syntax)?.min(limits::PAGE_KEYS))
}
