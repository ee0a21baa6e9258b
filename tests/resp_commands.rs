//! Transcripts of what the language alone decides: a line as somebody types it, and the command or
//! the error it becomes; an answer, and its bytes in both versions.
//!
//! The files stand in `tests/golden/resp`. `RINGDOVE_BLESS=1 cargo test --test resp_commands`
//! writes them anew; the difference is then a decision, read by a person.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use ringdove::random::Random;
use ringdove::resp::command::TableCommand;
use ringdove::resp::table::{self, ROWS};
use ringdove::resp::{Command, CommandError, Parser, ParserLimits, ProtocolError, Reply, Version};

/// Compares with the golden file, or writes it.
fn compare(file: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/resp").join(file);
    if std::env::var_os("RINGDOVE_BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (number, (golden, actual)) in golden.lines().zip(actual.lines()).enumerate() {
        assert_eq!(golden, actual, "{file} line {}", number + 1);
    }
    assert_eq!(golden.lines().count(), actual.lines().count(), "{file}");
}

fn arguments(line: &str) -> Vec<Bytes> {
    let mut buffer = BytesMut::from(line);
    buffer.extend_from_slice(b"\r\n");
    Parser::new().next(&mut buffer, &ParserLimits::default()).unwrap().unwrap()
}

fn encoded(reply: &Reply, version: Version) -> BytesMut {
    let mut out = BytesMut::new();
    reply.encode(&mut out, version);
    out
}

#[test]
fn commands_are_read_as_in_the_transcript() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/resp/commands.txt");
    let transcript = std::fs::read_to_string(path).unwrap();
    let mut actual = String::new();
    for line in transcript.lines().filter(|line| !line.starts_with("< ")) {
        let _ = writeln!(actual, "{line}");
        let Some(input) = line.strip_prefix("> ") else { continue };
        let _ = match Command::parse(&arguments(input)) {
            Ok(command) => writeln!(actual, "< {command:?}"),
            Err(error) => writeln!(actual, "< -{error}"),
        };
    }
    compare("commands.txt", &actual);
    for row in ROWS {
        let tries = |line: &str| line.split_whitespace().nth(1) == Some(row.name);
        assert!(transcript.lines().any(tries), "no transcript has {}", row.name);
    }
}

#[test]
fn answers_have_the_bytes_of_the_transcript() {
    let rows: Vec<(&str, Reply)> = vec![
        ("ok", Reply::Ok),
        ("status", Reply::status("PONG")),
        ("status of two lines", Reply::status("a\r\nb")),
        ("error", Reply::error("UNAVAILABLE", "2 of 3 replicas are away\r\n+OK")),
        ("integer", Reply::Integer(1234)),
        ("smallest integer", Reply::Integer(i64::MIN)),
        ("largest integer", Reply::Integer(i64::MAX)),
        ("zero", Reply::Integer(0)),
        ("bulk", Reply::Bulk(Bytes::from_static(b"a\r\n\xff"))),
        ("empty bulk", Reply::Bulk(Bytes::new())),
        ("text", Reply::text("hällo")),
        ("verbatim", Reply::Verbatim("a:1\r\nb:2\r\n".into())),
        ("null", Reply::Null),
        ("null array", Reply::NullArray),
        ("empty array", Reply::Array(vec![])),
        ("array", Reply::Array(vec![Reply::Null, Reply::Integer(-1)])),
        (
            "receipt",
            Reply::Array(vec![
                Reply::text("ctx"),
                Reply::Array(vec![]),
                Reply::map([("n", Reply::Integer(3)), ("acks", Reply::Integer(2))]),
            ]),
        ),
        ("too large", ProtocolError::ArgumentTooLong { actual: 9, most: 8 }.into()),
        ("protocol error", ProtocolError::ExpectedBulk(b'\n').into()),
        ("arity", CommandError::Arity("get".into()).into()),
        ("version", CommandError::ProtocolVersion.into()),
        ("COMMAND INFO get nil", table::describe(&TableCommand::Info(arguments("get nil")))),
        ("COMMAND DOCS rd.get nil", table::describe(&TableCommand::Docs(arguments("rd.get nil")))),
        ("RD.HELP set", table::help(Some(b"set"))),
        ("RD.HELP nil", table::help(Some(b"nil"))),
    ];
    let mut actual = String::new();
    for (name, reply) in rows {
        let _ = writeln!(actual, "{name}");
        for (version, number) in [(Version::Resp2, 2), (Version::Resp3, 3)] {
            let bytes = encoded(&reply, version);
            let _ = writeln!(actual, "  {number} {}", bytes.escape_ascii());
        }
    }
    compare("replies.txt", &actual);
}

