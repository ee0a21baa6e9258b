//! From arguments to values, for `RD.FAULT`. As in `parse`, the arity has been checked.

use bytes::Bytes;

use super::command::{Command, CommandError};
use super::options::{Options, integer, once, shown};
use crate::wire::faults::{
    Direction, Fault, FaultKind, FaultOrder, Passage, Peers, WHOLE_PPM, share_ppm,
};

const SHARE: CommandError = CommandError::Refused("SHARE must be a part of the whole, 0 to 1");
const WHOSE: CommandError = CommandError::Refused(
    "this fault must say whose messages it concerns: PEER name, ZONE name or EVERYONE",
);
const MEASURE: CommandError = CommandError::Refused(
    "this fault must say by how much: BY milliseconds, or for THROTTLE TO bytes a second",
);

pub(super) fn fault(arguments: &[Bytes]) -> Result<Command, CommandError> {
    let word = &arguments[1];
    let order = match (word.to_ascii_uppercase().as_slice(), &arguments[2..]) {
        (b"LIST", []) => FaultOrder::List,
        (b"CLEAR", []) => FaultOrder::Clear(None),
        (b"CLEAR", [id]) => FaultOrder::Clear(Some(count(id)?)),
        (b"ADD", [kind, ..]) => FaultOrder::Add(add(kind, Options::behind(arguments, 3))?),
        (b"LIST" | b"CLEAR" | b"ADD", _) => return Err(CommandError::Syntax),
        _ => {
            return Err(CommandError::UnknownSubcommand { command: "RD.FAULT", name: shown(word) });
        }
    };
    Ok(Command::Fault(order))
}

/// What stands behind the name of a fault, whatever its kind.
#[derive(Default)]
struct Given {
    peers: Option<Peers>,
    direction: Option<Direction>,
    share: Option<u32>,
    by: Option<i64>,
    jitter: Option<u64>,
    to: Option<u64>,
    lasts: Option<u64>,
    seed: Option<u64>,
}

fn add(kind: &Bytes, mut options: Options<'_>) -> Result<Fault, CommandError> {
    let mut given = Given::default();
    while let Some(name) = options.name() {
        given.take(&name, &mut options)?;
    }
    let (for_ms, seed) = (given.lasts.take(), given.seed.take().unwrap_or(0));
    Ok(Fault { kind: given.kind(kind)?, for_ms, seed })
}

impl Given {
    fn take(&mut self, name: &[u8], options: &mut Options<'_>) -> Result<(), CommandError> {
        match name {
            b"EVERYONE" => once(&mut self.peers, Peers::Everyone),
            b"PEER" => once(&mut self.peers, Peers::Named(word(options.value()?))),
            b"ZONE" => once(&mut self.peers, Peers::Zone(word(options.value()?))),
            b"DIRECTION" => {
                let direction = match options.value()?.to_ascii_uppercase().as_slice() {
                    b"IN" => Direction::In,
                    b"OUT" => Direction::Out,
                    b"BOTH" => Direction::Both,
                    _ => return Err(CommandError::Syntax),
                };
                once(&mut self.direction, direction)
            }
            b"SHARE" => {
                let share = std::str::from_utf8(options.value()?).ok().and_then(share_ppm);
                once(&mut self.share, share.ok_or(SHARE)?)
            }
            b"BY" => {
                let by = integer(options.value()?).ok_or(CommandError::NotAnInteger)?;
                once(&mut self.by, by)
            }
            b"JITTER" => once(&mut self.jitter, count(options.value()?)?),
            b"TO" => once(&mut self.to, count(options.value()?)?),
            b"FOR" => once(&mut self.lasts, count(options.value()?)?),
            b"SEED" => once(&mut self.seed, count(options.value()?)?),
            _ => Err(CommandError::Syntax),
        }
    }

    /// The fault of this name, which takes what it has a use for and leaves nothing.
    fn kind(mut self, name: &Bytes) -> Result<FaultKind, CommandError> {
        let kind = match name.to_ascii_uppercase().as_slice() {
            b"DROP" => FaultKind::Drop(self.passage()?, self.share.take().unwrap_or(WHOLE_PPM)),
            b"DELAY" => FaultKind::Delay {
                passage: self.passage()?,
                by_ms: self.millis()?,
                jitter_ms: self.jitter.take().unwrap_or(0),
            },
            b"DUPLICATE" => {
                FaultKind::Duplicate(self.passage()?, self.share.take().unwrap_or(WHOLE_PPM))
            }
            b"THROTTLE" => {
                let rate = self.to.take().filter(|rate| *rate > 0).ok_or(MEASURE)?;
                FaultKind::Throttle(self.passage()?, rate)
            }
            b"PAUSE" => FaultKind::Pause,
            b"SLOW-DISK" => FaultKind::SlowDisk(self.millis()?),
            b"FULL-DISK" => FaultKind::FullDisk,
            b"CLOCK" => FaultKind::Clock(self.by.take().ok_or(MEASURE)?),
            _ => {
                let name = shown(name);
                return Err(CommandError::UnknownSubcommand { command: "RD.FAULT", name });
            }
        };
        let Self { peers, direction, share, by, jitter, to, lasts: _, seed: _ } = self;
        match (peers, direction, share, by, jitter, to) {
            (None, None, None, None, None, None) => Ok(kind),
            _ => Err(CommandError::Syntax),
        }
    }

    fn passage(&mut self) -> Result<Passage, CommandError> {
        let peers = self.peers.take().ok_or(WHOSE)?;
        Ok(Passage { peers, direction: self.direction.take().unwrap_or_default() })
    }

    fn millis(&mut self) -> Result<u64, CommandError> {
        u64::try_from(self.by.take().ok_or(MEASURE)?).map_err(|_| CommandError::NotAnInteger)
    }
}

fn word(bytes: &Bytes) -> String {
    shown(bytes)
}

fn count(digits: &Bytes) -> Result<u64, CommandError> {
    let count = integer(digits).and_then(|count| u64::try_from(count).ok());
    count.ok_or(CommandError::NotAnInteger)
}
