//! Links between documents: the file has to exist, and the heading in it.

use crate::source::Offence;

/// Relative links of `text` that lead nowhere. `documents` are all of them, as (path, text);
/// `exists` answers for every path of the repository.
pub fn dead(
    path: &str,
    text: &str,
    documents: &[(String, String)],
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (line, target) in targets(text) {
        let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
        if is_elsewhere {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let file = if file.is_empty() { path.to_string() } else { resolve(path, file) };
        let problem = if !exists(&file) {
            format!("`{target}` leads to no file")
        } else if let Some((_, text)) = documents.iter().find(|(path, _)| *path == file)
            && !anchor.is_empty()
            && !anchors(text).contains(&anchor.to_string())
        {
            format!("`{target}` leads to no heading")
        } else {
            continue;
        };
        offences.push(Offence {
            at: format!("{path}::{target}"),
            place: format!("{path}:{line}"),
            message: problem,
        });
    }
    offences
}

/// `docs/a.md` and `../b.md` make `b.md`.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The prose of a document: its lines with their numbers, without code.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((index + 1, line.to_string())),
            _ => {}
        }
        None
    })
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// The targets of `[text](target)`, `[text](target "title")` and `[label]: target`.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(&line);
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        found.extend(inline.map(|target| (number, target.to_string())));
        let labelled = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, rest)) = labelled {
            found.extend(rest.split_whitespace().next().map(|target| (number, target.to_string())));
        }
    }
    found
}

/// The anchors of a document: its headings as GitHub writes them, and `<a id="…">`.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        for mark in ["id=\"", "name=\""] {
            let named = line.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
            anchors.extend(named.map(str::to_string));
        }
        let Some(title) = line.trim_start_matches('#').strip_prefix(' ') else { continue };
        if !line.starts_with('#') {
            continue;
        }
        let slug: String = (title.trim().to_lowercase().chars())
            .filter(|char| char.is_alphanumeric() || [' ', '-', '_'].contains(char))
            .map(|char| if char == ' ' { '-' } else { char })
            .collect();
        // The second heading of a name is `name-1`.
        let again =
            |count: usize| if count == 0 { slug.clone() } else { format!("{slug}-{count}") };
        let free = (0..).map(again).find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    anchors
}

#[test]
fn planted_dead_links_are_caught_and_live_ones_are_not() {
    let documents = [
        ("docs/A.md".to_string(), "# The `W` of a write\n## Twice\n## Twice\n".to_string()),
        ("README.md".to_string(), String::new()),
    ];
    let exists = |path: &str| ["docs/A.md", "README.md", "src/lib.rs"].contains(&path);
    let caught = |text: &str| dead("docs/B.md", text, &documents, &exists).len();
    for planted in
        ["[a](C.md)", "[a](A.md#nothing)", "x [a](../A.md \"t\") y", "[a]: ../none.md", "[a](#no)"]
    {
        assert_eq!(caught(planted), 1, "not caught: {planted}");
    }
    for fine in [
        "[a](A.md) and [b](../README.md)",
        "[a](A.md#the-w-of-a-write) [b](A.md#twice-1)",
        "[a](https://example.org/x.md) [b](../src/lib.rs#L10)",
        "`[a](C.md)`",
        "```\n[a](C.md)\n```",
    ] {
        assert_eq!(caught(fine), 0, "wrongly caught: {fine}");
    }
}