#[test]
fn names_and_options_may_be_written_in_capitals_or_small_letters() {
    for (capitals, small) in [
        ("SET k v EX 10 NX", "set k v ex 10 nx"),
        ("RD.PUT k v CTX NEW W QUORUM", "rd.put k v ctx new w quorum"),
        ("RD.QUORUM R ALL STRICT", "rd.quorum r all strict"),
        ("CLIENT SETINFO LIB-NAME x", "client setinfo lib-name x"),
        ("HELLO 3 SETNAME x", "hello 3 setname x"),
    ] {
        assert_eq!(Command::parse(&arguments(capitals)), Command::parse(&arguments(small)));
    }
}

#[test]
fn what_is_kept_or_run_often_is_bounded() {
    for line in ["SCAN 0 MATCH ", "CONFIG GET ", "CLIENT SETNAME ", "HELLO 3 SETNAME "] {
        let of = |length| Command::parse(&arguments(&format!("{line}{}", "x".repeat(length))));
        assert!(of(256).is_ok(), "{line}");
        assert!(matches!(of(257), Err(CommandError::TooLong { most: 256, .. })), "{line}");
    }
}

#[test]
fn a_password_is_never_shown() {
    for line in ["AUTH hunter2", "AUTH user hunter2", "HELLO 3 AUTH user hunter2"] {
        let shown = format!("{:?}", Command::parse(&arguments(line)));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn every_row_is_found_and_fits_itself() {
    for row in ROWS {
        assert!(std::ptr::eq(table::find(row.name.to_lowercase().as_bytes()).unwrap(), row));
        assert_eq!(row.name, row.name.to_ascii_uppercase());
        assert!(row.summary.ends_with('.'), "{}", row.summary);
        let (first, last, step) = row.keys;
        assert_eq!(first == 0, step == 0, "{}", row.name);
        assert!(last < 0 || last >= first, "{}", row.name);
        assert!(i16::from(row.arity).abs() > i16::from(first), "{} may have no key", row.name);
        let least = usize::from(row.arity.unsigned_abs());
        assert!(row.takes(least) && !row.takes(least - 1));
    }
}

#[test]
fn the_whole_table_can_be_described() {
    for command in [TableCommand::All, TableCommand::List, TableCommand::Info(vec![])] {
        let Reply::Array(rows) = table::describe(&command) else { panic!("{command:?}") };
        assert_eq!(rows.len(), ROWS.len());
    }
    let Reply::Map(docs) = table::describe(&TableCommand::Docs(vec![])) else { panic!() };
    assert_eq!(docs.len(), ROWS.len());
    let Reply::Array(help) = table::help(None) else { panic!() };
    assert_eq!(help.len(), ROWS.len() + 1);
}

/// A trace of a trace of a trace, as deep as a command may be long, is one error.
#[test]
fn traces_do_not_nest() {
    let deep = vec![Bytes::from_static(b"RD.TRACE"); 100_000];
    assert!(matches!(Command::parse(&deep), Err(CommandError::Refused(_))));
}

#[test]
fn random_arguments_never_panic_and_errors_are_one_line() {
    const WORDS: [&str; 24] = [
        "",
        "k",
        "EX",
        "PX",
        "NX",
        "XX",
        "R",
        "W",
        "PR",
        "PW",
        "CTX",
        "NEW",
        "BLIND",
        "-1",
        "0",
        "3",
        "9223372036854775807",
        "18446744073709551615",
        "MATCH",
        "COUNT",
        "AUTH",
        "SETNAME",
        "quorum",
        "\r\n\u{ff}",
    ];
    let mut random = Random::new(3);
    for _ in 0..300_000 {
        let row = ROWS[random.below(ROWS.len() as u64) as usize];
        let mut arguments = vec![Bytes::from(row.name)];
        for _ in 0..random.below(7) {
            let word = WORDS[random.below(WORDS.len() as u64) as usize];
            arguments.push(Bytes::from(word));
        }
        if let Err(error) = Command::parse(&arguments) {
            let bytes = encoded(&error.into(), Version::Resp2);
            assert_eq!(bytes.iter().filter(|b| matches!(b, b'\r' | b'\n')).count(), 2);
            assert!(bytes.starts_with(b"-ERR ") || bytes.starts_with(b"-NOPROTO "));
        }
    }
}
