//! What is asked for: a sequence of requests that is fixed by its seed.
//!
//! ```text
//!   seed, number of the arrival ──▶ kind ──▶ key ──▶ size        the same in every process
//!   arrival 0  1  2  3  4  5 …
//!   part    1  2  3  1  2  3 …                                  of three that share a run
//! ```
//!
//! What always holds: request number i depends on the seed, on i and on the settings, and on
//! nothing that happens during the run; the parts of a run are disjoint, and together they are the
//! run. So inserts are counted over all arrivals, not only those of this part, and a read of the
//! latest key may come before that key's insert has been answered.

use std::fmt;
use std::str::FromStr;

use super::Error;
use super::distribution::{Distribution, KeyChooser};
pub use super::mix::{Kind, Mix};
use crate::limits;
use crate::random::Random;

/// The longest scan, in keys: YCSB's workload E. Lengths are uniform from 1.
const SCAN_KEYS_MOST: u64 = 100;
/// Spreads the numbers of arrivals over the seeds of their generators; odd, so none meet.
const ARRIVAL_STRIDE: u64 = 0xd134_2543_de82_ef95;

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueSize {
    least: usize,
    most: usize,
}

impl ValueSize {
    /// Bytes of the shortest value.
    #[must_use]
    pub fn least(self) -> usize {
        self.least
    }

    /// The size of the value with which a key is filled before a run: always the same one.
    #[must_use]
    pub fn of(self, key: u64) -> usize {
        self.draw(&mut Random::new(key))
    }

    fn draw(self, random: &mut Random) -> usize {
        self.least + random.below((self.most - self.least + 1) as u64) as usize
    }
}

impl fmt::Display for ValueSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { least, most } if least == most => write!(f, "{least}"),
            Self { least, most } => write!(f, "{least}..{most}"),
        }
    }
}

impl FromStr for ValueSize {
    type Err = Error;

    /// `1KiB` for all alike, or `100..4KiB` for any size between, all equally often.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let sizes = bytes(least).zip(bytes(most)).filter(|(least, most)| least <= most);
        match sizes {
            Some((_, most)) if most > limits::VALUE_BYTES_HARD => Err(Error::settings(format!(
                "a value of {text} is larger than the {} bytes that are ever taken",
                limits::VALUE_BYTES_HARD
            ))),
            Some((least, most)) => Ok(Self { least, most }),
            None => Err(Error::settings(format!(
                "{text:?} is no size of values: write 100, 1KiB, 1MiB, or a range as in 100..4KiB"
            ))),
        }
    }
}

/// Reads `100`, `100B`, `4KiB` or `1MiB`.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(scale)
}

/// Which share of a run's arrivals this process issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which one, from 0.
    index: u64,
    /// Of how many.
    count: u64,
}

impl Part {
    /// The whole run.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// How many processes share the run.
    #[must_use]
    pub fn count(self) -> u64 {
        self.count
    }

    /// Whether an arrival, or a key to be filled, is this part's.
    #[must_use]
    pub fn has(self, number: u64) -> bool {
        number % self.count == self.index
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

impl FromStr for Part {
    type Err = Error;

    /// `2/3`: the second of three.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(at, of)| Some((at.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((at, count)) if (1..=count).contains(&at) => Ok(Self { index: at - 1, count }),
            _ => Err(Error::settings(format!(
                "{text:?} is no part of a run: write 1/3, 2/3 and 3/3 for three processes"
            ))),
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is done.
    pub kind: Kind,
    /// The number of the key, or of the first key of a scan.
    pub key: u64,
    /// Bytes of the value written, or keys of a scan; else 0.
    pub size: usize,
}

/// What a run asks for.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Fixes the sequence.
    pub seed: u64,
    /// The kinds of requests.
    pub mix: Mix,
    /// The law of the keys.
    pub distribution: Distribution,
    /// How many keys there are at the beginning, at least one.
    pub keys: u64,
    /// Sizes of values.
    pub value_size: ValueSize,
}

impl Workload {
    /// Its requests, those of one part.
    #[must_use]
    pub fn sequence(&self, part: Part) -> Sequence {
        let chooser = KeyChooser::new(self.distribution, self.keys);
        Sequence { workload: self.clone(), chooser, part, next: 0, present: self.keys }
    }
}

/// The requests of a part, one after the other.
#[derive(Clone, Debug)]
pub struct Sequence {
    workload: Workload,
    chooser: KeyChooser,
    part: Part,
    /// The next arrival of the whole run.
    next: u64,
    /// Keys that are there once all arrivals before it have been answered.
    present: u64,
}

impl Sequence {
    /// The number of the next arrival of this part, without drawing it.
    #[must_use]
    pub fn peek(&self) -> u64 {
        let Part { index, count } = self.part;
        self.next + (index + count - self.next % count) % count
    }

