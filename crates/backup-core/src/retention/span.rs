use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// A length of time as configuration writes it: `90s`, `15m`, `36h`, `30d`, `12w`, `6mo`, `2y`.
///
/// A day has 24 hours, a month 31 days and a year 366, so that what is to be kept for a year is
/// never kept for less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

/// The name of each unit and its seconds, and whether `Display` uses it: weeks, months and years
/// are for writing; `84d` leaves nobody wondering.
const UNITS: [(&str, u64, bool); 7] = [
    ("y", 366 * 86_400, false),
    ("mo", 31 * 86_400, false),
    ("w", 7 * 86_400, false),
    ("d", 86_400, true),
    ("h", 3_600, true),
    ("m", 60, true),
    ("s", 1, true),
];

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let seconds = UNITS
            .iter()
            .find(|(name, ..)| *name == unit)
            .and_then(|(_, seconds, _)| number.parse::<u64>().ok()?.checked_mul(*seconds));
        match seconds {
            Some(seconds) => Ok(Self(Duration::from_secs(seconds))),
            None => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{text:?} is no length of time; write a whole number and one of s, m, h, d, \
                     w, mo, y: \"36h\", \"30d\""
                ),
            )),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// In the largest of days, hours, minutes and seconds that divides it; fractions of a second are
/// not shown.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (name, unit) = UNITS
            .iter()
            .filter(|(.., shown)| *shown)
            .find(|(_, unit, _)| seconds > 0 && seconds.is_multiple_of(*unit))
            .map_or(("s", 1), |(name, unit, _)| (*name, *unit));
        write!(f, "{}{name}", seconds / unit)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_every_unit_and_writes_a_plain_one() {
        for (text, shown) in [
            ("90s", "90s"),
            ("15m", "15m"),
            ("120m", "2h"),
            ("36h", "36h"),
            ("30d", "30d"),
            ("12w", "84d"),
            ("6mo", "186d"),
            ("2y", "732d"),
            ("0d", "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string(), shown);
            assert_eq!(shown.parse::<Span>().unwrap(), span);
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for bad in [
            "",
            "d",
            "30",
            "30 d",
            "-1d",
            "1.5d",
            "1d12h",
            "30D",
            "99999999999999999999d",
            "18446744073709551615y",
            "+3d",
            "٣d",
        ] {
            let error = bad.parse::<Span>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
        }
    }
}
