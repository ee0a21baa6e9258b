//! What can be typed: the commands, their options and what `--help` says of them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};

use super::bucket::{Expiry, OnConflict, parse_expiry};
use super::conflicts::{Conflicts, Top};
use super::digest::Digest;
use super::exit;
use super::fault::Fault;
use super::hints::Hints;
use super::keys::Keys;
use super::load::Load;
use super::output::Form;
use super::quantity::{parse_address, parse_level, parse_mark, parse_span, parse_timeout};
use super::sync::Sync;
use super::tombstones::Tombstones;
use super::wait::Wait;
use crate::client::{Context, Level, WriteId};
use crate::limits;

const FIRST_STEPS: &str = "\
Try it:
  ringdove dev                      three nodes on this machine, in ./ringdove-dev
  ringdove put greeting hello       in another terminal
  ringdove get greeting
  ringdove status
  ringdove shell";

/// A leaderless, always-writable key-value database.
///
/// `serve` runs a node and `dev` a whole cluster on this machine; everything else asks a running
/// cluster, through any of its nodes.
#[derive(Debug, Parser)]
#[command(name = "ringdove", version, after_help = FIRST_STEPS)]
#[command(after_long_help = format!("{FIRST_STEPS}\n\n{}", exit::TABLE))]
pub struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Serve(Serve),
    Dev(Dev),
    /// Check or show a node's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    Get(Asked<Get>),
    Put(Asked<Put>),
    Del(Asked<Del>),
    Status(Asked<Status>),
    Ring(Asked<Ring>),
    Explain(Asked<Explain>),
    Bucket(Asked<Bucket>),
    Member(Asked<Member>),
    Plan(Asked<Plan>),
    Commit(Asked<Commit>),
    Abort(Asked<Abort>),
    Transfers(Asked<Transfers>),
    Digest(Asked<Digest>),
    Hints(Asked<Hints>),
    Tombstones(Asked<Tombstones>),
    Sync(Asked<Sync>),
    Fault(Asked<Fault>),
    Keys(Asked<Keys>),
    Conflicts(Asked<Conflicts>),
    Top(Asked<Top>),
    Wait(Wait),
    Load(Box<Load>),
    Shell(Shell),
    Completions(Completions),
}

// A question, and whom to ask. (A doc comment would take the place of the question's in --help.)
#[derive(Debug, Args)]
pub(super) struct Asked<Q: Args> {
    #[command(flatten)]
    pub(super) question: Q,
    #[command(flatten)]
    pub(super) cluster: Cluster,
    /// Answer with one JSON document; bytes that are no UTF-8 stand as {"hex": "00ff"}
    // Global, here and below, because `bucket list --json` is where people put it.
    #[arg(long, global = true)]
    json: bool,
}

impl<Q: Args> Asked<Q> {
    pub(super) fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }
}

// No doc comment: clap would show it in place of the commands' own.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Whom to ask")]
pub(super) struct Cluster {
    /// A node's port for frames; several are tried in order
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "RINGDOVE_ADDR",
        value_delimiter = ','
    )]
    #[arg(default_value = "127.0.0.1:7400", value_parser = parse_address)]
    pub(super) addr: Vec<String>,
    /// Time for the whole command, repetitions included
    #[arg(long, global = true, value_name = "SPAN", default_value = "2s")]
    #[arg(value_parser = parse_timeout)]
    pub(super) timeout: Duration,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  ringdove serve --config config/ringdove.toml
  ringdove serve --config node.toml --set requests.timeout_ms=500

Stop it with SIGTERM or Ctrl-C: it finishes what is under way, and exits with
0.";

/// Run one node
///
/// The node runs in the foreground and logs to standard error. config/ringdove.toml is the manual
/// of every setting.
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) source: Source,
    /// Obey `ringdove fault`: lose messages, stand still and the like, when told. For tests
    #[arg(long)]
    pub(super) fault_injection: bool,
    /// Take a copied data directory for one that was moved here, after its node had stopped. Never
    /// for a backup
    #[arg(long)]
    pub(super) moved: bool,
}

/// A configuration file and what is laid over it.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Overrides one setting of the file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
}

const DEV_EXAMPLES: &str = "\
Examples:
  ringdove dev
  ringdove dev --nodes 5 --dir /tmp/five --base-port 7600 --respawn

Node i listens on base-port + 10*i (frames), +1 (text: telnet, redis-cli) and
+2 (admin HTTP). It is started as `ringdove serve --config
DIR/node-i/ringdove.toml`: kill one, and start it again with that line. A file
that is there already is used as it is.