    /// The next request of this part.
    pub fn draw(&mut self) -> Request {
        loop {
            let arrival = self.next;
            self.next += 1;
            let seed = self.workload.seed.wrapping_add(arrival.wrapping_mul(ARRIVAL_STRIDE));
            let mut random = Random::new(Random::new(seed).next_u64());
            let kind = self.workload.mix.draw(&mut random);
            let inserted = self.present;
            self.present += u64::from(kind == Kind::Insert);
            if self.part.has(arrival) {
                return self.complete(kind, inserted, &mut random);
            }
        }
    }

    fn complete(&self, kind: Kind, inserted: u64, random: &mut Random) -> Request {
        let mut existing = || self.chooser.draw(random, inserted);
        let key = if kind == Kind::Insert { inserted } else { existing() };
        let size = match kind {
            Kind::Read | Kind::Delete => 0,
            Kind::Scan => 1 + random.below(SCAN_KEYS_MOST) as usize,
            _ => self.workload.value_size.draw(random),
        };
        Request { kind, key, size }
    }
}

/// Bytes of a key's name.
pub const KEY_BYTES: usize = 17;

/// The name of a key: `load/` and twelve digits.
pub fn name_key(number: u64, name: &mut Vec<u8>) {
    name.clear();
    name.extend_from_slice(b"load/000000000000");
    let (mut at, mut rest) = (KEY_BYTES, number);
    while rest > 0 && at > "load/".len() {
        at -= 1;
        name[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(mix: &str) -> Workload {
        let mix: Mix = mix.parse().unwrap();
        let value_size = "100..4KiB".parse().unwrap();
        Workload { seed: 7, distribution: mix.distribution(), mix, keys: 1000, value_size }
    }

    #[test]
    fn the_same_seed_asks_for_the_same_and_another_seed_does_not() {
        let draw = |workload: &Workload| -> Vec<Request> {
            let mut sequence = workload.sequence(Part::WHOLE);
            (0..1000).map(|_| sequence.draw()).collect()
        };
        for mix in ["a", "b", "c", "d", "e", "f", "read=5,update=4,insert=1,delete=1"] {
            let workload = workload(mix);
            assert_eq!(draw(&workload), draw(&workload), "{mix}");
            assert_ne!(draw(&workload), draw(&Workload { seed: 8, ..workload.clone() }), "{mix}");
        }
    }

    #[test]
    fn the_parts_of_a_run_are_disjoint_and_together_the_run() {
        let workload = workload("read=5,update=4,insert=3,delete=1");
        let mut whole = workload.sequence(Part::WHOLE);
        let mut parts = ["1/3", "2/3", "3/3"].map(|part| workload.sequence(part.parse().unwrap()));
        for arrival in 0..999 {
            let part = &mut parts[arrival % 3];
            assert_eq!(part.peek(), arrival as u64);
            assert_eq!(part.draw(), whole.draw());
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_to_write() {
        for text in ["", "KiB", "1KB", "4KiB..100", "..", "-1", "17MiB"] {
            assert!(text.parse::<ValueSize>().is_err(), "{text:?}");
        }
        for text in ["", "0/3", "4/3", "1", "1/0", "a/b"] {
            assert!(text.parse::<Part>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_key_has_its_number_in_its_name() {
        let mut name = Vec::new();
        for (number, expected) in [(0, "load/000000000000"), (12_345, "load/000000012345")] {
            name_key(number, &mut name);
            assert_eq!(name, expected.as_bytes());
        }
    }
}
