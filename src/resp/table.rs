//! One row per command: everything that is known about it, in one place.
//!
//! Finding a command, checking its arity, `COMMAND` and its parts, `RD.HELP` and the table in
//! `docs/TEXT_PROTOCOL.md` all come from these rows. A new command is a row here, a function in
//! `parse`, a variant of [`Command`], and a transcript.

use std::fmt::Write as _;

use bytes::Bytes;

use super::command::{Command, CommandError, TableCommand};
use super::reply::Reply;
use super::{expiry, extensions, faults, options, parse};

/// What is known about one command.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, in capitals.
    pub name: &'static str,
    /// How many arguments it takes, its name included; below zero for "at least", as in Redis.
    pub arity: i8,
    /// What it does, in Redis' words: `readonly`, `write`, `fast`, `admin`, `no_auth`.
    pub flags: &'static [&'static str],
    /// Which arguments are keys: the first, the last (below zero: from the end) and the step; all
    /// zero for none.
    pub keys: (i8, i8, i8),
    /// Which part of the documentation it belongs to.
    pub group: &'static str,
    /// The version of Ringdove that brought it.
    pub since: &'static str,
    /// What follows its name.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    parse: fn(&[Bytes]) -> Result<Command, CommandError>,
}

const READ: &[&str] = &["readonly", "fast"];
const SLOW_READ: &[&str] = &["readonly"];
const WRITE: &[&str] = &["write", "denyoom"];
const DELETE: &[&str] = &["write"];
const SELF: &[&str] = &["fast"];
const GREETING: &[&str] = &["fast", "no_auth"];
const ADMIN: &[&str] = &["admin"];

const NONE: (i8, i8, i8) = (0, 0, 0);
const ONE: (i8, i8, i8) = (1, 1, 1);
const SECOND: (i8, i8, i8) = (2, 2, 1);
const ALL: (i8, i8, i8) = (1, -1, 1);
const PAIRS: (i8, i8, i8) = (1, -1, 2);

macro_rules! rows {
    ($(#[$doc:meta])* $table:ident: $($group:literal since $since:literal {
        $($name:literal $arity:literal $flags:ident $keys:ident $module:ident::$parse:ident
            $syntax:literal
            $summary:literal)*
    })*) => {
        $(#[$doc])*
        pub static $table: &[Row] = &[$($(Row {
            name: $name,
            arity: $arity,
            flags: $flags,
            keys: $keys,
            group: $group,
            since: $since,
            syntax: $syntax,
            summary: $summary,
            parse: $module::$parse,
        },)*)*];
    };
}

