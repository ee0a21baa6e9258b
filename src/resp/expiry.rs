//! From arguments to values, for the commands about when a value expires. As in `parse`, the arity
//! has been checked.

use bytes::Bytes;

use super::command::{Command, CommandError, Expire, ExpireOnly};
use super::options::{Options, integer, once, shown};
use crate::wire::messages::Expiry;

type Parsed = Result<Command, CommandError>;

fn time_to_live(arguments: &[Bytes], milliseconds: bool, absolute: bool) -> Parsed {
    Ok(Command::TimeToLive { key: arguments[1].clone(), milliseconds, absolute })
}

pub(super) fn time_to_live_seconds(arguments: &[Bytes]) -> Parsed {
    time_to_live(arguments, false, false)
}

pub(super) fn time_to_live_milliseconds(arguments: &[Bytes]) -> Parsed {
    time_to_live(arguments, true, false)
}

pub(super) fn expiry_seconds(arguments: &[Bytes]) -> Parsed {
    time_to_live(arguments, false, true)
}

pub(super) fn expiry_milliseconds(arguments: &[Bytes]) -> Parsed {
    time_to_live(arguments, true, true)
}

pub(super) fn expire(arguments: &[Bytes]) -> Parsed {
    expire_by(arguments, "expire", 1000, false)
}

pub(super) fn expire_milliseconds(arguments: &[Bytes]) -> Parsed {
    expire_by(arguments, "pexpire", 1, false)
}

pub(super) fn expire_at(arguments: &[Bytes]) -> Parsed {
    expire_by(arguments, "expireat", 1000, true)
}

pub(super) fn expire_at_milliseconds(arguments: &[Bytes]) -> Parsed {
    expire_by(arguments, "pexpireat", 1, true)
}

/// Milliseconds that may be named: added to the time of today they are still in range.
const MOST_MS: i64 = i64::MAX / 2;

fn expire_by(arguments: &[Bytes], command: &'static str, unit_ms: i64, absolute: bool) -> Parsed {
    let count = integer(&arguments[2]).ok_or(CommandError::NotAnInteger)?;
    let mut only = ExpireOnly::default();
    for name in &arguments[3..] {
        match name.to_ascii_uppercase().as_slice() {
            b"NX" => only.without = true,
            b"XX" => only.with = true,
            b"GT" => only.later = true,
            b"LT" => only.earlier = true,
            _ => return Err(CommandError::ExpireOption(shown(name))),
        }
    }
    if only.without && (only.with || only.later || only.earlier) {
        return Err(CommandError::Refused(
            "NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if only.later && only.earlier {
        return Err(CommandError::Refused("GT and LT options at the same time are not compatible"));
    }
    let millis = count.checked_mul(unit_ms).filter(|millis| (-MOST_MS..=MOST_MS).contains(millis));
    let millis = millis.ok_or(CommandError::Expiry(command))?;
    Ok(Command::Expire(Expire { key: arguments[1].clone(), millis, absolute, only }))
}

pub(super) fn persist(arguments: &[Bytes]) -> Parsed {
    Ok(Command::Persist { key: arguments[1].clone() })
}

pub(super) fn get_expire(arguments: &[Bytes]) -> Parsed {
    let (key, mut expiry) = (arguments[1].clone(), None);
    let mut options = Options::behind(arguments, 2);
    while let Some(name) = options.name() {
        match name.as_slice() {
            b"PERSIST" => once(&mut expiry, Expiry::Never)?,
            name => options.expiry(&mut expiry, name, "getex")?,
        }
    }
    Ok(match expiry {
        None => Command::Get { key },
        Some(expiry) => Command::GetExpire { key, expiry },
    })
}
