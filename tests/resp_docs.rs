//! `docs/TEXT_PROTOCOL.md` says what the code does: every command, every error code.
//!
//! `RINGDOVE_BLESS=1 cargo test --test resp_docs` writes the table of commands anew.

use std::path::PathBuf;

use ringdove::resp::reply::ERROR_CODES;
use ringdove::resp::table;

const END: &str = "<!-- end: commands -->";

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/TEXT_PROTOCOL.md")
}

#[test]
fn the_page_has_the_table_of_commands() {
    let text = std::fs::read_to_string(page()).unwrap();
    let begin = text.find("<!-- begin: commands").expect("the page marks where the table begins");
    let begin = begin + text[begin..].find('\n').expect("the mark is a line") + 1;
    let end = text.find(END).expect("the page marks where the table ends");
    if std::env::var_os("RINGDOVE_BLESS").is_some() {
        let page_text = [&text[..begin], &table::markdown(), &text[end..]].concat();
        std::fs::write(page(), page_text).unwrap();
    } else {
        assert_eq!(&text[begin..end], table::markdown());
    }
}

#[test]
fn the_page_explains_every_error_code() {
    let text = std::fs::read_to_string(page()).unwrap();
    for code in ERROR_CODES {
        assert!(text.contains(&format!("\n| `{code}` |")), "{code} has no row");
    }
}