Ctrl-C stops all nodes; a second one kills them. Their data stays in DIR.";

/// Run a local cluster, each node a process of its own
#[derive(Debug, Args)]
#[command(after_help = DEV_EXAMPLES)]
pub(super) struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) nodes: u16,
    /// Where their configuration and data live
    #[arg(long, default_value = "ringdove-dev")]
    pub(super) dir: PathBuf,
    /// The first port of node 0
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) base_port: u16,
    /// Start a node again when it dies by itself
    #[arg(long)]
    pub(super) respawn: bool,
    /// Have the nodes obey `ringdove fault`: lose messages, stand still and the like. For tests
    #[arg(long)]
    pub(super) fault_injection: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether a configuration is sound, and if not where and what to write instead
    #[command(after_help = "Example:\n  ringdove config check node.toml --set node.zone=b")]
    Check(Checked),
    /// Print all settings in force: the defaults, the file, and what is laid over it
    Show(Checked),
}

#[derive(Debug, Args)]
pub(super) struct Checked {
    /// The configuration file
    pub(super) file: PathBuf,
    /// Overrides one setting of the file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
}

impl Checked {
    pub(super) fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }
}

/// What reads and writes have in common.
#[derive(Clone, Debug, Args)]
pub(super) struct Target {
    /// The key
    pub(super) key: OsString,
    /// The bucket [default: default]
    #[arg(long, short, value_name = "NAME")]
    pub(super) bucket: Option<String>,
    /// Ask exactly the node at --addr, once, instead of a replica of the key
    #[arg(long)]
    pub(super) direct: bool,
}

const GET_EXAMPLES: &str = "\
Examples:
  ringdove get cart/alice
  ringdove get cart/alice --bucket carts --r all --receipt
  context=$(ringdove get cart/alice --json | jq -r .context)

One value is written to standard output as it is, with a newline behind on a
terminal. Values that were written without knowing of each other (siblings) are
listed; the context on standard error makes the next put replace them all.";

/// Read a key
#[derive(Clone, Debug, Args)]
#[command(after_help = GET_EXAMPLES, after_long_help = format!("{GET_EXAMPLES}\n\n{}", exit::TABLE))]
pub(super) struct Get {
    #[command(flatten)]
    pub(super) target: Target,
    /// Replicas that must answer: one, quorum, all or a number [default: the bucket's]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub(super) r: Option<Level>,
    /// Of those, how many must be primaries [default: none]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub(super) pr: Option<Level>,
    /// Count the key's own replicas only: no fallback stands in for one that is away
    #[arg(long)]
    pub(super) strict: bool,
    /// Fail with exit code 5 if there is more than one value
    #[arg(long)]
    pub(super) one: bool,
    /// Print the context, and what was achieved, on standard error
    #[arg(long)]
    pub(super) receipt: bool,
    /// Print each hop with its time on standard error
    #[arg(long)]
    pub(super) trace: bool,
}

/// How many replicas a write must reach.
#[derive(Clone, Debug, Args)]
pub(super) struct Reach {
    /// Replicas that must have it durably: one, quorum, all or a number [default: the bucket's]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub(super) w: Option<Level>,
    /// Of those, how many must be primaries [default: none]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub(super) pw: Option<Level>,
    /// Count the key's own replicas only: no fallback stands in for one that is away
    #[arg(long)]
    pub(super) strict: bool,
    /// Carry on the write of this id, whose outcome was unknown
    #[arg(long, value_name = "ID")]
    pub(super) write_id: Option<WriteId>,
    /// Print the new context on standard error
    #[arg(long)]
    pub(super) receipt: bool,
}

const PUT_EXAMPLES: &str = "\
Examples:
  ringdove put cart/alice apples
  ringdove put cart/alice apples --context \"$context\" --w all
  ringdove put lock/1 mine --new
  ringdove put photo - --ttl 1d < photo.jpg

What a write replaces is what it says: with --context what a get has shown,
with --blind nothing (the value stands beside what is there), with --new it
takes place only where no value is. Without any of them it replaces what the
coordinator sees when the write arrives, like SET in Redis.";

/// Write a key
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("basis").args(["context", "new", "blind"]))]
#[command(after_help = PUT_EXAMPLES, after_long_help = format!("{PUT_EXAMPLES}\n\n{}", exit::TABLE))]
pub(super) struct Put {
    #[command(flatten)]
    pub(super) target: Target,
    /// The value; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    pub(super) value: OsString,
    /// Replace exactly what the read or write that gave this context saw
    #[arg(long, value_name = "CONTEXT")]
    pub(super) context: Option<Context>,
    /// Write only where no value is
    #[arg(long)]
    pub(super) new: bool,
    /// Replace nothing: stand beside what is there, as a sibling
    #[arg(long)]
    pub(super) blind: bool,
    /// The value reads as absent after this time: 500ms, 10s, 1h, 1d
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(super) ttl: Option<Duration>,
    #[command(flatten)]
    pub(super) reach: Reach,
}

