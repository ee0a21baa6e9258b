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
use ringdove::resp::table::{self, Offer, ROWS};
use ringdove::resp::{Command, CommandError, Parser, ParserLimits, ProtocolError, Reply, Version};
use ringdove::wire::faults::{Direction, Fault, FaultKind, FaultOrder, Passage, Peers};

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
        (
            "COMMAND INFO get nil",
            table::describe(Offer::Usual, &TableCommand::Info(arguments("get nil"))),
        ),
        (
            "COMMAND DOCS rd.get nil",
            table::describe(Offer::Usual, &TableCommand::Docs(arguments("rd.get nil"))),
        ),
        ("RD.HELP set", table::help(Offer::Usual, Some(b"set"))),
        ("RD.HELP nil", table::help(Offer::Usual, Some(b"nil"))),
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
        assert!(std::ptr::eq(
            table::find(Offer::Usual, row.name.to_lowercase().as_bytes()).unwrap(),
            row
        ));
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
        let Reply::Array(rows) = table::describe(Offer::Usual, &command) else {
            panic!("{command:?}")
        };
        assert_eq!(rows.len(), ROWS.len());
    }
    let Reply::Map(docs) = table::describe(Offer::Usual, &TableCommand::Docs(vec![])) else {
        panic!()
    };
    assert_eq!(docs.len(), ROWS.len());
    let Reply::Array(help) = table::help(Offer::Usual, None) else { panic!() };
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

#[test]
fn a_node_that_injects_no_faults_knows_no_word_of_them() {
    for (line, name) in [("RD.FAULT LIST", "RD.FAULT"), ("rd.nothing list", "rd.nothing")] {
        let error = Command::parse(&arguments(line)).unwrap_err();
        assert!(
            matches!(&error, CommandError::UnknownCommand { name: n, .. } if n == name),
            "{error}"
        );
    }
    let listed = |offer| match table::describe(offer, &TableCommand::List) {
        Reply::Array(rows) => rows.contains(&Reply::text("rd.fault")),
        _ => false,
    };
    assert!(!listed(Offer::Usual) && listed(Offer::WithFaults));
    let help = |offer| table::help(offer, Some(b"RD.FAULT"));
    assert!(matches!(help(Offer::Usual), Reply::Error { .. }), "{:?}", help(Offer::Usual));
    assert!(matches!(help(Offer::WithFaults), Reply::Array(_)));
}

#[test]
fn faults_are_read_from_words_in_any_order_and_a_word_without_a_use_is_refused() {
    let read = |line: &str| table::parse(Offer::WithFaults, &arguments(line));
    let one = read("RD.FAULT ADD DELAY BY 50 ZONE a JITTER 10 FOR 3000 DIRECTION in SEED 7");
    assert_eq!(one, read("rd.fault add delay zone a direction IN by 50 jitter 10 seed 7 for 3000"));
    let Ok(Command::Fault(FaultOrder::Add(fault))) = one else { panic!("{one:?}") };
    let passage = Passage { peers: Peers::Zone("a".to_owned()), direction: Direction::In };
    let kind = FaultKind::Delay { passage, by_ms: 50, jitter_ms: 10 };
    assert_eq!(fault, Fault { kind, for_ms: Some(3000), seed: 7 });
    for line in [
        "LIST",
        "CLEAR",
        "CLEAR 3",
        "ADD PAUSE FOR 1000",
        "ADD FULL-DISK",
        "ADD SLOW-DISK BY 20",
        "ADD CLOCK BY -3600000",
        "ADD DROP EVERYONE",
        "ADD DROP PEER n SHARE 0.5",
        "ADD DUPLICATE EVERYONE",
        "ADD THROTTLE EVERYONE TO 1000",
    ] {
        assert!(read(&format!("RD.FAULT {line}")).is_ok(), "{line}");
    }
    for line in [
        "",
        "NO",
        "LIST 1",
        "CLEAR x",
        "ADD",
        "ADD NO",
        "ADD DROP",
        "ADD DROP EVERYONE ZONE a",
        "ADD DROP EVERYONE SHARE 2",
        "ADD DROP EVERYONE BY 5",
        "ADD PAUSE EVERYONE",
        "ADD PAUSE FOR -1",
        "ADD SLOW-DISK",
        "ADD SLOW-DISK BY -1",
        "ADD THROTTLE EVERYONE",
        "ADD THROTTLE EVERYONE TO 0",
        "ADD DELAY EVERYONE",
        "ADD PAUSE SEED",
        "ADD DROP EVERYONE DIRECTION UP",
    ] {
        assert!(read(&format!("RD.FAULT {line}")).is_err(), "{line}");
    }
}
