//! The parser of the text protocol, from outside: whatever way the bytes arrive, the same commands
//! come out, and what is no command is refused early.

use bytes::{Bytes, BytesMut};
use ringdove::limits;
use ringdove::random::Random;
use ringdove::resp::{Parser, ParserLimits, ProtocolError};

type Commands = Vec<Vec<Bytes>>;

/// Feeds `pieces` one after the other; the commands, and the error that ended it.
fn parse_pieces(pieces: &[&[u8]]) -> (Commands, Option<ProtocolError>) {
    let (mut parser, mut buffer) = (Parser::new(), BytesMut::new());
    let mut commands = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parser.next(&mut buffer, &ParserLimits::default()) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

fn words(command: &[&[u8]]) -> Vec<Bytes> {
    command.iter().map(|word| Bytes::copy_from_slice(word)).collect()
}

fn one_line(line: &str) -> Result<Vec<Bytes>, ProtocolError> {
    let (mut commands, error) = parse_pieces(&[line.as_bytes(), b"\r\n"]);
    error.map_or_else(|| Ok(commands.pop().unwrap_or_default()), Err)
}

fn refused(input: &[u8]) -> ProtocolError {
    let (commands, error) = parse_pieces(&[input]);
    assert!(commands.is_empty(), "{} gave {commands:?}", input.escape_ascii());
    error.unwrap_or_else(|| panic!("{} was not refused", input.escape_ascii()))
}

const MIXED: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\nPING\r\n\r\n*0\r\n*-1\r\n\
    GET \"a b\\x00\\n\" 'it\\'s'\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n  quit  \r\n*1\r\n$4\r\nPING\r\n";

fn mixed() -> Commands {
    vec![
        words(&[b"SET", b"k", b"a\r\nb"]),
        words(&[b"PING"]),
        words(&[b"GET", b"a b\0\n", b"it's"]),
        words(&[b"ECHO", b""]),
        words(&[b"quit"]),
        words(&[b"PING"]),
    ]
}

#[test]
fn arrays_and_lines_may_follow_each_other_and_empty_ones_are_passed_over() {
    assert_eq!(parse_pieces(&[MIXED]), (mixed(), None));
}

#[test]
fn splitting_the_input_anywhere_gives_the_same_commands() {
    for first in 0..=MIXED.len() {
        for second in first..=MIXED.len() {
            let pieces = [&MIXED[..first], &MIXED[first..second], &MIXED[second..]];
            assert_eq!(parse_pieces(&pieces), (mixed(), None), "split at {first} and {second}");
        }
    }
    let bytes: Vec<&[u8]> = MIXED.chunks(1).collect();
    assert_eq!(parse_pieces(&bytes), (mixed(), None));
}

#[test]
fn nothing_is_given_out_before_the_last_byte() {
    let whole = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    for end in 0..whole.len() {
        assert_eq!(parse_pieces(&[&whole[..end]]), (vec![], None), "{end} bytes");
    }
}

#[test]
fn the_arguments_of_an_array_share_the_buffers_memory() {
    let mut buffer = BytesMut::from(&b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n"[..]);
    let memory = buffer.as_ptr_range();
    let command = Parser::new().next(&mut buffer, &ParserLimits::default()).unwrap().unwrap();
    assert!(command.iter().all(|argument| memory.contains(&argument.as_ptr())));
    assert!(buffer.is_empty());
}

#[test]
fn lines_are_quoted_as_in_redis() {
    let cases: &[(&str, &[&[u8]])] = &[
        (r#"SET k "a b""#, &[b"SET", b"k", b"a b"]),
        (r#"SET k "\x41\xff\n\r\t\b\a\"\\\q""#, &[b"SET", b"k", b"A\xff\n\r\t\x08\x07\"\\q"]),
        (r#"SET k "\x4""#, &[b"SET", b"k", b"x4"]),
        (r"SET k 'a\nb \' c'", &[b"SET", b"k", br"a\nb ' c"]),
        (r#"a"b c""#, &[b"ab c"]),
        (r#""" ''"#, &[b"", b""]),
        ("a\\b", &[b"a\\b"]),
        ("\t a \t b\t", &[b"a", b"b"]),
    ];
    for (line, expected) in cases {
        assert_eq!(one_line(line), Ok(words(expected)), "{line}");
    }
    for line in [r#""a"#, r#"'a"#, r#""a"b"#, r"'a'b", r#"a "b\"#, r#"""""#, r"'\'"] {
        assert_eq!(one_line(line), Err(ProtocolError::UnbalancedQuotes), "{line}");
    }
}

#[test]
fn web_requests_are_refused() {
    for line in [
        "GET / HTTP/1.1",
        "get /a HTTP/1.0",
        "POST /cgi HTTP/1.1",
        "POST",
        "Host: localhost:7401",
        "CONNECT localhost:7401 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
    ] {
        assert_eq!(one_line(line), Err(ProtocolError::Http), "{line}");
    }
    assert_eq!(one_line("GET HTTP/1.1"), Ok(words(&[b"GET", b"HTTP/1.1"])));
    assert_eq!(one_line("SET / HTTP/1.1"), Ok(words(&[b"SET", b"/", b"HTTP/1.1"])));
}

#[test]
fn bombs_are_refused_as_soon_as_they_are_announced() {
    use ProtocolError as E;
    let too_many = |actual| E::TooManyArguments { actual, most: limits::TEXT_ARGUMENTS };
    let too_long = |actual| E::ArgumentTooLong { actual, most: limits::VALUE_BYTES_HARD };
    assert_eq!(refused(b"*1000000000\r\n"), too_many(1_000_000_000));
    assert_eq!(refused(b"*9223372036854775807\r\n"), too_many(i64::MAX as u64));
    assert_eq!(refused(b"*9223372036854775808\r\n"), E::ArrayLength);
    assert_eq!(refused(b"*1\r\n$4294967296\r\n"), too_long(1 << 32));
    assert_eq!(refused(b"*1\r\n$999999999999999999999999"), E::BulkLength);
    assert_eq!(refused(b"$4294967296\r\n"), E::ExpectedArray(b'$'));
    assert_eq!(refused(&b"*1\r\n".repeat(50_000)), E::ExpectedBulk(b'*'));
    let inline = E::InlineTooLong { most: limits::TEXT_INLINE_BYTES };
    assert_eq!(refused(&b"a".repeat(limits::TEXT_INLINE_BYTES)), inline);
    assert_eq!(refused(&[&b"a".repeat(limits::TEXT_INLINE_BYTES)[..], b"\n"].concat()), inline);
}

#[test]
fn whatever_is_no_command_is_refused() {
    use ProtocolError as E;
    for length in ["", "x", "+1", "01", "1 ", " 1", "-0", "1\r", "1e3", "--1"] {
        assert_eq!(refused(format!("*{length}\r\n").as_bytes()), E::ArrayLength, "{length:?}");
        let bulk = format!("*1\r\n${length}\r\n");
        assert_eq!(refused(bulk.as_bytes()), E::BulkLength, "{length:?}");
    }
    assert_eq!(refused(b"*1\n"), E::ArrayLength);
    assert_eq!(refused(b"*1\r\n$-1\r\n"), E::BulkLength);
    assert_eq!(refused(b"*1\r\n$4\r\nPINGx"), E::ExpectedLineEnd);
    assert_eq!(refused(b"*1\r\n$4\r\nPING\rx"), E::ExpectedLineEnd);
    assert_eq!(refused(b"*1\r\n:1\r\n"), E::ExpectedBulk(b':'));
    assert_eq!(refused(b"+OK\r\n"), E::ExpectedArray(b'+'));
    assert_eq!(refused(b"%1\r\n"), E::ExpectedArray(b'%'));
}

#[test]
fn the_caps_of_somebody_who_owes_a_password_are_small() {
    let parse = |input: &[u8]| {
        let mut buffer = BytesMut::from(input);
        Parser::new().next(&mut buffer, &ParserLimits::UNAUTHENTICATED)
    };
    assert!(parse(b"*11\r\n").is_err());
    assert!(parse(b"*1\r\n$16385\r\n").is_err());
    assert!(parse(b"1 2 3 4 5 6 7 8 9 10 11\n").is_err());
    assert!(parse(b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n").unwrap().is_some());
}

#[test]
fn all_arguments_together_have_a_cap() {
    let limits = ParserLimits { command_bytes: 10, ..ParserLimits::default() };
    let mut buffer = BytesMut::from(&b"*3\r\n$4\r\nECHO\r\n$6\r\n123456\r\n$1\r\n"[..]);
    let error = Parser::new().next(&mut buffer, &limits);
    assert_eq!(error, Err(ProtocolError::CommandTooLong { most: 10 }));
}

/// 300,000 strings made of what a parser might stumble over. Each is also fed in two pieces: that
/// must give the same commands and the same error.
#[test]
fn random_bytes_never_panic_and_mean_the_same_in_pieces() {
    const PIECES: [&[u8]; 20] = [
        b"\r\n",
        b"*",
        b"$",
        b"1",
        b"3",
        b"-1",
        b"\n",
        b"\r",
        b"\"",
        b"'",
        b"\\x4",
        b"\\",
        b" ",
        b"GET",
        b"*2\r\n$1\r\na\r\n",
        b"$3\r\nabc\r\n",
        b"*1\r\n",
        b"\0",
        b"\xff",
        b"99999999999",
    ];
    let mut random = Random::new(1);
    for round in 0..300_000 {
        let mut input = Vec::new();
        for _ in 0..random.below(12) {
            if random.chance(80) {
                input.extend_from_slice(PIECES[random.below(PIECES.len() as u64) as usize]);
            } else {
                input.push(random.next_u64() as u8);
            }
        }
        let cut = random.below(input.len() as u64 + 1) as usize;
        let whole = parse_pieces(&[&input]);
        let pieces = parse_pieces(&[&input[..cut], &input[cut..]]);
        assert_eq!(whole, pieces, "round {round}: {} cut at {cut}", input.escape_ascii());
    }
}