const DEL_EXAMPLES: &str = "\
Examples:
  ringdove del cart/alice
  ringdove del cart/alice --context \"$context\"

Deleting what is not there is no error.";

/// Delete a key
#[derive(Clone, Debug, Args)]
#[command(after_help = DEL_EXAMPLES, after_long_help = format!("{DEL_EXAMPLES}\n\n{}", exit::TABLE))]
pub(super) struct Del {
    #[command(flatten)]
    pub(super) target: Target,
    /// Delete exactly what the read or write that gave this context saw
    #[arg(long, value_name = "CONTEXT")]
    pub(super) context: Option<Context>,
    #[command(flatten)]
    pub(super) reach: Reach,
}

const STATUS_LEGEND: &str = "\
Columns:
  STATE   serving, read-only (its disk is full), forming (has not met enough
          members), candidate (waits to be let in), leaving, removed, draining,
          or down when the node itself does not answer
  UP FOR  how many of the nodes that answer are connected to it
  KEYS    on its disk, estimated
  SHARE   its part of all replicas of the default bucket
  RING    the cluster state it goes by; the same everywhere, except just
          after a change

With --from, what one node's failure detection says:
  STATE   alive, suspect (it was probed in vain and may object), down, or
          unknown when nothing was heard of it since the node started
  FOR     how long it has been so
  LINK    whether there is a connection to it
  FLAPS   how many times it was taken to be down since the node started";

/// Show the nodes, up or down as each sees the others
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS_LEGEND)]
pub(super) struct Status {
    /// Show the members as this one sees them: a name, an address, or the start of an id
    #[arg(long, value_name = "NODE")]
    pub(super) from: Option<String>,
}

/// Show the members, and how the ring's partitions are spread over them
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  ringdove ring\n  ringdove ring --bucket carts --partition 17")]
pub(super) struct Ring {
    /// The bucket whose replica count to show the ring for [default: default]
    #[arg(long, short, value_name = "NAME")]
    pub(super) bucket: Option<String>,
    /// Show who holds this partition, and who stands in
    #[arg(long, value_name = "P")]
    pub(super) partition: Option<u16>,
}

const EXPLAIN_LEGEND: &str = "\
The mark before a digest says whether the replica holds what most of the others
hold: = the same, ≠ something else. A read of the key mends what differs.";

/// Show where a key is, and what each of its replicas holds
#[derive(Clone, Debug, Args)]
#[command(after_help = EXPLAIN_LEGEND)]
pub(super) struct Explain {
    /// The key
    pub(super) key: OsString,
    /// The bucket [default: default]
    #[arg(long, short, value_name = "NAME")]
    pub(super) bucket: Option<String>,
}

/// Create and list buckets
#[derive(Clone, Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Bucket {
    #[command(subcommand)]
    pub(super) command: BucketCommand,
}

const CREATE_EXAMPLES: &str = "\
Examples:
  ringdove bucket create carts
  ringdove bucket create sessions --n 2 --r one --w one --conflicts lww --ttl 1d

Creating one that is there with the same settings is no error. With lww, of two
writes that did not see each other one is dropped without a word.";

const SET_EXAMPLES: &str = "\
Examples:
  ringdove bucket set sessions --ttl 12h --w quorum
  ringdove bucket set sessions --ttl never
  ringdove bucket set sessions --n 4 && ringdove plan
  ringdove commit && ringdove wait --transfers-done --timeout 1h

What is not named stays as it is. Values that are there keep the expiry they
were written with. Another replica count moves data: it is planned, and begins
with `ringdove commit`. Everything else counts at once; R and W that name a
number must fit both counts.";

