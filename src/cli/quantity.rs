//! Spans of time, levels, addresses and counts, as people write and read them.

use std::time::Duration;

use crate::client::Level;
use crate::limits;

/// Units of time, the longest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Bytes for people, in binary units.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let scale = (bytes.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
    let digits = usize::from(scale > 0);
    format!("{:.digits$} {}", bytes as f64 / (1_u64 << (10 * scale)) as f64, UNITS[scale])
}

/// Reads `500ms`, `2s`, `10m`, `1h` or `1d`; above zero.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let millis = unit.and_then(|(_, ms)| number.parse::<u64>().ok()?.checked_mul(*ms));
    match millis {
        Some(0) => Err("a span of time is above zero".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err("write a number and its unit: 500ms, 2s, 10m, 1h or 1d".to_owned()),
    }
}

/// As [`parse_span`], for the time a request may take.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_millis(limits::BUDGET_MS_MAX.into());
    parse_span(text).and_then(
        |span| {
            if span <= longest { Ok(span) } else { Err("at most 2m".to_owned()) }
        },
    )
}

/// A span of whole milliseconds, exactly, as [`parse_span`] reads it.
pub(super) fn exact_span(millis: u64) -> String {
    let unit = UNITS.iter().find(|(_, ms)| millis.is_multiple_of(*ms) && millis > 0);
    unit.map_or_else(|| format!("{millis}ms"), |(name, ms)| format!("{}{name}", millis / ms))
}

/// A span by its largest unit, for a table: `3m` for 200 seconds.
pub(super) fn rough_span(millis: u64) -> String {
    let unit = UNITS.iter().find(|(_, ms)| millis >= *ms);
    unit.map_or_else(|| "0ms".to_owned(), |(name, ms)| format!("{}{name}", millis / ms))
}

/// Microseconds, to three digits.
pub(super) fn micros(micros: u32) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", f64::from(micros) / 1e3),
        _ => format!("{:.1} s", f64::from(micros) / 1e6),
    }
}

/// Reads `one`, `quorum`, `all` or a number of replicas.
pub(super) fn parse_level(text: &str) -> Result<Level, String> {
    let count = text.parse().ok().filter(|count| (1..=limits::REPLICAS_MAX).contains(count));
    match (text, count) {
        ("one", _) => Ok(Level::Count(1)),
        ("quorum", _) => Ok(Level::Quorum),
        ("all", _) => Ok(Level::All),
        (_, Some(count)) => Ok(Level::Count(count)),
        _ => Err(format!("write one, quorum, all or a number from 1 to {}", limits::REPLICAS_MAX)),
    }
}

/// A level as [`parse_level`] reads it.
pub(super) fn level(level: Level) -> String {
    match level {
        Level::Default => "default".to_owned(),
        Level::Count(count) => count.to_string(),
        Level::Quorum => "quorum".to_owned(),
        Level::All => "all".to_owned(),
    }
}

/// Reads the mark of a plan.
pub(super) fn parse_mark(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "`ringdove plan` shows it: 16 digits".to_owned())
}

/// Checks that an address is `host:port`.
pub(super) fn parse_address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse::<u16>().ok()?;
        (!host.is_empty() && port > 0).then_some(port)
    });
    match port {
        Some(_) => Ok(text.to_owned()),
        None => Err("an address is HOST:PORT, as in 127.0.0.1:7400".to_owned()),
    }
}

/// A part of a whole in percent, for people.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

/// `1 replica`, `2 replicas`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_and_those_without_a_unit_are_refused() {
        for text in ["1ms", "500ms", "2s", "90s", "10m", "1h", "7d"] {
            let span = parse_span(text).unwrap();
            assert_eq!(exact_span(span.as_millis() as u64), text);
        }
        for text in ["", "2", "s", "2 s", "-2s", "1.5s", "2S", "0s", "99999999999999999d"] {
            assert!(parse_span(text).is_err(), "{text:?}");
        }
        assert!(parse_timeout("2m").is_ok() && parse_timeout("121s").is_err());
        assert_eq!((rough_span(200_000), rough_span(0)), ("3m".to_owned(), "0ms".to_owned()));
    }

    #[test]
    fn levels_read_back_and_zero_is_none() {
        for text in ["quorum", "all", "1", "13"] {
            assert_eq!(level(parse_level(text).unwrap()), text);
        }
        assert_eq!(parse_level("one"), Ok(Level::Count(1)));
        for text in ["", "0", "14", "256", "Quorum", "-1"] {
            assert!(parse_level(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_names_a_host_and_a_port() {
        for text in ["127.0.0.1:7400", "[::1]:7400", "node-1.example:1"] {
            assert!(parse_address(text).is_ok(), "{text:?}");
        }
        for text in ["", "7400", ":7400", "host", "host:0", "host:70000", "http://host"] {
            assert!(parse_address(text).is_err(), "{text:?}");
        }
    }
}