rows! {
    /// The commands of every node, by group.
    ROWS:
    "string" since "0.1.0" {
        "GET"          2 READ      ONE    parse::get
            "key"
            "The value; of siblings the newest."
        "SET"         -3 WRITE     ONE    parse::set
            "key value [EX seconds|PX milliseconds|EXAT time|PXAT time-ms|KEEPTTL] [NX|XX]"
            "Writes a value that replaces what the node's quorum read sees."
        "GETEX"       -2 WRITE     ONE    expiry::get_expire
            "key [EX seconds|PX milliseconds|EXAT time|PXAT time-ms|PERSIST]"
            "Answers the value, and gives it another expiry."
        "GETDEL"       2 DELETE    ONE    parse::get_delete
            "key"
            "Answers the value, then deletes the key."
        "MGET"        -2 SLOW_READ ALL    parse::multi_get
            "key [key ...]"
            "The values of several keys, each read by itself: not a snapshot."
        "MSET"        -3 WRITE     PAIRS  parse::multi_set
            "key value [key value ...]"
            "Writes several keys, each by itself: not atomic."
        "STRLEN"       2 READ      ONE    parse::string_length
            "key"
            "Bytes of what GET would answer."
    }
    "generic" since "0.1.0" {
        "DEL"         -2 DELETE    ALL    parse::delete
            "key [key ...]"
            "Deletes keys; how many had a value."
        "UNLINK"      -2 DELETE    ALL    parse::delete
            "key [key ...]"
            "The same as DEL."
        "EXISTS"      -2 SLOW_READ ALL    parse::exists
            "key [key ...]"
            "How many of the keys have a value."
        "TYPE"         2 READ      ONE    parse::value_type
            "key"
            "string, or none."
        "TTL"          2 READ      ONE    expiry::time_to_live_seconds
            "key"
            "Seconds until the value expires; -1 for never, -2 for no value."
        "PTTL"         2 READ      ONE    expiry::time_to_live_milliseconds
            "key"
            "The same in milliseconds."
        "EXPIRETIME"   2 READ      ONE    expiry::expiry_seconds
            "key"
            "When the value expires, in seconds since 1970; -1 for never, -2 for no value."
        "PEXPIRETIME"  2 READ      ONE    expiry::expiry_milliseconds
            "key"
            "The same in milliseconds."
        "EXPIRE"      -3 WRITE     ONE    expiry::expire
            "key seconds [NX|XX] [GT|LT]"
            "Lets the value expire; 1, or 0 where nothing was changed."
        "PEXPIRE"     -3 WRITE     ONE    expiry::expire_milliseconds
            "key milliseconds [NX|XX] [GT|LT]"
            "The same in milliseconds."
        "EXPIREAT"    -3 WRITE     ONE    expiry::expire_at
            "key time [NX|XX] [GT|LT]"
            "The same at a time, in seconds since 1970."
        "PEXPIREAT"   -3 WRITE     ONE    expiry::expire_at_milliseconds
            "key time-ms [NX|XX] [GT|LT]"
            "The same at a time, in milliseconds since 1970."
        "PERSIST"      2 WRITE     ONE    expiry::persist
            "key"
            "Takes the expiry away; 1, or 0 where there is none."
        "SCAN"        -2 SLOW_READ NONE   parse::scan
            "cursor [MATCH pattern] [COUNT count]"
            "One page of the bucket's keys, from all nodes; cursor 0 begins and ends."
        "KEYS"         2 SLOW_READ NONE   parse::keys
            "pattern"
            "Refused: use SCAN."
    }
    "connection" since "0.1.0" {
        "PING"        -1 SELF      NONE   parse::ping
            "[message]"
            "Answers PONG, or the message."
        "ECHO"         2 SELF      NONE   parse::echo
            "message"
            "Answers the message."
        "HELLO"       -1 GREETING  NONE   parse::hello
            "[2|3 [AUTH user password] [SETNAME name]]"
            "Chooses the protocol version and says who the server is."
        "AUTH"        -2 GREETING  NONE   parse::auth
            "[user] password"
            "Gives the password."
        "SELECT"       2 SELF      NONE   parse::select
            "0"
            "There is one database; see RD.BUCKET."
        "CLIENT"      -2 SELF      NONE   parse::client
            "SETNAME name|GETNAME|SETINFO LIB-NAME name|SETINFO LIB-VER version\
             |ID|INFO|LIST|NO-EVICT on|NO-TOUCH on"
            "Names this connection, or describes it."
        "RESET"        1 GREETING  NONE   parse::reset
            ""
            "Sets the connection back to how it began."
        "QUIT"        -1 GREETING  NONE   parse::quit
            ""
            "Closes the connection."
    }
    "server" since "0.1.0" {
        "INFO"        -1 ADMIN     NONE   parse::info
            "[section ...]"
            "The node's state as lines of name:value."
        "COMMAND"     -1 SELF      NONE   parse::command
            "[COUNT|LIST|INFO name ...|DOCS name ...]"
            "This table, for clients."
        "CONFIG"      -2 ADMIN     NONE   parse::config
            "GET pattern [pattern ...]"
            "Settings that clients ask for; SET is refused."
        "DBSIZE"       1 READ      NONE   parse::database_size
            ""
            "Keys of the connection's bucket that have a value, over all nodes."
        "CLUSTER"     -2 ADMIN     NONE   parse::cluster
            "subcommand"
            "Refused: this is no Redis cluster; any node serves any key."
    }
    "ringdove" since "0.1.0" {
        "RD.GET"      -2 READ      ONE    extensions::get
            "key [R r] [PR n]"
            "Context, all values, and receipt of a read."
        "RD.PUT"      -4 WRITE     ONE    extensions::put
            "key value CTX context|NEW|BLIND [W w] [PW n] [EX seconds|PX milliseconds|EXAT time|PXAT time-ms]"
            "Writes a value in place of those that the context covers."
        "RD.DEL"      -3 DELETE    ONE    extensions::delete
            "key CTX context|BLIND [W w] [PW n]"
            "Deletes the values that the context covers."
        "RD.SIBLINGS"  2 READ      ONE    extensions::siblings
            "key"
            "Each value of a key with who wrote it, and when."
        "RD.LAST"      1 SELF      NONE   extensions::last
            ""
            "The receipt of this connection's latest read or write."
        "RD.QUORUM"   -1 SELF      NONE   extensions::quorum
            "[R r] [W w] [PR n] [PW n] [STRICT|SLOPPY]"
            "Sets this connection's quorums, or shows them."
        "RD.BUCKET"   -1 SELF      NONE   extensions::bucket
            "[name]"
            "Changes this connection's bucket, or shows it."
        "RD.SCAN"     -3 SLOW_READ NONE   extensions::scan
            "bucket cursor [MATCH pattern] [COUNT count] [R r]"
            "SCAN of a bucket by its name, with owners of each partition to be asked."
        "RD.CONFLICTS" -1 SLOW_READ NONE  extensions::conflicts
            "[bucket [cursor] [COUNT count]]"
            "What is in each bucket, or one page of a bucket's keys with several values."
        "RD.TOP"       1 SLOW_READ NONE   extensions::outliers
            ""
            "Each node's keys with the most values, and its largest."
        "RD.EXPLAIN"   2 SLOW_READ ONE    extensions::explain
            "key"
            "Where a key is, and what each replica holds."
        "RD.TRACE"    -3 SLOW_READ SECOND extensions::trace
            "command key [argument ...]"
            "Runs GET, SET, DEL, RD.GET, RD.PUT or RD.DEL and shows each hop with its time."
        "RD.RING"      1 ADMIN     NONE   extensions::ring
            ""
            "The ring: members and their shares."
        "RD.NODES"     1 ADMIN     NONE   extensions::nodes
            ""
            "The members as this node sees them."
        "RD.TRANSFERS" 1 ADMIN     NONE   extensions::transfers
            ""
            "What moves to this node, how fast, and who holds it up."
        "RD.DIGEST"    1 ADMIN     NONE   extensions::digest
            ""
            "Number and digest of the objects on this node's disk."
        "RD.HINTS"     1 ADMIN     NONE   extensions::hints
            ""
            "What every node keeps for members that are away."
        "RD.TOMBSTONES" 1 ADMIN    NONE   extensions::tombstones
            ""
            "What was deleted and waits to be forgotten, and who holds it up."
        "RD.SYNC"     -2 ADMIN     NONE   extensions::sync
            "STATUS|PARTITION partition|NOW|PAUSE|RESUME"
            "How the owners of the data stand with each other; compares now, pauses, goes on."
        "RD.WAIT"     -1 ADMIN     NONE   extensions::wait
            "[HEALTHY] [HINTS] [TRANSFERS] [SYNCED] [TIMEOUT milliseconds]"
            "Waits until the cluster is as named, or answers what is still open."
        "RD.HELP"     -1 SELF      NONE   extensions::help
            "[command]"
            "What there is, or one command in full."
    }
}

