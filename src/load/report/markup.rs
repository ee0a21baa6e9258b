//! Text on its way into HTML and SVG.
//!
//! Labels, names of errors and verdicts come from files that anyone may have written. What always
//! holds: nothing of them reaches the page but through [`Escaped`].

use std::fmt;

/// Text as it may stand between tags and in a quoted attribute.
pub(super) struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for character in self.0.chars() {
            match character {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '\n' | '\t' => out.write_char(' ')?,
                // A page must not have them, not even escaped.
                control if control.is_control() => out.write_char('\u{fffd}')?,
                other => out.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// At most so many characters, with an ellipsis in place of what is left out.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_tag_or_end_an_attribute_is_escaped() {
        let nasty = "<b a=\"'\">&\u{1b}\n</b>";
        let clean = "&lt;b a=&quot;&#39;&quot;&gt;&amp;\u{fffd} &lt;/b&gt;";
        assert_eq!(Escaped(nasty).to_string(), clean);
    }

    #[test]
    fn text_is_shortened_by_characters_not_bytes() {
        assert_eq!(shortened("ünïcödé", 7), "ünïcödé");
        assert_eq!(shortened("ünïcödé ", 5), "ünïc…");
    }
}
