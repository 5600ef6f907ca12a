//! Times as S3 writes them.

use std::time::{Duration, SystemTime};

use backup_core::Stamp;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// `2026-11-21T02:00:00.123Z`, in whole seconds: a header tells no more, and both must agree.
pub(crate) fn from_xml(text: &str) -> Option<SystemTime> {
    let time: Timestamp = text.parse().ok()?;
    Some(Stamp::from(SystemTime::from(time)).into())
}

/// `Sat, 21 Nov 2026 02:00:00 GMT`.
pub(crate) fn from_header(text: &str) -> Option<SystemTime> {
    let time = rfc2822::parse(text).ok()?;
    Some(time.timestamp().into())
}

/// The first whole second that is not before `time`: a lock never ends early.
pub(crate) fn round_up(time: SystemTime) -> SystemTime {
    let whole = SystemTime::from(Stamp::from(time));
    match whole < time {
        true => whole + Duration::from_secs(1),
        false => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_one_second_agree() {
        let header = from_header("Sat, 21 Nov 2026 02:00:00 GMT").unwrap();
        assert_eq!(from_xml("2026-11-21T02:00:00.987Z"), Some(header));
        assert_eq!(Stamp::from(header).to_string(), "2026-11-21T02:00:00Z");
    }

    #[test]
    fn a_lock_never_ends_early() {
        let whole = from_xml("2026-11-21T02:00:00Z").unwrap();
        assert_eq!(round_up(whole), whole);
        let after = whole + Duration::from_nanos(1);
        assert_eq!(round_up(after), whole + Duration::from_secs(1));
    }
}
