//! What the commands' options are made of: numbers, levels, expiries, each at most once.

use bytes::Bytes;

use super::command::CommandError;
use crate::limits;
use crate::time::WallMs;
use crate::wire::messages::{Expiry, Level};

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

/// That the command `name` does not take so many arguments.
pub(super) fn wrong_arity(name: &str) -> CommandError {
    CommandError::Arity(name.to_ascii_lowercase())
}

/// Options that have not been read yet.
pub(super) struct Options<'a> {
    pub(super) rest: &'a [Bytes],
}

impl<'a> Options<'a> {
    pub(super) fn behind(arguments: &'a [Bytes], count: usize) -> Self {
        Self { rest: &arguments[count..] }
    }

    /// The next option's name, in capitals.
    pub(super) fn name(&mut self) -> Option<Vec<u8>> {
        let (name, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(name.to_ascii_uppercase())
    }

    /// What stands behind the name that was just read.
    pub(super) fn value(&mut self) -> Result<&'a Bytes, CommandError> {
        let (value, rest) = self.rest.split_first().ok_or(CommandError::Syntax)?;
        self.rest = rest;
        Ok(value)
    }

    /// Sets `option` to the level that follows.
    pub(super) fn level(
        &mut self,
        option: &mut Option<Level>,
        name: &'static str,
    ) -> Result<(), CommandError> {
        let level = level(self.value()?).ok_or(CommandError::Level(name))?;
        once(option, level)
    }

    /// Sets `option` to the expiry that follows `name`, if that is the name of one.
    pub(super) fn expiry(
        &mut self,
        option: &mut Option<Expiry>,
        name: &[u8],
        command: &'static str,
    ) -> Result<(), CommandError> {
        let unit_ms = match name {
            b"EX" | b"EXAT" => 1000,
            b"PX" | b"PXAT" => 1,
            _ => return Err(CommandError::Syntax),
        };
        let count = integer(self.value()?).ok_or(CommandError::NotAnInteger)?;
        let invalid = || CommandError::Expiry(command);
        let millis = count.checked_mul(unit_ms).filter(|ms| *ms > 0).ok_or_else(invalid)?;
        let millis = millis.unsigned_abs();
        let expiry = match name.ends_with(b"AT") {
            true => Expiry::At(WallMs(millis)),
            false => Expiry::After(millis),
        };
        once(option, expiry)
    }
}

/// Sets what was not set before.
pub(super) fn once<T>(option: &mut Option<T>, value: T) -> Result<(), CommandError> {
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
