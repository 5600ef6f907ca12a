//! The small policies.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::bucket::Zone;
use super::{Decision, Entry, Period, Reason, RetentionPolicy, Span, Than};
use crate::{Error, ErrorKind, Result};

/// Keeps the last backups, by sequence.
#[derive(Clone, Copy, Debug)]
pub struct KeepLast(u32);

impl KeepLast {
    /// Keeps the last `count`. 0 is [`Invalid`](ErrorKind::Invalid).
    pub fn new(count: u32) -> Result<Self> {
        at_least_one("last", count).map(Self)
    }
}

impl RetentionPolicy for KeepLast {
    fn keep(&self, history: &[&Entry], _: SystemTime) -> Vec<Decision> {
        let of = self.0;
        let last = history
            .len()
            .saturating_sub(1)
            .min(usize::try_from(of - 1).unwrap_or(usize::MAX));
        let decide = |entry| {
            if entry > last {
                return Decision::Miss {
                    entry,
                    reason: Reason::Last { rank: of, of },
                    than: Than::Entry(last),
                };
            }
            Decision::Keep {
                entry,
                reason: Reason::Last {
                    rank: u32::try_from(entry + 1).unwrap_or(of),
                    of,
                },
            }
        };
        (0..history.len()).map(decide).collect()
    }
}

/// Keeps everything that is at most so many days older than the newest backup.
///
/// Counted in whole days of a [zone](Self::in_zone), UTC by default: with 7, everything of the
/// newest backup's day and of the 7 days before it stays, at whatever hour it was made.
#[derive(Clone, Debug)]
pub struct KeepDays {
    days: u32,
    zone: Zone,
}

impl KeepDays {
    /// Keeps everything that is at most `days` older. 0 is [`Invalid`](ErrorKind::Invalid).
    pub fn new(days: u32) -> Result<Self> {
        Ok(Self {
            days: at_least_one("days", days)?,
            zone: Zone::UTC,
        })
    }

    /// Takes days from this IANA time zone (`Europe/Berlin`). One that this machine does not know
    /// is [`Invalid`](ErrorKind::Invalid).
    pub fn in_zone(mut self, name: &str) -> Result<Self> {
        self.zone = Zone::named(name)?;
        Ok(self)
    }
}

impl RetentionPolicy for KeepDays {
    fn keep(&self, history: &[&Entry], _: SystemTime) -> Vec<Decision> {
        let of = self.days;
        let days: Vec<i64> = self
            .zone
            .locate(history.iter().map(|entry| entry.time))
            .into_iter()
            .map(|place| place.bucket(Period::Daily))
            .collect();
        let Some(today) = days.first() else {
            return Vec::new();
        };
        let begins = self.zone.midnight(today - i64::from(of));
        let decide = |(entry, day): (usize, &i64)| {
            let age = u32::try_from((today - day).max(0)).unwrap_or(u32::MAX);
            if age > of {
                return Decision::Miss {
                    entry,
                    reason: Reason::Days { age: of, of },
                    than: Than::Time(begins),
                };
            }
            let reason = Reason::Days { age, of };
            Decision::Keep { entry, reason }
        };
        days.iter().enumerate().map(decide).collect()
    }
}

/// Keeps everything that is at most so much older than the newest backup, to the second.
#[derive(Clone, Copy, Debug)]
pub struct Within(Span);

impl Within {
    /// Keeps everything that is at most `length` older. Nothing is [`Invalid`](ErrorKind::Invalid).
    pub fn new(length: impl Into<Span>) -> Result<Self> {
        more_than_nothing("within", length.into()).map(Self)
    }
}

impl RetentionPolicy for Within {
    fn keep(&self, history: &[&Entry], _: SystemTime) -> Vec<Decision> {
        let begins = beginning(history, self.0);
        let reason = || Reason::Within(self.0);
        let decide = |(entry, backup): (usize, &&Entry)| match begins {
            Some(begins) if backup.time < begins => Decision::Miss {
                entry,
                reason: reason(),
                than: Than::Time(begins),
            },
            _ => Decision::Keep {
                entry,
                reason: reason(),
            },
        };
        history.iter().enumerate().map(decide).collect()
    }
}

/// Keeps what point-in-time recovery to any moment of a window needs: every backup that began in
/// it, and the newest that had ended when it began, from which a log is played forward.
///
/// The window ends at the newest backup. Logs older than the oldest kept backup are not needed.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryWindow(Span);

impl RecoveryWindow {
    /// A window of this length. Nothing is [`Invalid`](ErrorKind::Invalid).
    pub fn new(length: impl Into<Span>) -> Result<Self> {
        more_than_nothing("window", length.into()).map(Self)
    }
}

impl RetentionPolicy for RecoveryWindow {
    fn keep(&self, history: &[&Entry], _: SystemTime) -> Vec<Decision> {
        let begins = beginning(history, self.0);
        let before = |entry: &Entry| begins.is_some_and(|begins| entry.finished <= begins);
        let base = (0..history.len())
            .filter(|i| before(history[*i]))
            .max_by_key(|i| (history[*i].finished, history[*i].sequence, &history[*i].id));
        let decide = |(entry, backup): (usize, &&Entry)| {
            let reason = match base {
                Some(base) if before(backup) => {
                    let reason = Reason::WindowBase(self.0);
                    if entry != base {
                        let than = Than::Entry(base);
                        return Decision::Miss {
                            entry,
                            reason,
                            than,
                        };
                    }
                    reason
                }
                _ => Reason::Window(self.0),
            };
            Decision::Keep { entry, reason }
        };
        history.iter().enumerate().map(decide).collect()
    }
}

/// Keeps everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forever;

impl RetentionPolicy for Forever {
    fn keep(&self, history: &[&Entry], _: SystemTime) -> Vec<Decision> {
        (0..history.len())
            .map(|entry| Decision::Keep {
                entry,
                reason: Reason::Forever,
            })
            .collect()
    }
}

/// Keeps what any of several policies keeps, for all their reasons.
#[derive(Clone, Debug)]
pub struct Any(Vec<Arc<dyn RetentionPolicy>>);

impl Any {
    /// Joins policies. None at all is [`Invalid`](ErrorKind::Invalid).
    pub fn new(policies: Vec<Arc<dyn RetentionPolicy>>) -> Result<Self> {
        if policies.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "retention keeps nothing: no policy is given",
            ));
        }
        Ok(Self(policies))
    }
}

impl RetentionPolicy for Any {
    fn keep(&self, history: &[&Entry], now: SystemTime) -> Vec<Decision> {
        self.0
            .iter()
            .flat_map(|policy| policy.keep(history, now))
            .collect()
    }
}

/// So much before the newest backup; `None` before all time.
fn beginning(history: &[&Entry], length: Span) -> Option<SystemTime> {
    history.first()?.time.checked_sub(length.into())
}

fn at_least_one(name: &str, count: u32) -> Result<u32> {
    if count == 0 {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("retention `{name}` must be at least 1"),
        ));
    }
    Ok(count)
}

fn more_than_nothing(name: &str, length: Span) -> Result<Span> {
    if Duration::from(length).is_zero() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("retention `{name}` must be longer than nothing"),
        ));
    }
    Ok(length)
}
