//! Kinds of requests, and how often each is drawn: YCSB's mixes, or others.

use std::fmt;
use std::str::FromStr;

use super::Error;
use super::distribution::Distribution;
use crate::random::Random;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reads a key.
    Read,
    /// Writes a key that is there.
    Update,
    /// Writes a key that was not there yet.
    Insert,
    /// Reads some keys that follow each other.
    Scan,
    /// Reads a key, then writes it with what it has read in mind.
    ReadModifyWrite,
    /// Deletes a key.
    Delete,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Update, Self::Insert, Self::Scan, Self::ReadModifyWrite, Self::Delete];

    /// As it is written in a mix and in a summary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Scan => "scan",
            Self::ReadModifyWrite => "read-modify-write",
            Self::Delete => "delete",
        }
    }

    /// Whether it changes something.
    #[must_use]
    pub fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::Scan)
    }
}

/// How often each kind of request is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// By kind, in the order of [`Kind::ALL`]; a share is its part of the sum.
    weights: [u32; Kind::ALL.len()],
    distribution: Distribution,
}

impl Mix {
    /// The law that goes with it unless another is named.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        self.distribution
    }

    fn total(&self) -> u64 {
        self.weights.iter().map(|weight| u64::from(*weight)).sum()
    }

    pub(super) fn draw(&self, random: &mut Random) -> Kind {
        let mut at = random.below(self.total());
        for (kind, weight) in Kind::ALL.into_iter().zip(self.weights) {
            match at.checked_sub(weight.into()) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        Kind::Read
    }

    /// One of YCSB's.
    fn ycsb(letter: &str) -> Option<Self> {
        let (shares, distribution): (&[(Kind, u32)], _) = match letter {
            "a" => (&[(Kind::Read, 50), (Kind::Update, 50)], Distribution::Zipfian),
            "b" => (&[(Kind::Read, 95), (Kind::Update, 5)], Distribution::Zipfian),
            "c" => (&[(Kind::Read, 100)], Distribution::Zipfian),
            "d" => (&[(Kind::Read, 95), (Kind::Insert, 5)], Distribution::Latest),
            "e" => (&[(Kind::Scan, 95), (Kind::Insert, 5)], Distribution::Zipfian),
            "f" => (&[(Kind::Read, 50), (Kind::ReadModifyWrite, 50)], Distribution::Zipfian),
            _ => return None,
        };
        let mut weights = [0; Kind::ALL.len()];
        shares.iter().for_each(|(kind, share)| weights[*kind as usize] = *share);
        Some(Self { weights, distribution })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let drawn = Kind::ALL.into_iter().zip(self.weights).filter(|(_, weight)| *weight > 0);
        let shares: Vec<String> =
            drawn.map(|(kind, weight)| format!("{}={weight}", kind.name())).collect();
        f.write_str(&shares.join(","))
    }
}

impl FromStr for Mix {
    type Err = Error;

    /// `a` to `f`, YCSB's, or shares by kind: `read=50,update=40,delete=10`.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(mix) = Self::ycsb(text) {
            return Ok(mix);
        }
        let wrong = || {
            let kinds = Kind::ALL.map(Kind::name).join(", ");
            Error::settings(format!(
                "{text:?} is no mix: write one of a to f, or shares as in \
                 read=50,update=40,delete=10 (kinds: {kinds})"
            ))
        };
        let mut weights = [0; Kind::ALL.len()];
        for share in text.split(',') {
            let (name, weight) = share.split_once('=').ok_or_else(wrong)?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name.trim());
            let kind = kind.ok_or_else(wrong)?;
            weights[kind as usize] = weight.trim().parse().map_err(|_| wrong())?;
        }
        let mix = Self { weights, distribution: Distribution::Zipfian };
        if mix.total() == 0 { Err(wrong()) } else { Ok(mix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_drawn_as_often_as_they_say() {
        let mix: Mix = "read=50,update=40,delete=10".parse().unwrap();
        let (mut random, mut counts) = (Random::new(1), [0_i32; Kind::ALL.len()]);
        (0..100_000).for_each(|_| counts[mix.draw(&mut random) as usize] += 1);
        for (kind, expected) in
            [(Kind::Read, 50_000), (Kind::Update, 40_000), (Kind::Delete, 10_000)]
        {
            let count = counts[kind as usize];
            assert!((count - expected).abs() < 800, "{}: {count}", kind.name());
        }
    }

    #[test]
    fn mixes_read_back_and_others_are_refused_with_what_to_write() {
        for text in ["a", "b", "c", "d", "e", "f", "read=1,read-modify-write=2"] {
            let mix: Mix = text.parse().unwrap();
            let again: Mix = mix.to_string().parse().unwrap();
            assert_eq!(again.weights, mix.weights, "{text}");
        }
        for text in ["", "g", "read", "read=0", "read=x", "reads=1", "read=50;update=50"] {
            let error = text.parse::<Mix>().unwrap_err().to_string();
            assert!(error.contains("read=50,update=40,delete=10"), "{error}");
        }
    }
}
