//! `fault`: what goes wrong in one node, because it was told to.

use std::fmt::Write as _;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::args::Asked;
use super::exit::{Ending, Exit, Failure};
use super::output::table;
use super::quantity::{counted, exact_span, parse_span, size};
use crate::client::direct;
use crate::wire::faults::{
    Direction, Fault as Wanted, FaultKind, FaultOrder, FaultRow, Passage, Peers, WHOLE_PPM,
    share_ppm,
};
use crate::wire::messages::{Control, ControlReply, Request, Response};

const FAULT_EXAMPLES: &str = "\
Faults are injected into the one node at --addr, which must have been started
with --fault-injection. Others see what comes of it. A restart is clean.

Examples:
  ringdove fault                                    what is in force
  ringdove fault add drop --peer node-2
  ringdove fault add drop --zone b --direction in --share 0.3 --seed 7
  ringdove fault add delay --everyone --by 50ms --jitter 10ms --for 30s
  ringdove fault add clock --by -1h
  ringdove fault clear";

/// Have a node lose, delay and double messages, stand still and the like; for tests
#[derive(Clone, Debug, Args)]
#[command(after_help = FAULT_EXAMPLES)]
pub(super) struct Fault {
    #[command(subcommand)]
    command: Option<FaultCommand>,
}

#[derive(Clone, Debug, Subcommand)]
enum FaultCommand {
    /// Show the faults in force (as without a word)
    List,
    /// Begin with a fault
    Add(Add),
    /// Lift one fault, or all
    Clear {
        /// Its number; all without
        id: Option<u64>,
    },
}

#[derive(Clone, Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Add {
    #[command(subcommand)]
    kind: Kind,
    /// Lifts itself after this time
    #[arg(long = "for", global = true, value_name = "SPAN", value_parser = parse_millis)]
    for_ms: Option<u64>,
    /// Seed of random choices: the same makes the same
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Debug, Subcommand)]
enum Kind {
    /// Messages vanish; connections stay open, and new ones get no answer
    Drop {
        #[command(flatten)]
        between: Between,
        /// This part of them, 0 to 1
        #[arg(long, default_value = "1", value_parser = parse_share)]
        share: u32,
    },
    /// Messages come late; those of one connection in order
    Delay {
        #[command(flatten)]
        between: Between,
        /// By this time
        #[arg(long, value_name = "SPAN", value_parser = parse_millis)]
        by: u64,
        /// And by up to this much more
        #[arg(long, value_name = "SPAN", value_parser = parse_millis)]
        jitter: Option<u64>,
    },
    /// Messages come twice
    Duplicate {
        #[command(flatten)]
        between: Between,
        /// This part of them, 0 to 1
        #[arg(long, default_value = "1", value_parser = parse_share)]
        share: u32,
    },
    /// Only so many bytes a second pass, to each peer and from it
    Throttle {
        #[command(flatten)]
        between: Between,
        /// Bytes a second: 100KiB, 1MiB
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        to: u64,
    },
    /// The node stands still, but for these commands
    Pause,
    /// Each commit takes longer
    SlowDisk {
        /// By this time
        #[arg(long, value_name = "SPAN", value_parser = parse_millis)]
        by: u64,
    },
    /// Each commit is refused, as when storage.reserve_mb is reached
    FullDisk,
    /// The wall clock is wrong
    Clock {
        /// By this time: +1h is ahead, -1h behind
        #[arg(long, value_name = "±SPAN", allow_hyphen_values = true, value_parser = parse_offset)]
        by: i64,
    },
}

/// Whose messages.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("peers").args(["peer", "zone", "everyone"]).required(true))]
struct Between {
    /// Those from and to this member
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// Those from and to the members of this zone
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Those from and to all other nodes
    #[arg(long)]
    everyone: bool,
    /// Only those to this node, or from it
    #[arg(long, value_enum, default_value_t = Way::Both)]
    direction: Way,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    In,
    Out,
    Both,
}

