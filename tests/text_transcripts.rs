//! Conversations with a real node, byte by byte: what `docs/TEXT_PROTOCOL.md` promises.
//!
//! The files stand in `tests/golden/text`; `RINGDOVE_BLESS=1 cargo test --test text_transcripts`
//! writes them anew, for a person to read the difference.
//!
//! ```text
//!   > SET k "a b"        a command, sent as an array; "…" holds spaces
//!   >> SET k v           the same, sent together with those of its kind that follow
//!   inline> SET k v      a command, sent as a line
//!   raw> *1\r\n$x\r\n    bytes; everything up to the end of the connection is read
//!   < *2 $1 a $1 b       a reply, its lines joined; what differs from run to run is masked
//!   ---                  a new connection
//! ```
//!
//! `{context}` in a command is the last context that was answered.

#[path = "text/node.rs"]
mod node;

use node::{Connection, Node, command};
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text")
}

/// Has the conversation in a file, and compares.
fn hold(node: &Node, name: &str) {
    let path = golden().join(name);
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let found = converse(node, &expected);
    if std::env::var_os("RINGDOVE_BLESS").is_some() {
        std::fs::write(&path, found).expect("the file can be written");
    } else {
        assert_eq!(found, expected, "{name}: RINGDOVE_BLESS=1 writes what was found");
    }
}

/// The file's own lines without its replies, and with the replies that came.
fn converse(node: &Node, text: &str) -> String {
    let (mut found, mut context) = (String::new(), String::new());
    let mut connection = node.connect();
    let mut together = 0;
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("< ")).collect();
    for (i, line) in lines.iter().enumerate() {
        found.push_str(line);
        found.push('\n');
        if *line == "---" {
            connection = node.connect();
        } else if let Some(bytes) = line.strip_prefix("raw> ") {
            connection.send(&unescape(bytes));
            found.push_str(&shown(&connection.rest(), &mut context));
            found.push_str("< (closed)\n");
        } else if let Some(line) = line.strip_prefix("inline> ") {
            connection.send(format!("{line}\r\n").as_bytes());
            hear(&mut connection, 1, &mut context, &mut found);
        } else if let Some(line) = line.strip_prefix("> ") {
            connection.send(&asked(line, &context));
            hear(&mut connection, 1, &mut context, &mut found);
        } else if line.starts_with(">> ") {
            together += 1;
            if !lines.get(i + 1).is_some_and(|next| next.starts_with(">> ")) {
                let pipeline = lines[i + 1 - together..=i].iter();
                let bytes =
                    pipeline.flat_map(|line| asked(&line[3..], &context)).collect::<Vec<_>>();
                connection.send(&bytes);
                hear(&mut connection, std::mem::take(&mut together), &mut context, &mut found);
            }
        }
    }
    found
}

/// A command as clients send it.
fn asked(line: &str, context: &str) -> Vec<u8> {
    let words = words(&line.replace("{context}", context));
    command(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Hears so many replies.
fn hear(connection: &mut Connection, count: usize, context: &mut String, found: &mut String) {
    for _ in 0..count {
        match connection.reply() {
            Some(reply) => found.push_str(&shown(&reply, context)),
            None => return found.push_str("< (closed)\n"),
        }
    }
}

/// Words with spaces between them; `"…"` holds spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, piece) in line.split('"').enumerate() {
        match i % 2 {
            0 => words.extend(piece.split_whitespace().map(str::to_owned)),
            _ => words.push(piece.to_owned()),
        }
    }
    words
}

fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").into_bytes()
}

/// A line for each reply in `bytes`, masked.
fn shown(bytes: &[u8], context: &mut String) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while let Some(end) = node::end_of_reply(bytes, at) {
        let text = std::str::from_utf8(&bytes[at..end]).expect("the transcripts use text only");
        out.push_str(&format!("< {}\n", masked(text, context).join(" ")));
        at = end;
    }
    assert_eq!(at, bytes.len(), "half a reply");
    out
}

fn masked(reply: &str, context: &mut String) -> Vec<String> {
    const VOLATILE: [&str; 8] =
        ["seen", "bytes", "micros", "written_ms", "expires_ms", "id", "hash", "address"];
    let mut shown: Vec<String> = Vec::new();
    let mut name = "";
    for line in reply.split_terminator("\r\n") {
        let is_length = line.starts_with('$') && line != "$-1";
        let is_null = ["$-1", "_"].contains(&line);
        let is_volatile = VOLATILE.contains(&name) && !is_length && !is_null;
        let mask = match is_volatile {
            true => Some(format!("<{name}>")),
            false => mask(line, context),
        };
        if mask.is_some()
            && let Some(length) = shown.last_mut().filter(|line| line.starts_with('$'))
        {
            // It may differ too.
            "$<length>".clone_into(length);
        }
        shown.push(mask.unwrap_or_else(|| line.to_owned()));
        if !is_length {
            name = line;
        }
    }
    shown
}

/// What stands for a line that differs from run to run.
fn mask(line: &str, context: &mut String) -> Option<String> {
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let is_context = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        text.starts_with("AQ") && text.len() > 20 && text.bytes().all(allowed)
    };
    let is_dot =
        |text: &str| text.split_once('.').is_some_and(|(incarnation, _)| is_hex(incarnation, 16));
    if is_context(line) {
        line.clone_into(context);
        return Some("<context>".to_owned());
    }
    let word = |word: &str| match word {
        word if is_hex(word, 32) => "<id>".to_owned(),
        word if is_dot(word.trim_matches(['{', '}'])) => "<dot>".to_owned(),
        word if word.strip_prefix("context=").is_some_and(is_context) => {
            "context=<context>".to_owned()
        }
        word => word.to_owned(),
    };
    let masked = line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    (masked != line).then_some(masked)
}

#[test]
fn conversations_in_both_versions_go_as_promised() {
    let node = Node::start("", "");
    for name in [
        "resp2.txt",
        "resp3.txt",
        "inline.txt",
        "pipeline.txt",
        "siblings.txt",
        "connection.txt",
        "inside.txt",
        "refused.txt",
        "malformed.txt",
    ] {
        hold(&node, name);
    }
}

#[test]
fn values_expire_and_keys_are_listed_as_promised() {
    hold(&Node::start("", ""), "expiry.txt");
    hold(&Node::start("", ""), "lists.txt");
}

#[test]
fn whoever_owes_a_password_may_only_give_it() {
    let node = Node::start("password = \"secret\"", "");
    hold(&node, "password.txt");
}
