use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::bucket::{Zone, apart, seconds};
use super::reason::between;
use super::{Decision, Entry, Miss, Period, Reason, RetentionPolicy};
use crate::{Error, ErrorKind, Result};

/// Grandfather, father, son: one backup for each of the last hours, days, weeks, months, years.
///
/// The newest backup of a bucket survives, or the oldest if [asked](Self::keep_oldest). Only
/// buckets with a backup count, so that a month without backups costs none of the older ones,
/// unless [calendar](Self::by_calendar) buckets are asked for. Buckets are those of a
/// [zone](Self::in_zone), UTC by default.
#[derive(Clone, Debug)]
pub struct Gfs {
    counts: Counts,
    zone: Zone,
    oldest: bool,
    calendar: bool,
}

/// How many buckets of each length keep a backup; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

impl Counts {
    fn used(self) -> impl Iterator<Item = (Period, u32)> {
        [
            (Period::Hourly, self.hourly),
            (Period::Daily, self.daily),
            (Period::Weekly, self.weekly),
            (Period::Monthly, self.monthly),
            (Period::Yearly, self.yearly),
        ]
        .into_iter()
        .filter(|(_, of)| *of > 0)
    }
}

impl Gfs {
    /// Keeps the newest of so many non-empty buckets in UTC. All zero is
    /// [`Invalid`](ErrorKind::Invalid): it would keep nothing.
    pub fn new(counts: Counts) -> Result<Self> {
        if counts == Counts::default() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "retention keeps nothing: all of hourly, daily, weekly, monthly and yearly are 0",
            ));
        }
        Ok(Self {
            counts,
            zone: Zone::UTC,
            oldest: false,
            calendar: false,
        })
    }

    /// Takes hours, days, weeks, months and years from this IANA time zone (`Europe/Berlin`).
    /// One that this machine does not know is [`Invalid`](ErrorKind::Invalid).
    pub fn in_zone(mut self, name: &str) -> Result<Self> {
        self.zone = Zone::named(name)?;
        Ok(self)
    }

    /// Keeps the oldest backup of each bucket instead of the newest. Buckets are then counted
    /// from the latest date.
    #[must_use]
    pub fn keep_oldest(mut self) -> Self {
        self.oldest = true;
        self
    }

    /// Counts calendar buckets back from the newest backup's own, whether or not they hold
    /// backups.
    #[must_use]
    pub fn by_calendar(mut self) -> Self {
        self.calendar = true;
        self
    }

    /// The buckets that keep a backup: rank and survivor by number.
    fn slots(&self, period: Period, of: u32, runs: &[Run]) -> HashMap<i64, Slot> {
        let mut keys: Vec<i64> = runs.iter().map(|run| run.key).collect();
        if self.oldest {
            // By date, which no deletion changes. Counted from each bucket's highest sequence, a
            // bucket could lose the backup that gave it its place.
            keys.sort_unstable_by(|a, b| b.cmp(a));
        }
        let mut slots = HashMap::new();
        for key in keys {
            let before = if self.calendar {
                apart(period, runs[0].key, key)
            } else {
                slots.len() as u64
            };
            if let Some(before) = u32::try_from(before).ok().filter(|n| *n < of) {
                let rank = before + 1;
                slots.entry(key).or_insert(Slot { rank, survivor: 0 });
            }
        }
        let mut place = |run: &Run, survivor| {
            if let Some(slot) = slots.get_mut(&run.key) {
                slot.survivor = survivor;
            }
        };
        if self.oldest {
            runs.iter().for_each(|run| place(run, run.oldest));
        } else {
            runs.iter().rev().for_each(|run| place(run, run.newest));
        }
        slots
    }
}

/// Splits a history into runs.
fn runs(keys: impl Iterator<Item = i64>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (i, key) in keys.enumerate() {
        match runs.last_mut() {
            Some(run) if run.key == key => run.oldest = i,
            _ => runs.push(Run {
                key,
                newest: i,
                oldest: i,
            }),
        }
    }
    runs
}

/// Neighbours in the history that share a bucket.
struct Run {
    key: i64,
    newest: usize,
    oldest: usize,
}

struct Slot {
    rank: u32,
    survivor: usize,
}

/// The slot that an entry came nearest to, and who has it.
#[derive(Clone, Copy)]
struct Near {
    distance: Duration,
    reason: (Period, u32, u32),
    by: usize,
}

impl RetentionPolicy for Gfs {
    fn keep(&self, history: &[&Entry], _: SystemTime) -> Vec<Decision> {
        let places = self.zone.locate(history.iter().map(|e| seconds(e.time)));
        let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); history.len()];
        let mut nearest: Vec<Option<Near>> = vec![None; history.len()];
        for (period, of) in self.counts.used() {
            let runs = runs(places.iter().map(|place| place.bucket(period)));
            let slots = self.slots(period, of, &runs);
            let Some(last) = slots.values().max_by_key(|s| (s.rank, s.survivor)) else {
                continue;
            };
            for run in &runs {
                let Slot { rank, survivor } = *slots.get(&run.key).unwrap_or(last);
                for entry in run.newest..=run.oldest {
                    if entry == survivor {
                        reasons[entry].push(Reason::Bucket { period, rank, of });
                        continue;
                    }
                    let distance = between(history[entry].time, history[survivor].time);
                    if nearest[entry].is_none_or(|near| distance < near.distance) {
                        nearest[entry] = Some(Near {
                            distance,
                            reason: (period, rank, of),
                            by: survivor,
                        });
                    }
                }
            }
        }
        let decide = |(entry, (reasons, near)): (usize, (Vec<Reason>, Option<Near>))| Decision {
            entry,
            miss: near.filter(|_| reasons.is_empty()).map(|near| {
                let (period, rank, of) = near.reason;
                let reason = Reason::Bucket { period, rank, of };
                Miss::taken(reason, history[entry], history[near.by])
            }),
            reasons,
        };
        reasons
            .into_iter()
            .zip(nearest)
            .enumerate()
            .map(decide)
            .collect()
    }
}