rows! {
    /// The commands that only a node has which was started with `node.fault_injection`.
    FAULT_ROWS:
    "ringdove" since "0.1.0" {
        "RD.FAULT"    -2 ADMIN     NONE   faults::fault
            "LIST|CLEAR [id]|ADD DROP|DELAY|DUPLICATE|THROTTLE|PAUSE|SLOW-DISK|FULL-DISK|CLOCK \
             [PEER name|ZONE name|EVERYONE] [DIRECTION IN|OUT|BOTH] [SHARE part] [BY milliseconds] \
             [JITTER milliseconds] [TO bytes] [FOR milliseconds] [SEED seed]"
            "Injects faults into this node, lists and lifts them; only with --fault-injection."
    }
}

/// Which commands a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Those of [`ROWS`].
    Usual,
    /// Those of [`FAULT_ROWS`] as well.
    WithFaults,
}

impl Offer {
    /// Its rows.
    pub fn rows(self) -> impl Iterator<Item = &'static Row> {
        let more = if self == Self::WithFaults { FAULT_ROWS } else { &[] };
        ROWS.iter().chain(more)
    }
}

/// Redis' commands that cannot be had here, and why: better than "unknown command".
const ABSENT: &[(&[&str], &str)] = &[
    (
        &["MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"],
        "transactions are not supported: every key is written by itself. \
         RD.PUT with a context replaces what was read",
    ),
    (
        &["EVAL", "EVALSHA", "SCRIPT", "FUNCTION", "FCALL"],
        "scripts are not supported: read with RD.GET, decide, write with RD.PUT and its context",
    ),
    (
        &["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "PUBLISH", "SPUBLISH", "MONITOR"],
        "publishing and subscribing are not supported",
    ),
    (
        &["INCR", "DECR", "INCRBY", "DECRBY", "APPEND", "GETSET", "MSETNX"],
        "this command is not supported: without a leader nobody can read and write in one step. \
         Use RD.GET, then RD.PUT with its context",
    ),
    (&["SETNX", "SETEX", "PSETEX"], "this command is not supported: use SET with NX, EX or PX"),
];

impl Command {
    /// Reads one command from its arguments, the name first. Names and options may be written in
    /// capitals or small letters. Of those of [`FAULT_ROWS`] it knows nothing.
    ///
    /// # Errors
    /// [`CommandError`]; nothing was changed, and the connection goes on.
    pub fn parse(arguments: &[Bytes]) -> Result<Self, CommandError> {
        parse(Offer::Usual, arguments)
    }
}

/// As [`Command::parse`], of a node that has these commands.
///
/// # Errors
/// [`CommandError`]; nothing was changed, and the connection goes on.
pub fn parse(offer: Offer, arguments: &[Bytes]) -> Result<Command, CommandError> {
    let name = arguments.first().map_or(&b""[..], |name| name);
    let row = find(offer, name).ok_or_else(|| unknown(name, arguments))?;
    if !row.takes(arguments.len()) {
        return Err(CommandError::Arity(row.name.to_ascii_lowercase()));
    }
    (row.parse)(arguments)
}

fn unknown(name: &[u8], arguments: &[Bytes]) -> CommandError {
    let is = |absent: &&str| absent.as_bytes().eq_ignore_ascii_case(name);
    if let Some((_, why)) = ABSENT.iter().find(|(names, _)| names.iter().any(is)) {
        return CommandError::Refused(why);
    }
    let mut shown = String::new();
    for argument in arguments.iter().skip(1) {
        if shown.len() >= 128 {
            break;
        }
        let room = 128 - shown.len();
        let argument = &argument[..argument.len().min(room)];
        let _ = write!(shown, "'{}' ", argument.escape_ascii());
    }
    CommandError::UnknownCommand { name: options::shown(name), arguments: shown }
}

/// The row of a name, written in capitals or small letters.
#[must_use]
pub fn find(offer: Offer, name: &[u8]) -> Option<&'static Row> {
    offer.rows().find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

impl Row {
    /// Whether the command can have that many arguments, its name included.
    #[must_use]
    pub fn takes(&self, arguments: usize) -> bool {
        let count = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { arguments >= count } else { arguments == count }
    }

    /// The command's name and what follows it.
    #[must_use]
    pub fn usage(&self) -> String {
        format!("{} {}", self.name, self.syntax).trim_end().to_owned()
    }

    /// The row as `COMMAND` has it since Redis 7: ten fields, the last four unused here (access
    /// categories, tips, key specifications, subcommands).
    fn as_info(&self) -> Reply {
        let (first, last, step) = self.keys;
        let integer = |number: i8| Reply::Integer(i64::from(number));
        let mut fields = vec![
            Reply::text(self.name.to_ascii_lowercase()),
            integer(self.arity),
            Reply::Array(self.flags.iter().map(|flag| Reply::status(*flag)).collect()),
            integer(first),
            integer(last),
            integer(step),
        ];
        fields.extend((0..4).map(|_| Reply::Array(Vec::new())));
        Reply::Array(fields)
    }

    /// The row as `COMMAND DOCS` has it. The whole syntax stands as the name of one argument:
    /// `redis-cli` then shows it as its hint while somebody types.
    fn as_docs(&self) -> Reply {
        let argument = Reply::map([
            ("name", Reply::text(self.syntax)),
            ("type", Reply::text("string")),
            ("display_text", Reply::text(self.syntax)),
        ]);
        let arguments = if self.syntax.is_empty() { vec![] } else { vec![argument] };
        Reply::map([
            ("summary", Reply::text(self.summary)),
            ("since", Reply::text(self.since)),
            ("group", Reply::text(self.group)),
            ("arguments", Reply::Array(arguments)),
        ])
    }
}

/// The answer to `COMMAND …`.
#[must_use]
pub fn describe(offer: Offer, command: &TableCommand) -> Reply {
    let name = |row: &Row| Reply::text(row.name.to_ascii_lowercase());
    match command {
        TableCommand::All => Reply::Array(offer.rows().map(Row::as_info).collect()),
        TableCommand::Count => Reply::Integer(offer.rows().count() as i64),
        TableCommand::List => Reply::Array(offer.rows().map(name).collect()),
        TableCommand::Info(names) if names.is_empty() => describe(offer, &TableCommand::All),
        TableCommand::Info(names) => {
            let info = |name: &Bytes| find(offer, name).map_or(Reply::NullArray, Row::as_info);
            Reply::Array(names.iter().map(info).collect())
        }
        TableCommand::Docs(names) if names.is_empty() => {
            Reply::Map(offer.rows().map(|row| (name(row), row.as_docs())).collect())
        }
        TableCommand::Docs(names) => {
            let rows = names.iter().filter_map(|name| find(offer, name));
            Reply::Map(rows.map(|row| (name(row), row.as_docs())).collect())
        }
    }
}

/// The answer to `RD.HELP`: lines for people.
#[must_use]
pub fn help(offer: Offer, name: Option<&[u8]>) -> Reply {
    let lines: Vec<String> = match name.map(|name| (name, find(offer, name))) {
        None => {
            let line = |row: &Row| format!("{:<12} {}", row.name, row.summary);
            let end = "RD.HELP followed by a command's name shows its syntax.".to_owned();
            offer.rows().map(line).chain([end]).collect()
        }
        Some((_, Some(row))) => vec![
            row.usage(),
            row.summary.to_owned(),
            format!("Group {}, since {}. More in docs/TEXT_PROTOCOL.md.", row.group, row.since),
        ],
        Some((name, None)) => {
            let name = options::shown(name);
            return Reply::error("ERR", format!("no command '{name}': RD.HELP lists all of them"));
        }
    };
    Reply::Array(lines.into_iter().map(Reply::status).collect())
}

/// The table of commands as it stands in `docs/TEXT_PROTOCOL.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| command | what it does | since |\n| --- | --- | --- |\n");
    for row in Offer::WithFaults.rows() {
        let usage = row.usage().replace('|', "\\|");
        let _ = writeln!(out, "| `{usage}` | {} | {} |", row.summary, row.since);
    }
    out
}
