//! Numbers for people: as many digits as one can use, and a unit.
//!
//! What always holds: a share below one is never shown as 100 %, and one above nothing never as 0 %;
//! the space before a unit does not break.

/// The space between a number and its unit.
const GAP: char = '\u{a0}';

/// `1,234,567`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 write`, `2 writes`; the word is given for one.
pub(super) fn counted(value: u64, word: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{}{GAP}{word}{plural}", count(value))
}

/// A number for an axis, five characters or so: `250`, `2,500`, `12.5k`, `3M`, `1.8e19`.
pub(super) fn short(value: f64) -> String {
    for (limit, unit) in [(1e15, ""), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if value < limit {
            continue;
        }
        return match unit {
            "" => format!("{value:.1e}"),
            "k" => format!("{}k", trimmed(value / 1e3, 1)),
            _ => format!("{}{unit}", trimmed(value / limit, 1)),
        };
    }
    if value >= 1e3 { count(value.round() as u64) } else { trimmed(value, 3) }
}

/// A rate of requests: `2,512/s`, `0.4/s`.
pub(super) fn per_second(value: f64) -> String {
    if value >= 1e12 {
        format!("{}/s", short(value))
    } else if value >= 10.0 {
        format!("{}/s", count(value.round() as u64))
    } else {
        format!("{}/s", trimmed(value, 1))
    }
}

/// A share of 0 to 1: `100 %`, `99.98 %`, `41 %`, `0 %`.
pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let text = if value >= 100.0 {
        "100".to_owned()
    } else if value > 99.99 {
        "> 99.99".to_owned()
    } else if value >= 99.0 {
        // Downwards: 99.996 % is not 100 %.
        trimmed((value * 100.0).floor() / 100.0, 2)
    } else if value >= 1.0 {
        trimmed(value, 1)
    } else if value >= 0.01 {
        trimmed(value, 2)
    } else if value > 0.0 {
        "< 0.01".to_owned()
    } else {
        "0".to_owned()
    };
    format!("{text}{GAP}%").replace("> ", ">").replace("< ", "<")
}

/// A latency of so many microseconds: `830 µs`, `4.2 ms`, `1.3 s`.
pub(super) fn latency(us: f64) -> String {
    if us < 999.5 {
        format!("{}{GAP}µs", us.round())
    } else if us < 999_500.0 {
        format!("{}{GAP}ms", three_digits(us / 1e3))
    } else {
        span(us / 1e3)
    }
}

/// A time of so many milliseconds: `850 ms`, `4.2 s`, `1 min 12 s`, `2 h 3 min`.
pub(super) fn span(ms: f64) -> String {
    let seconds = (ms / 1e3).round();
    if ms < 999.5 {
        format!("{}{GAP}ms", ms.round())
    } else if seconds < 100.0 {
        format!("{}{GAP}s", three_digits(ms / 1e3))
    } else if seconds < 3600.0 {
        two_units(seconds, 60.0, "min", "s")
    } else if seconds < 1e8 {
        two_units((seconds / 60.0).round(), 60.0, "h", "min")
    } else {
        format!("{}{GAP}s", short(seconds))
    }
}

/// A point on the time axis: `20 s`, `5 min`, `2.5 h`.
pub(super) fn tick(seconds: f64) -> String {
    if seconds < 300.0 {
        format!("{}{GAP}s", trimmed(seconds, 1))
    } else if seconds < 3600.0 {
        format!("{}{GAP}min", trimmed(seconds / 60.0, 1))
    } else {
        format!("{}{GAP}h", short((seconds / 36.0).round() / 100.0))
    }
}

/// A moment: `21 November 2026, 13:02 UTC`.
pub(super) fn moment(ms: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (days, minute) = (ms / 86_400_000, ms / 60_000 % 1440);
    let (year, month, day) = civil(days);
    let month = MONTHS[month as usize - 1];
    format!("{day}{GAP}{month} {year}, {:02}:{:02}{GAP}UTC", minute / 60, minute % 60)
}

/// Year, month from 1 and day from 1 of a day since 1970. Counted in years that begin in March, so
/// that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn two_units(total: f64, of: f64, large: &str, small: &str) -> String {
    let (whole, rest) = ((total / of).floor(), total % of);
    if rest == 0.0 {
        return format!("{whole}{GAP}{large}");
    }
    format!("{whole}{GAP}{large}{GAP}{rest}{GAP}{small}")
}

fn three_digits(value: f64) -> String {
    let places = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    trimmed(value, places)
}

/// So many decimal places, without zeros at the end.
pub(super) fn trimmed(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    if !text.contains('.') {
        return text;
    }
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: String) -> String {
        text.replace(GAP, " ")
    }

    #[test]
    fn a_share_is_never_rounded_to_all_or_nothing() {
        let shown = [1.0, 0.999_999, 0.999_78, 0.999, 0.412, 0.000_2, 0.000_000_1, 0.0]
            .map(|share| plain(percent(share)));
        let expected =
            ["100 %", ">99.99 %", "99.97 %", "99.9 %", "41.2 %", "0.02 %", "<0.01 %", "0 %"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn counts_have_commas_and_axes_have_prefixes() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        let shown = [0.0, 0.5, 2500.0, 12_500.0, 3e6, 1.8e19].map(short);
        assert_eq!(shown, ["0", "0.5", "2,500", "12.5k", "3M", "1.8e19"]);
    }

    #[test]
    fn spans_have_the_unit_that_one_would_say() {
        let shown =
            [850.0, 4230.0, 99_400.0, 132_000.0, 120_000.0, 7_380_000.0].map(|ms| plain(span(ms)));
        assert_eq!(shown, ["850 ms", "4.23 s", "99.4 s", "2 min 12 s", "2 min", "2 h 3 min"]);
        let shown = [830.0, 4_200.0, 1_300_000.0].map(|us| plain(latency(us)));
        assert_eq!(shown, ["830 µs", "4.2 ms", "1.3 s"]);
    }

    #[test]
    fn moments_follow_the_calendar() {
        assert_eq!(plain(moment(0)), "1 January 1970, 00:00 UTC");
        assert_eq!(plain(moment(1_709_210_096_789)), "29 February 2024, 12:34 UTC");
    }

    #[test]
    fn the_largest_numbers_have_a_form_too() {
        for text in [short(u64::MAX as f64), span(u64::MAX as f64), latency(u64::MAX as f64)] {
            assert!(text.chars().count() < 12, "{text}");
        }
        assert!(moment(u64::MAX).ends_with("UTC"));
    }
}
