//! Patterns against a model that follows the definition and tries everything.

use ringdove::random::Random;
use ringdove::resp::glob::{PATTERN_BYTES, matches};

/// What a pattern means, by recursion: exponential, and easy to believe.
fn model(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| model(rest, &name[skip..])),
        (_, []) => false,
        ([b'?', rest @ ..], [_, behind @ ..]) => model(rest, behind),
        ([b'[', rest @ ..], [byte, behind @ ..]) => {
            let (rest, members, negated) = class(rest);
            members.contains(byte) != negated && model(rest, behind)
        }
        ([b'\\', literal, rest @ ..], [byte, behind @ ..])
        | ([literal, rest @ ..], [byte, behind @ ..]) => literal == byte && model(rest, behind),
    }
}

/// The members of a class written out; what is behind it.
fn class(pattern: &[u8]) -> (&[u8], Vec<u8>, bool) {
    let negated = pattern.starts_with(b"^");
    let mut rest = &pattern[usize::from(negated)..];
    let mut members = Vec::new();
    loop {
        rest = match rest {
            [] => return (rest, members, negated),
            [b']', behind @ ..] => return (behind, members, negated),
            [b'\\', literal, behind @ ..] => {
                members.push(*literal);
                behind
            }
            [a, b'-', b, behind @ ..] => {
                members.extend(*a..=*b);
                members.extend(*b..=*a);
                behind
            }
            [literal, behind @ ..] => {
                members.push(*literal);
                behind
            }
        };
    }
}

#[test]
fn patterns_mean_what_they_mean_in_redis() {
    for (pattern, yes, no) in [
        ("", "", "a"),
        ("h?llo", "hello", "hllo"),
        ("h*llo", "heeeello", "hell"),
        ("h[ae]llo", "hallo", "hillo"),
        ("h[^e]llo", "hallo", "hello"),
        ("h[a-b]llo", "hbllo", "hcllo"),
        ("h[b-a]llo", "hallo", "hcllo"),
        ("user:*:cart", "user:7:cart", "user:7:cart:8"),
        ("a\\*b", "a*b", "axb"),
        ("[\\]]", "]", "\\"),
        ("[abc", "b", "d"),
        ("a\\", "a\\", "a"),
        ("*a*b*", "xaxbx", "xbxax"),
    ] {
        assert!(matches(pattern.as_bytes(), yes.as_bytes()), "{pattern} {yes}");
        assert!(!matches(pattern.as_bytes(), no.as_bytes()), "{pattern} {no}");
    }
    assert!(matches(b"*", b"") && matches(b"**", b"\xff\0"));
    assert!(!matches(b"[]", b"a"), "an empty class has no members");
    assert!(matches(b"[^]", b"a"), "and its complement has all");
}

#[test]
fn every_short_pattern_agrees_with_the_model() {
    const LETTERS: &[u8] = b"ab*?[]^-\\";
    let names: Vec<Vec<u8>> = (0..=3).flat_map(|length| strings(b"ab-]", length)).collect();
    for length in 0..=4 {
        for pattern in strings(LETTERS, length) {
            for name in &names {
                let (ours, expected) = (matches(&pattern, name), model(&pattern, name));
                assert_eq!(ours, expected, "{} {}", pattern.escape_ascii(), name.escape_ascii());
            }
        }
    }
}

/// All strings of `length` over `letters`.
fn strings(letters: &[u8], length: usize) -> Vec<Vec<u8>> {
    let shorter = match length {
        0 => return vec![vec![]],
        _ => strings(letters, length - 1),
    };
    let longer = |s: &Vec<u8>| letters.iter().map(|l| [s, &[*l][..]].concat()).collect::<Vec<_>>();
    shorter.iter().flat_map(longer).collect()
}

#[test]
fn random_longer_patterns_agree_with_the_model() {
    let mut random = Random::new(2);
    let mut string = |letters: &[u8], most: u64| -> Vec<u8> {
        let length = random.below(most);
        (0..length).map(|_| letters[random.below(letters.len() as u64) as usize]).collect()
    };
    for _ in 0..100_000 {
        let (pattern, name) = (string(b"aab**?[]^-\\", 12), string(b"aab-", 12));
        assert_eq!(matches(&pattern, &name), model(&pattern, &name), "{pattern:?} {name:?}");
    }
}

#[test]
fn the_worst_pattern_ends_on_the_worst_name() {
    // 2^80 steps for the model; a few million here.
    let pattern = [b"*a".repeat(PATTERN_BYTES / 2 - 1), b"*b".to_vec()].concat();
    assert!(!matches(&pattern, &vec![b'a'; 64 * 1024]));
    let pattern = [b"*".to_vec(), vec![b'a'; PATTERN_BYTES - 2], b"b".to_vec()].concat();
    assert!(!matches(&pattern, &vec![b'a'; 64 * 1024]));
}