pub(super) async fn run(asked: &Asked<Fault>) -> Ending {
    let order = match &asked.question.command {
        None | Some(FaultCommand::List) => FaultOrder::List,
        Some(FaultCommand::Add(add)) => FaultOrder::Add(add.wanted()),
        Some(FaultCommand::Clear { id }) => FaultOrder::Clear(*id),
    };
    let rows = tell(asked, &order).await?;
    let text = match order {
        FaultOrder::List if rows.is_empty() => "no faults are in force\n".to_owned(),
        FaultOrder::List | FaultOrder::Add(_) => text(&rows),
        FaultOrder::Clear(_) => format!("{} lifted\n", counted(rows.len(), "fault")),
    };
    asked.form().answer(&text, || document(&rows))?;
    Ok(Exit::Done)
}

/// Tells the node at the address, and no other.
async fn tell(asked: &Asked<Fault>, order: &FaultOrder) -> Result<Vec<FaultRow>, Failure> {
    let address = asked.cluster.addr.first().expect("the address has a default");
    let request = Request::Control(Control::Fault(order.clone()));
    match direct::request(address, &request, asked.cluster.timeout).await? {
        Response::Control(ControlReply::Faults(rows)) => Ok(rows),
        _ => Err(Failure::new(Exit::No, "protocol", "the node answered another question")),
    }
}

impl Add {
    fn wanted(&self) -> Wanted {
        let kind = match &self.kind {
            Kind::Drop { between, share } => FaultKind::Drop(between.passage(), *share),
            Kind::Delay { between, by, jitter } => {
                let jitter_ms = jitter.unwrap_or(0);
                FaultKind::Delay { passage: between.passage(), by_ms: *by, jitter_ms }
            }
            Kind::Duplicate { between, share } => FaultKind::Duplicate(between.passage(), *share),
            Kind::Throttle { between, to } => FaultKind::Throttle(between.passage(), *to),
            Kind::Pause => FaultKind::Pause,
            Kind::SlowDisk { by } => FaultKind::SlowDisk(*by),
            Kind::FullDisk => FaultKind::FullDisk,
            Kind::Clock { by } => FaultKind::Clock(*by),
        };
        Wanted { kind, for_ms: self.for_ms, seed: self.seed }
    }
}

impl Between {
    fn passage(&self) -> Passage {
        let peers = match (&self.peer, &self.zone) {
            (Some(name), _) => Peers::Named(name.clone()),
            (None, Some(zone)) => Peers::Zone(zone.clone()),
            (None, None) => Peers::Everyone,
        };
        let direction = match self.direction {
            Way::In => Direction::In,
            Way::Out => Direction::Out,
            Way::Both => Direction::Both,
        };
        Passage { peers, direction }
    }
}

fn parse_millis(text: &str) -> Result<u64, String> {
    Ok(parse_span(text)?.as_millis() as u64)
}

fn parse_offset(text: &str) -> Result<i64, String> {
    let (sign, span) = match text.strip_prefix('-') {
        Some(span) => (-1, span),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let millis = i64::try_from(parse_millis(span)?);
    millis.map(|millis| sign * millis).map_err(|_| "that is beyond all calendars".to_owned())
}

fn parse_share(text: &str) -> Result<u32, String> {
    share_ppm(text).ok_or_else(|| "write a part of the whole, 0 to 1: 0.3".to_owned())
}

/// Reads `1000`, `100KiB` or `1MiB`; above zero.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .iter()
        .find_map(|(name, bytes)| (*name == unit).then_some(*bytes));
    let bytes = unit.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "write a number of bytes: 1000, 100KiB, 1MiB".to_owned())
}

fn text(rows: &[FaultRow]) -> String {
    let header = ["ID", "FAULT", "BETWEEN", "DIRECTION", "HOW", "SEED", "LEFT", "MET"];
    let cells = |row: &FaultRow| {
        let FaultRow { id, fault, left_ms, met } = row;
        let passage = fault.kind.passage();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let how = how(&fault.kind);
        vec![
            id.to_string(),
            fault.kind.name().to_owned(),
            or_none(passage.map(|passage| passage.peers.words())),
            or_none(passage.map(|passage| passage.direction.name().to_owned())),
            or_none(Some(how).filter(|how| !how.is_empty())),
            fault.seed.to_string(),
            left_ms.map_or_else(|| "until cleared".to_owned(), super::quantity::rough_span),
            met.to_string(),
        ]
    };
    table(&header, &["ID", "SEED", "MET"], rows.iter().map(cells).collect())
}

