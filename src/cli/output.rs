//! What goes to the terminal: answers to standard output, everything else to standard error.
//!
//! An answer has two forms, a text for people and one JSON document for programs, and a command
//! makes both from the same facts. Bytes that are no UTF-8 stand in JSON as `{"hex": "00ff…"}`.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::exit::{Exit, Failure};

/// Columns of the narrowest terminal that everything must fit.
const WIDTH: u16 = 80;

/// In which form a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

impl Form {
    /// Writes an answer.
    pub(super) fn answer(
        self,
        text: &str,
        document: impl FnOnce() -> Value,
    ) -> Result<(), Failure> {
        match self {
            Self::Text => print(text.as_bytes()),
            Self::Json => print_json(&document()),
        }
    }
}

/// Writes bytes to standard output as they are.
pub(super) fn print(bytes: &[u8]) -> Result<(), Failure> {
    print_some(bytes).map(drop)
}

/// Writes bytes to standard output as they are. False where nobody reads on, as `head` does when it has
/// had enough.
pub(super) fn print_some(bytes: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::new(Exit::No, "output", format!("cannot write the answer: {error}")))
        }
    }
}

/// Writes one JSON document, indented, with a newline behind.
pub(super) fn print_json(document: &Value) -> Result<(), Failure> {
    print(format!("{document:#}\n").as_bytes())
}

/// Tells a person something that is not the answer.
pub(super) fn note(text: &str) {
    // There is nobody left to tell that standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Tells why a command failed: a sentence, and what to do about it.
pub(super) fn complain(failure: &Failure) {
    note(&format!("error: {}", failure.message));
    if let Some(hint) = &failure.hint {
        note(&format!("hint: {hint}"));
    }
}

/// Whether a person is looking at standard output.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Bytes as JSON: a string where they are UTF-8, else their hexadecimal digits.
pub(super) fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => {
            json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() })
        }
    }
}

/// Bytes on one line, for people: control characters and what is no UTF-8 are escaped.
pub(super) fn bytes_line(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.escape_ascii().to_string() };
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

/// Lays out columns; those named in `numbers` are set to the right.
pub(super) fn table(header: &[&str], numbers: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_width(WIDTH);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(Cell::new));
    table.add_rows(rows);
    let last = header.len().saturating_sub(1);
    for (at, (column, name)) in table.column_iter_mut().zip(header).enumerate() {
        column.set_padding((0, if at == last { 0 } else { 2 }));
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        assert_eq!(bytes_json("dué".as_bytes()), json!("dué"));
        assert_eq!(bytes_json(b"\x00\xff"), json!({ "hex": "00ff" }));
        assert_eq!(bytes_line("dué\n\u{1b}[2J".as_bytes()), "dué\\n\\u{1b}[2J");
        assert_eq!(bytes_line(b"a\xff"), "a\\xff");
    }

    #[test]
    fn a_table_fits_eighty_columns_whatever_stands_in_it() {
        let row = vec!["name".to_owned(), "x".repeat(200), "1".to_owned()];
        let text = table(&["NODE", "CLOCK", "KEYS"], &["KEYS"], vec![row]);
        assert!(text.lines().count() > 3);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
