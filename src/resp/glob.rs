//! Patterns for key names, as Redis reads them: `*`, `?`, `[a-z]`, `[^a]` and `\` to take the
//! next character as it is.
//!
//! A pattern comes from outside and is run against every key of a page, so its cost is bounded:
//! when a piece behind a `*` fails, only the *last* `*` takes one byte more and the piece is tried
//! again. Earlier stars never need to move, since whatever they could skip the last one can skip
//! too. That is at most (length of the name) × (length of the pattern) steps, without recursion.

/// Longest pattern. Together with keys of 4 KiB it bounds one match at a million steps, a
/// millisecond, for the worst pattern against the worst key.
pub const PATTERN_BYTES: usize = 256;

/// What every name that matches begins with.
#[must_use]
pub fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let special = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    &pattern[..special.unwrap_or(pattern.len())]
}

/// Whether all of `name` matches `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on after a failure: behind the last star, and one byte further in the name.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if n == name.len() {
            // Bytes of a name only run out: no star can help what is left of the pattern.
            return p == pattern.len();
        }
        match step(&pattern[p..], name[n]) {
            Some(used) => {
                p += used;
                n += 1;
            }
            None => match &mut retry {
                Some((behind_star, from)) => {
                    *from += 1;
                    (p, n) = (*behind_star, *from);
                }
                None => return false,
            },
        }
    }
}

/// Matches one byte against the first element of `pattern`, which is no star. How many bytes of
/// the pattern that element has, or `None` if it does not match.
fn step(pattern: &[u8], byte: u8) -> Option<usize> {
    let (used, matched) = match pattern {
        [] => (0, false),
        [b'?', ..] => (1, true),
        [b'[', class @ ..] => {
            let (used, matched) = step_class(class, byte);
            (used + 1, matched)
        }
        [b'\\', literal, ..] => (2, *literal == byte),
        [literal, ..] => (1, *literal == byte),
    };
    matched.then_some(used)
}

/// The same for what stands behind a `[`. A class that is not closed ends with the pattern; the
/// `]` of `[a-]` is the end of a range. Both as Redis has it.
fn step_class(class: &[u8], byte: u8) -> (usize, bool) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match &class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                found |= *literal == byte;
                at += 2;
            }
            [a, b'-', b, ..] => {
                found |= (*a.min(b)..=*a.max(b)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
        }
    }
    (at, found != negated)
}