#[derive(Clone, Debug, Subcommand)]
pub(super) enum BucketCommand {
    /// Create a bucket
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// Its name: letters, digits, `.`, `_` and `-`
        name: String,
        /// Replicas of each key
        #[arg(long, default_value_t = limits::REPLICAS_DEFAULT)]
        #[arg(value_parser = clap::value_parser!(u8).range(1..=i64::from(limits::REPLICAS_MAX)))]
        n: u8,
        /// Replicas that must answer a read, unless it says otherwise
        #[arg(long, value_name = "LEVEL", default_value = "quorum", value_parser = parse_level)]
        r: Level,
        /// Replicas that must have a write durably, unless it says otherwise
        #[arg(long, value_name = "LEVEL", default_value = "quorum", value_parser = parse_level)]
        w: Level,
        /// What becomes of writes that did not see each other
        #[arg(long, value_enum, default_value_t = OnConflict::Siblings)]
        conflicts: OnConflict,
        /// Values read as absent after this time, unless the write says otherwise
        #[arg(long, value_name = "SPAN", value_parser = parse_span)]
        ttl: Option<Duration>,
    },
    /// Change settings of a bucket
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// Its name
        name: String,
        /// Replicas of each key: planned, see `ringdove plan`
        #[arg(long)]
        #[arg(value_parser = clap::value_parser!(u8).range(1..=i64::from(limits::REPLICAS_MAX)))]
        n: Option<u8>,
        /// Replicas that must answer a read, unless it says otherwise
        #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
        r: Option<Level>,
        /// Replicas that must have a write durably, unless it says otherwise
        #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
        w: Option<Level>,
        /// What becomes of writes that did not see each other
        #[arg(long, value_enum)]
        conflicts: Option<OnConflict>,
        /// Values read as absent after this time, unless the write says otherwise; or `never`
        #[arg(long, value_name = "SPAN", value_parser = parse_expiry)]
        ttl: Option<Expiry>,
    },
    /// List all buckets with their settings
    List,
    /// Show the settings of one bucket
    Show {
        /// Its name
        name: String,
    },
}

const MEMBER_EXAMPLES: &str = "\
Examples:
  ringdove member list
  ringdove member join node-3         a node that was started with seeds
  ringdove member replace node-1 --with node-4
  ringdove plan                       what would move; nothing has happened yet
  ringdove commit

Changes are staged, looked at and committed together. Data then moves by itself
while the cluster serves. A member is named by its name, or by the first eight
digits of its id or more.";

/// List the members, and plan changes of them
#[derive(Clone, Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = MEMBER_EXAMPLES)]
pub(super) struct Member {
    #[command(subcommand)]
    pub(super) command: MemberCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// List the members, and nodes that can join
    List,
    /// Plan that a node which has found the cluster joins it
    Join {
        /// The node
        node: String,
    },
    /// Plan that a member hands over what it has, and is removed
    Leave {
        /// The member
        node: String,
    },
    /// Plan that a new node takes the place of a member that will not come back
    Replace {
        /// The member that will not come back
        dead: String,
        /// The new node
        #[arg(long, value_name = "NEW")]
        with: String,
        /// Also if the member answers: what it alone has is lost
        #[arg(long)]
        force: bool,
    },
    /// Plan another weight for a member
    Weight {
        /// The member
        node: String,
        /// In hundredths of a normal member: 200 for twice the disk
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::WEIGHT_MAX)))]
        weight: u32,
    },
    /// Plan another zone for a member
    Zone {
        /// The member
        node: String,
        /// The zone
        zone: String,
    },
}

/// Show what the planned changes would move, before anything happens
#[derive(Clone, Debug, Args)]
pub(super) struct Plan {}

/// Make the planned changes happen
#[derive(Clone, Debug, Args)]
pub(super) struct Commit {
    /// Only the plan that `ringdove plan` has shown under this number
    #[arg(long, value_name = "MARK", value_parser = parse_mark)]
    pub(super) plan: Option<u64>,
}

/// Forget the planned changes
#[derive(Clone, Debug, Args)]
pub(super) struct Abort {}

const TRANSFERS_LEGEND: &str = "\
LEFT and DONE count slots: a partition has as many as the bucket has replicas.
Where a slot has no owner any more, because it was removed, the data comes from
all the others. Exit code 0, or 3 when a node does not answer.

Examples:
  ringdove transfers
  ringdove transfers --json | jq .slots_changing";

/// Show what moves between the nodes after a change of the members
#[derive(Clone, Debug, Args)]
#[command(after_help = TRANSFERS_LEGEND)]
pub(super) struct Transfers {}

/// Talk to the cluster at a prompt, with history and completion
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringdove shell --addr 127.0.0.1:7410")]
pub(super) struct Shell {
    #[command(flatten)]
    pub(super) cluster: Cluster,
    /// The bucket to begin in
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    pub(super) bucket: String,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  ringdove completions bash > ~/.local/share/bash-completion/completions/ringdove
  ringdove completions zsh > ~/.zfunc/_ringdove
  ringdove completions fish > ~/.config/fish/completions/ringdove.fish";

/// Print what makes a shell complete ringdove's commands
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}