/// Its measure, as people write it.
fn how(kind: &FaultKind) -> String {
    let mut how = String::new();
    let _ = match kind {
        FaultKind::Delay { by_ms, jitter_ms: 0, .. } | FaultKind::SlowDisk(by_ms) => {
            write!(how, "by {}", exact_span(*by_ms))
        }
        FaultKind::Delay { by_ms, jitter_ms, .. } => {
            write!(
                how,
                "by {} to {}",
                exact_span(*by_ms),
                exact_span(by_ms.saturating_add(*jitter_ms))
            )
        }
        FaultKind::Throttle(_, bytes) => write!(how, "to {}/s", size(*bytes)),
        FaultKind::Clock(by_ms) => {
            let sign = if *by_ms < 0 { "-" } else { "+" };
            write!(how, "by {sign}{}", exact_span(by_ms.unsigned_abs()))
        }
        other => write!(how, "{}", other.measure()),
    };
    how
}

fn document(rows: &[FaultRow]) -> Value {
    let share = |ppm: u32| f64::from(ppm) / f64::from(WHOLE_PPM);
    let row = |row: &FaultRow| {
        let FaultRow { id, fault, left_ms, met } = row;
        let mut document = json!({
            "id": id, "kind": fault.kind.name(), "seed": fault.seed, "for_ms": fault.for_ms,
            "left_ms": left_ms, "met": met,
        });
        if let Some(Passage { peers, direction }) = fault.kind.passage() {
            document["direction"] = json!(direction.name());
            match peers {
                Peers::Named(name) => document["peer"] = json!(name),
                Peers::Zone(zone) => document["zone"] = json!(zone),
                Peers::Everyone => document["everyone"] = json!(true),
            }
        }
        match fault.kind {
            FaultKind::Drop(_, ppm) | FaultKind::Duplicate(_, ppm) => {
                document["share"] = json!(share(ppm));
            }
            FaultKind::Delay { by_ms, jitter_ms, .. } => {
                (document["by_ms"], document["jitter_ms"]) = (json!(by_ms), json!(jitter_ms));
            }
            FaultKind::Throttle(_, bytes) => document["bytes_per_second"] = json!(bytes),
            FaultKind::SlowDisk(by_ms) => document["by_ms"] = json!(by_ms),
            FaultKind::Clock(by_ms) => document["by_ms"] = json!(by_ms),
            FaultKind::Pause | FaultKind::FullDisk => {}
        }
        document
    };
    json!({ "faults": rows.iter().map(row).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_offsets_and_shares_read_and_nonsense_does_not() {
        assert_eq!((parse_size("1MiB"), parse_size("7")), (Ok(1 << 20), Ok(7)));
        assert_eq!((parse_offset("+1h"), parse_offset("-2s")), (Ok(3_600_000), Ok(-2000)));
        assert_eq!(parse_share("0.25"), Ok(250_000));
        for text in ["", "0", "1mb", "-1", "1.5KiB", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        for text in ["", "1", "--1s", "+-1s", "1 h"] {
            assert!(parse_offset(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_fault_is_a_row_that_fits_and_a_document_that_says_the_same() {
        let passage = || Passage {
            peers: Peers::Zone("a-zone-of-a-name".to_owned()),
            direction: Direction::In,
        };
        let kinds = [
            (FaultKind::Drop(passage(), 300_000), "share 0.3"),
            (FaultKind::Delay { passage: passage(), by_ms: 50, jitter_ms: 10 }, "by 50ms to 60ms"),
            (FaultKind::Throttle(passage(), 1 << 20), "to 1.0 MiB/s"),
            (FaultKind::Clock(-3_600_000), "by -1h"),
            (FaultKind::Pause, "pause"),
        ];
        for (kind, shown) in kinds {
            let fault = Wanted { kind, for_ms: Some(9000), seed: 7 };
            let rows = [FaultRow { id: 12, fault, left_ms: Some(4200), met: 1234 }];
            let text = text(&rows);
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(shown) || text.contains("share"), "{text}");
            assert_eq!(document(&rows)["faults"][0]["left_ms"], 4200);
        }
    }
}
