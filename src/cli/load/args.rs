//! What can be typed behind `ringdove load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::load_report::LoadReport;
use crate::cli::output::Form;
use crate::cli::quantity::{parse_address, parse_level, parse_span, parse_timeout};
use crate::client::Level;
use crate::load::Manner;
use crate::load::distribution::Distribution;
use crate::load::target::Address;
use crate::load::workload::{Mix, Part, ValueSize};

const EXAMPLES: &str = "\
Examples:
  ringdove load --rate 2000 --duration 30s --mix b --fill
  ringdove load --closed --connections 50 --target redis://127.0.0.1:6379
  ringdove load --context fresh --verify --output runs/1
  ringdove load compare runs/1 runs/2

A request is timed from when it was due, not from when it could be sent: a
server that stalls for a second shows it. A run leaves summary.json,
seconds.jsonl and latency.hlog in its directory. Exit code 1 when --verify
finds that something is lost, came back, or is damaged.";

/// Put a cluster, or any server that speaks RESP, under load, and measure it
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(in crate::cli) struct Load {
    #[command(subcommand)]
    pub(super) command: Option<LoadCommand>,
    #[command(flatten)]
    pub(super) run: Run,
}

impl Load {
    pub(in crate::cli) fn form(&self) -> Form {
        let json = match &self.command {
            None => self.run.json,
            Some(LoadCommand::Verify(verify)) => verify.json,
            Some(LoadCommand::Compare(compare)) => compare.json,
            Some(LoadCommand::Report(_)) => false,
        };
        if json { Form::Json } else { Form::Text }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum LoadCommand {
    Verify(Verify),
    Compare(Compare),
    Report(LoadReport),
}

/// Whom to put under load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Target")]
pub(super) struct Whom {
    /// ringdove://HOST:PORT,… (frames) or redis://HOST:PORT [default: the cluster at --addr]
    #[arg(long, value_name = "URL")]
    pub(super) target: Option<Address>,
    /// A node's port for frames; several are tried in order
    #[arg(long, value_name = "HOST:PORT", env = "RINGDOVE_ADDR", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:7400", value_parser = parse_address)]
    addr: Vec<String>,
    /// Talk to exactly the nodes named, and to no others of their cluster
    #[arg(long)]
    pub(super) only_given: bool,
    /// Replicas that must answer a read: one, quorum, all or a number [default: the bucket's]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub(super) r: Option<Level>,
    /// Replicas that must have a write durably [default: the bucket's]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub(super) w: Option<Level>,
    /// Count the key's own replicas only: no fallback stands in for one that is away
    #[arg(long)]
    pub(super) strict: bool,
    /// Time for one request, its repetitions included
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = parse_timeout)]
    pub(super) timeout: Duration,
}

impl Whom {
    /// The target that is named, else `recorded`, else the cluster at --addr.
    pub(super) fn address(&self, recorded: Option<Address>) -> Address {
        let named = self.target.clone().or(recorded);
        named.unwrap_or_else(|| Address::ringdove(self.addr.clone()))
    }
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) whom: Whom,
    #[command(flatten, next_help_heading = "What is asked")]
    pub(super) work: Work,
    #[command(flatten, next_help_heading = "How fast")]
    pub(super) pace: Pace,
    #[command(flatten, next_help_heading = "What is kept")]
    pub(super) kept: Kept,
    /// Answer with the summary as one JSON document
    #[arg(long)]
    json: bool,
}

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Work {
    /// YCSB's mix a to f, or shares of read, update, insert, scan, read-modify-write and delete, as
    /// in read=50,update=40,delete=10
    #[arg(long, value_name = "MIX", default_value = "a")]
    pub(super) mix: Mix,
    /// Keys, numbered from 0
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=999_999_999_999))]
    pub(super) keys: u64,
    /// Law of the keys: zipfian, uniform, latest or hotspot [default: the mix's]
    #[arg(long, value_name = "LAW")]
    pub(super) distribution: Option<Distribution>,
    /// Bytes of a value: 100, 1KiB, or a range as in 100..4KiB
    #[arg(long, value_name = "SIZE", default_value = "1KiB")]
    pub(super) value_size: ValueSize,
    /// The bucket [default: default]
    #[arg(long, short, value_name = "NAME")]
    pub(super) bucket: Option<String>,
    /// What writes have seen: observed (they replace what they find, as SET in Redis), fresh (what
    /// they read just before), kept (what was last got for the key), blind (nothing)
    #[arg(long, value_name = "MANNER", default_value = "observed")]
    pub(super) context: Manner,
    /// Fixes the sequence of requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Write every key once before
    #[arg(long)]
    pub(super) fill: bool,
}

/// How requests follow each other.
#[derive(Debug, Args)]
pub(super) struct Pace {
    /// Requests a second, sent whatever became of those before
    #[arg(long, value_name = "N", default_value_t = 1000.0, conflicts_with = "closed")]
    pub(super) rate: f64,
    /// Send the next request when the last was answered, on each connection
    #[arg(long)]
    pub(super) closed: bool,
    /// Connections to a Redis server, or clients of a cluster; with --closed: requests at a time
    /// [default: 1 client, 8 connections; with --closed 50]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) connections: Option<u16>,
    /// The most requests under way; what is due beyond it counts as failed: not_sent
    #[arg(long, value_name = "N", default_value_t = 4096)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) in_flight: u32,
    /// How long is measured
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_span)]
    pub(super) duration: Duration,
    /// Time at the full rate before that
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(super) warmup: Option<Duration>,
    /// Time before that in which the rate grows from nothing
    #[arg(long, value_name = "SPAN", value_parser = parse_span, conflicts_with = "closed")]
    pub(super) ramp: Option<Duration>,
    /// The I-th of K processes that share this run: the same options, and a directory each
    #[arg(long, value_name = "I/K", default_value = "1/1")]
    pub(super) part: Part,
}

/// What is kept of it.
#[derive(Debug, Args)]
pub(super) struct Kept {
    /// The run's directory; without it nothing is kept
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// What the run is called
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) label: String,
    /// Keep a ledger, read everything back afterwards, and say what is lost or stale
    #[arg(long, requires = "output")]
    pub(super) verify: bool,
    /// Keep a ledger for `ringdove load verify`
    #[arg(long, requires = "output")]
    pub(super) verify_later: bool,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  ringdove load verify runs/1
  ringdove load verify lab/majority lab/minority      they wrote the same keys

Exit code 1 when something is lost, came back, or is damaged; 3 when keys could
not be read back.";

/// Read back what runs have written, and say what is lost or stale
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(super) struct Verify {
    /// Directories of runs; those that wrote the same keys belong together
    #[arg(required = true, value_name = "DIR")]
    pub(super) directories: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) whom: Whom,
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
}

const COMPARE_EXAMPLES: &str = "\
Examples:
  ringdove load compare runs/before runs/after
  ringdove load compare before after       each with before/1, before/2, before/3

A directory is a run, or holds runs: parts of one run (--part) are put together,
all others are repetitions, which are compared in pairs, in the order of their
names. Then machines that sway are told from builds that differ.";

/// Say what changed from one run to another, and what is only chance
#[derive(Debug, Args)]
#[command(after_help = COMPARE_EXAMPLES)]
pub(super) struct Compare {
    /// The run that is the measure
    #[arg(value_name = "A")]
    pub(super) before: PathBuf,
    /// The run that is measured by it
    #[arg(value_name = "B")]
    pub(super) after: PathBuf,
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
}
