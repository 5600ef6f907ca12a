//! From an instant to the hour, day, week, month and year of a zone that it lies in.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::Period;
use crate::{Error, ErrorKind, Result};

/// A time zone, checked when it was named.
#[derive(Clone, Debug)]
pub(super) struct Zone(TimeZone);

impl Zone {
    pub(super) const UTC: Self = Self(TimeZone::UTC);

    /// The zone of an IANA name.
    pub(super) fn named(name: &str) -> Result<Self> {
        match TimeZone::get(name) {
            Ok(zone) if !zone.is_unknown() => Ok(Self(zone)),
            Ok(_) => Err(unknown(name)),
            Err(e) => Err(unknown(name).with_source(e)),
        }
    }

    /// When a day, counted from 1970, begins.
    pub(super) fn midnight(&self, day: i64) -> SystemTime {
        let begins = || {
            let noon = Timestamp::from_second(day.checked_mul(86_400)? + 43_200).ok()?;
            let date = Offset::UTC.to_datetime(noon).date();
            Some(date.to_zoned(self.0.clone()).ok()?.timestamp())
        };
        begins().unwrap_or(Timestamp::MIN).into()
    }

    /// Where each instant lies.
    pub(super) fn locate(&self, times: impl Iterator<Item = SystemTime>) -> Vec<Place> {
        let mut last: Option<Place> = None;
        times
            .map(|time| {
                let second = seconds(time);
                let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
                let offset = self.0.to_offset(time);
                let local = second + i64::from(offset.seconds());
                let day = local.div_euclid(86_400);
                let (year, month) = match last {
                    // Histories are sorted: the calendar is asked once a day.
                    Some(last) if last.day == day => (last.year, last.month),
                    _ => {
                        let date = offset.to_datetime(time).date();
                        (i64::from(date.year()), i64::from(date.month()))
                    }
                };
                let place = Place {
                    second,
                    hour: second - local.rem_euclid(3_600),
                    day,
                    month,
                    year,
                };
                last = Some(place);
                place
            })
            .collect()
    }
}

fn unknown(name: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!(
            "time zone {name:?} is not in this machine's time zone data; names look like \
             \"Europe/Berlin\""
        ),
    )
}

/// Where an instant lies in a zone.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Seconds since 1970.
    pub(super) second: i64,
    /// The instant at which its hour began: two for the hour that comes twice.
    hour: i64,
    /// Days since 1970.
    day: i64,
    month: i64,
    year: i64,
}

impl Place {
    /// A number for the bucket: equal within one, growing with time, and [`apart`] tells how far
    /// two are from each other.
    pub(super) fn bucket(self, period: Period) -> i64 {
        match period {
            Period::Hourly => self.hour,
            Period::Daily => self.day,
            // Day 0 was a Thursday, so Monday-to-Sunday weeks change four days after it. Counting
            // them through is what the ISO year is for.
            Period::Weekly => (self.day + 3).div_euclid(7),
            Period::Monthly => self.year * 12 + self.month,
            Period::Yearly => self.year,
        }
    }
}

/// How many buckets `older` lies before `newer`; 0 if it lies after it.
pub(super) fn apart(period: Period, newer: i64, older: i64) -> u64 {
    let distance = u64::try_from(newer - older).unwrap_or(0);
    match period {
        // A zone whose summer is half an hour ahead has an hour of half the length.
        Period::Hourly => distance.div_ceil(3_600),
        _ => distance,
    }
}

/// Whole seconds since 1970, rounded down, within the years that a calendar can name.
fn seconds(time: SystemTime) -> i64 {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let up = before.duration() + Duration::from_nanos(999_999_999);
            -i64::try_from(up.as_secs()).unwrap_or(i64::MAX)
        }
    };
    seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(zone: &str, time: &str, period: Period) -> i64 {
        let time: Timestamp = time.parse().unwrap();
        let zone = Zone::named(zone).unwrap();
        zone.locate(std::iter::once(time.into()))[0].bucket(period)
    }

    #[test]
    fn weeks_are_iso_across_the_new_year() {
        let week = |day: &str| bucket("UTC", &format!("{day}T12:00:00Z"), Period::Weekly);
        assert_eq!(week("2025-12-30"), week("2026-01-02"));
        assert_ne!(week("2024-01-03"), week("2024-12-30"));
        assert_eq!(week("2024-12-30"), week("2025-01-05"));
        assert_eq!(week("2025-01-06"), week("2025-01-05") + 1);
        assert_eq!(week("1969-12-29"), week("1970-01-04"));
    }

    #[test]
    fn a_day_of_23_or_25_hours_is_one_bucket() {
        for (first, last, next) in [
            (
                "2026-03-28T23:00:00Z",
                "2026-03-29T21:59:59Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                "2026-10-24T22:00:00Z",
                "2026-10-25T22:59:59Z",
                "2026-10-25T23:00:00Z",
            ),
        ] {
            let day = |time| bucket("Europe/Berlin", time, Period::Daily);
            assert_eq!(day(first), day(last));
            assert_eq!(day(next), day(last) + 1);
        }
    }

    #[test]
    fn the_hour_that_comes_twice_is_two_buckets() {
        let hour = |zone, time| bucket(zone, time, Period::Hourly);
        let (summer, winter) = (
            hour("Europe/Berlin", "2026-10-25T00:30:00Z"),
            hour("Europe/Berlin", "2026-10-25T01:30:00Z"),
        );
        assert_eq!(apart(Period::Hourly, winter, summer), 1);
        // Where summer is half an hour ahead, 01:30 to 02:00 comes twice.
        let (first, second) = (
            hour("Australia/Lord_Howe", "2026-04-04T14:45:00Z"),
            hour("Australia/Lord_Howe", "2026-04-04T15:15:00Z"),
        );
        assert_eq!(apart(Period::Hourly, second, first), 1);
    }

    #[test]
    fn hours_begin_where_the_zone_begins_them() {
        let hour = |time| bucket("Asia/Kathmandu", time, Period::Hourly);
        assert_eq!(hour("2026-06-01T10:15:00Z"), hour("2026-06-01T11:14:59Z"));
        assert_ne!(hour("2026-06-01T10:14:59Z"), hour("2026-06-01T10:15:00Z"));
    }

    #[test]
    fn every_system_time_has_buckets() {
        let nano = Duration::from_nanos(1);
        assert_eq!(seconds(SystemTime::UNIX_EPOCH - nano), -1);
        for time in [
            SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX as u64),
            SystemTime::UNIX_EPOCH - Duration::from_secs(i64::MAX as u64),
        ] {
            for zone in ["UTC", "Europe/Berlin", "Pacific/Kiritimati"] {
                let zone = Zone::named(zone).unwrap();
                let place = zone.locate(std::iter::once(time))[0];
                assert!(place.bucket(Period::Yearly).abs() < 10_001);
                let midnight = zone.locate(std::iter::once(zone.midnight(place.day)))[0];
                assert!(midnight.second <= place.second);
            }
        }
    }

    #[test]
    fn an_unknown_zone_is_refused() {
        for name in ["", "Europe/Berlln", "Etc/Unknown", "+02:00"] {
            let error = Zone::named(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
        }
    }
}
