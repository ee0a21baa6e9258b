//! From arguments to values, for the commands that Redis has no word for: siblings and contexts,
//! quorums, and looking inside. As in `parse`, the arity has been checked.

use bytes::Bytes;

use super::command::{
    Command, CommandError, DeleteBasis, PutBasis, QuorumMode, QuorumSettings, RdDelete, RdPut,
    SyncCommand,
};
use super::options::{Options, integer, once, shown, wrong_arity};
use super::parse;
use crate::key::{self, KeyError};
use crate::wire::messages::Goals;

/// How long `RD.WAIT` waits unless it says otherwise.
const WAIT_MS: u64 = 60_000;

/// Keys of one page of `RD.CONFLICTS` unless it says otherwise.
const CONFLICTS: usize = 100;

type Parsed = Result<Command, CommandError>;

pub(super) fn get(arguments: &[Bytes]) -> Parsed {
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

pub(super) fn put(arguments: &[Bytes]) -> Parsed {
    let (mut basis, mut w, mut pw, mut expiry) = (None, None, None, None);
    let mut options = Options::behind(arguments, 3);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"CTX" => once(&mut basis, put_basis(options.value()?))?,
            b"NEW" => once(&mut basis, PutBasis::New)?,
            b"BLIND" => once(&mut basis, PutBasis::Blind)?,
            b"W" => options.level(&mut w, "W")?,
            b"PW" => options.level(&mut pw, "PW")?,
            name => options.expiry(&mut expiry, name, "rd.put")?,
        }
    }
    let basis = basis.ok_or(CommandError::Refused(
        "RD.PUT must say what it builds on: CTX and a context from RD.GET, NEW or BLIND",
    ))?;
    let (key, value) = (arguments[1].clone(), arguments[2].clone());
    let expiry = expiry.unwrap_or_default();
    Ok(Command::RdPut(RdPut { key, value, basis, w, pw, expiry }))
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

pub(super) fn delete(arguments: &[Bytes]) -> Parsed {
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
        [_, name] => Some(bucket_name(name)?),
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
        "RD.TRACE runs GET, SET without KEEPTTL, DEL of one key, RD.GET, RD.PUT and RD.DEL, and nothing else",
    );
    // Looked at before parsing: a trace of a trace of a trace must not be followed.
    let name = arguments[1].to_ascii_uppercase();
    if !TRACED.iter().any(|traced| traced.as_bytes() == name) {
        return Err(refused);
    }
    match Command::parse(&arguments[1..])? {
        Command::Delete(keys) if keys.len() > 1 => Err(refused),
        // It is two requests, a read and a write.
        Command::Set(set) if set.keeps_expiry => Err(refused),
        command => Ok(Command::Trace(Box::new(command))),
    }
}

pub(super) fn ring(_: &[Bytes]) -> Parsed {
    Ok(Command::Ring)
}

pub(super) fn nodes(_: &[Bytes]) -> Parsed {
    Ok(Command::Nodes)
}

pub(super) fn transfers(_: &[Bytes]) -> Parsed {
    Ok(Command::Transfers)
}

pub(super) fn digest(_: &[Bytes]) -> Parsed {
    Ok(Command::Digest)
}

pub(super) fn hints(_: &[Bytes]) -> Parsed {
    Ok(Command::Hints)
}

pub(super) fn tombstones(_: &[Bytes]) -> Parsed {
    Ok(Command::Tombstones)
}

pub(super) fn sync(arguments: &[Bytes]) -> Parsed {
    let word = &arguments[1];
    let command = match (word.to_ascii_uppercase().as_slice(), &arguments[2..]) {
        (b"STATUS", []) => SyncCommand::Status,
        (b"PARTITION", [number]) => {
            let number = integer(number).and_then(|number| u16::try_from(number).ok());
            SyncCommand::Partition(number.ok_or(CommandError::NotAnInteger)?)
        }
        (b"NOW", []) => SyncCommand::Now,
        (b"PAUSE", []) => SyncCommand::Pause,
        (b"RESUME", []) => SyncCommand::Resume,
        (b"STATUS" | b"PARTITION" | b"NOW" | b"PAUSE" | b"RESUME", _) => {
            return Err(wrong_arity("rd.sync"));
        }
        _ => {
            let (command, name) = ("RD.SYNC", shown(word));
            return Err(CommandError::UnknownSubcommand { command, name });
        }
    };
    Ok(Command::Sync(command))
}

pub(super) fn wait(arguments: &[Bytes]) -> Parsed {
    let (mut goals, mut timeout_ms) = (Goals::NONE, None);
    let mut options = Options::behind(arguments, 1);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"HEALTHY" => goals.healthy = true,
            b"HINTS" => goals.hints_drained = true,
            b"TRANSFERS" => goals.transfers_done = true,
            b"SYNCED" => goals.synced = true,
            // 0 for one look.
            b"TIMEOUT" => {
                let millis = integer(options.value()?).and_then(|ms| u64::try_from(ms).ok());
                once(&mut timeout_ms, millis.ok_or(CommandError::NotAnInteger)?)?;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let timeout_ms = timeout_ms.unwrap_or(WAIT_MS);
    Ok(Command::Wait { goals: goals.or_all(), timeout_ms })
}

fn bucket_name(name: &Bytes) -> Result<String, CommandError> {
    match key::is_bucket_name(name) {
        true => Ok(name.escape_ascii().to_string()),
        false => Err(CommandError::BucketName(KeyError::BucketName)),
    }
}

pub(super) fn scan(arguments: &[Bytes]) -> Parsed {
    parse::scan_of(Some(bucket_name(&arguments[1])?), arguments, 2)
}

pub(super) fn conflicts(arguments: &[Bytes]) -> Parsed {
    let Some(name) = arguments.get(1) else { return Ok(Command::Tallies) };
    let (bucket, mut cursor, mut count) = (bucket_name(name)?, None, None);
    let mut options = Options::behind(arguments, 2);
    while let Some(word) = options.rest.first() {
        if word.eq_ignore_ascii_case(b"COUNT") {
            options.name();
            once(&mut count, parse::page_of(options.value()?)?)?;
        } else {
            once(&mut cursor, parse::cursor(options.value()?)?)?;
        }
    }
    let (cursor, count) = (cursor.unwrap_or(0), count.unwrap_or(CONFLICTS));
    Ok(Command::Conflicts { bucket, cursor, count })
}

pub(super) fn outliers(_: &[Bytes]) -> Parsed {
    Ok(Command::Outliers)
}

pub(super) fn help(arguments: &[Bytes]) -> Parsed {
    match arguments {
        [_] => Ok(Command::Help(None)),
        [_, name] => Ok(Command::Help(Some(name.clone()))),
        _ => Err(wrong_arity("rd.help")),
    }
}
