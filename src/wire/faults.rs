//! Faults that a node injects into itself when it is told to: what they are, as the command line, the
//! text protocol and frames name them.
//!
//! Only a node that was started for it obeys (`node.fault_injection`). Four kinds concern what passes
//! between nodes, and say whom they concern and which way; the others concern the node itself.
//!
//! | kind | what happens |
//! | --- | --- |
//! | drop | frames and gossip packets vanish; connections stay open, and new ones stay without an answer |
//! | delay | they come later; frames of one connection stay in order |
//! | duplicate | they come twice |
//! | throttle | so many bytes a second of them come through |
//! | pause | the node stands still, but for commands about faults |
//! | slow-disk | each commit takes longer |
//! | full-disk | each commit is refused, as when the reserve is reached, and the node is read-only |
//! | clock | the wall clock goes ahead, or behind |

use serde::{Deserialize, Serialize};

/// One part in a million: shares are whole numbers of these, so that they are the same everywhere.
pub const WHOLE_PPM: u32 = 1_000_000;

/// A fault, as somebody asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// Milliseconds after which it lifts itself; none for when it is cleared.
    pub for_ms: Option<u64>,
    /// From where its random choices come: the same seed makes the same choices.
    pub seed: u64,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// This share of what passes vanishes.
    Drop(Passage, u32),
    /// What passes is late.
    Delay {
        /// What is.
        passage: Passage,
        /// By so many milliseconds,
        by_ms: u64,
        /// and by up to so many more.
        jitter_ms: u64,
    },
    /// This share of what passes comes twice.
    Duplicate(Passage, u32),
    /// So many bytes a second pass, for each peer and direction.
    Throttle(Passage, u64),
    /// The node stands still.
    Pause,
    /// Each commit takes so many milliseconds longer.
    SlowDisk(u64),
    /// Each commit is refused.
    FullDisk,
    /// The wall clock is so many milliseconds ahead; behind, below zero.
    Clock(i64),
}

/// What of all that passes between nodes is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Between this node and whom.
    pub peers: Peers,
    /// Which way.
    pub direction: Direction,
}

/// Other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peers {
    /// The member of this name.
    Named(String),
    /// The members of this zone.
    Zone(String),
    /// All, also those that are no members.
    Everyone,
}

/// Which way, as this node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// To this node.
    In,
    /// From this node.
    Out,
    /// To it and from it.
    #[default]
    Both,
}

/// What a node is told about faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultOrder {
    /// Begin with this one.
    Add(Fault),
    /// Say what is in force.
    List,
    /// Lift one, or all.
    Clear(Option<u64>),
}

/// A fault in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRow {
    /// Its number: counted up from 1 since the node's start.
    pub id: u64,
    /// What was asked for.
    pub fault: Fault,
    /// Milliseconds for which it goes on; none for until it is cleared.
    pub left_ms: Option<u64>,
    /// How many frames, packets or commits it has met with.
    pub met: u64,
}

impl FaultKind {
    /// As the command line names it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drop(..) => "drop",
            Self::Delay { .. } => "delay",
            Self::Duplicate(..) => "duplicate",
            Self::Throttle(..) => "throttle",
            Self::Pause => "pause",
            Self::SlowDisk(_) => "slow-disk",
            Self::FullDisk => "full-disk",
            Self::Clock(_) => "clock",
        }
    }

    /// What it concerns of what passes between nodes; none for the node itself.
    #[must_use]
    pub fn passage(&self) -> Option<&Passage> {
        match self {
            Self::Drop(passage, _)
            | Self::Delay { passage, .. }
            | Self::Duplicate(passage, _)
            | Self::Throttle(passage, _) => Some(passage),
            Self::Pause | Self::SlowDisk(_) | Self::FullDisk | Self::Clock(_) => None,
        }
    }

    /// Its measure, in the units of the command line; nothing for those that have none.
    #[must_use]
    pub fn measure(&self) -> String {
        let share = |ppm: u32| format!("share {}", f64::from(ppm) / f64::from(WHOLE_PPM));
        match self {
            Self::Drop(_, ppm) | Self::Duplicate(_, ppm) => share(*ppm),
            Self::Delay { by_ms, jitter_ms: 0, .. } | Self::SlowDisk(by_ms) => {
                format!("by {by_ms}ms")
            }
            Self::Delay { by_ms, jitter_ms, .. } => format!("by {by_ms}ms, jitter {jitter_ms}ms"),
            Self::Throttle(_, bytes) => format!("to {bytes} bytes/s"),
            Self::Clock(by_ms) => format!("by {by_ms:+}ms"),
            Self::Pause | Self::FullDisk => String::new(),
        }
    }
}

impl Peers {
    /// For people: `peer n1`, `zone a` or `everyone`.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Named(name) => format!("peer {name}"),
            Self::Zone(zone) => format!("zone {zone}"),
            Self::Everyone => "everyone".to_owned(),
        }
    }
}

impl Direction {
    /// As the command line names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Both => "both",
        }
    }

    /// Whether what goes `way` is meant. `way` is never `Both`.
    #[must_use]
    pub fn covers(self, way: Self) -> bool {
        self == Self::Both || self == way
    }
}

/// A share between 0 and 1 as [`WHOLE_PPM`] has it, if it is one.
#[must_use]
pub fn share_ppm(text: &str) -> Option<u32> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share))?;
    Some((share * f64::from(WHOLE_PPM)).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_in_parts_of_a_million_and_shown_as_they_were_written() {
        let passage = Passage { peers: Peers::Everyone, direction: Direction::Both };
        for text in ["0", "1", "0.3", "0.000001"] {
            let ppm = share_ppm(text).unwrap();
            let shown = FaultKind::Drop(passage.clone(), ppm).measure();
            assert_eq!(shown, format!("share {text}"));
        }
        for text in ["", "2", "-0.1", "NaN", "inf", "30%"] {
            assert_eq!(share_ppm(text), None, "{text}");
        }
    }
}
