use std::collections::HashMap;
use std::time::SystemTime;

use super::bucket::{Place, Zone, apart};
use super::{Decision, Entry, Period, Reason, RetentionPolicy, Than};
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

    /// Finds the buckets that keep a backup.
    fn table(&self, period: Period, of: u32, places: &[Place]) -> Table {
        let mut runs: Vec<Run> = Vec::new();
        for (i, place) in places.iter().enumerate() {
            let key = place.bucket(period);
            match runs.last_mut() {
                Some(run) if run.key == key => run.oldest = i,
                _ => runs.push(Run {
                    key,
                    newest: i,
                    oldest: i,
                }),
            }
        }
        let mut keys: Vec<i64> = runs.iter().map(|run| run.key).collect();
        if self.oldest {
            // By date, which no deletion changes. Counted from each bucket's highest sequence, a
            // bucket could lose the backup that gave it its place.
            keys.sort_unstable_by(|a, b| b.cmp(a));
        }
        let most = usize::try_from(of).unwrap_or(usize::MAX);
        let mut slots = HashMap::with_capacity(runs.len().min(most));
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
        let mut place = |key, survivor| {
            if let Some(slot) = slots.get_mut(&key) {
                slot.survivor = survivor;
            }
        };
        if self.oldest {
            runs.iter().for_each(|run| place(run.key, run.oldest));
        } else {
            runs.iter().rev().for_each(|run| place(run.key, run.newest));
        }
        Table {
            period,
            of,
            last: slots.values().copied().max().unwrap_or_default(),
            slots,
        }
    }
}

/// Neighbours in the history that share a bucket.
struct Run {
    key: i64,
    newest: usize,
    oldest: usize,
}

/// A bucket that keeps a backup, and which one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    rank: u32,
    survivor: usize,
}

/// The buckets of one period that keep a backup.
struct Table {
    period: Period,
    of: u32,
    slots: HashMap<i64, Slot>,
    /// The one furthest back: what older ones miss.
    last: Slot,
}

impl Table {
    fn reason(&self, slot: Slot) -> Reason {
        Reason::Bucket {
            period: self.period,
            rank: slot.rank,
            of: self.of,
        }
    }
}

impl RetentionPolicy for Gfs {
    fn keep(&self, history: &[&Entry], _: SystemTime) -> Vec<Decision> {
        let places = self.zone.locate(history.iter().map(|entry| entry.time));
        let tables = self
            .counts
            .used()
            .map(|(period, of)| self.table(period, of, &places));
        let tables: Vec<Table> = tables.collect();
        let mut decisions = Vec::with_capacity(history.len());
        for (entry, place) in places.iter().enumerate() {
            let mut kept = false;
            let mut nearest: Option<(u64, &Table, Slot)> = None;
            for table in &tables {
                let slot = table.slots.get(&place.bucket(table.period));
                let slot = *slot.unwrap_or(&table.last);
                if slot.survivor == entry {
                    let reason = table.reason(slot);
                    decisions.push(Decision::Keep { entry, reason });
                    kept = true;
                    continue;
                }
                let distance = place.second.abs_diff(places[slot.survivor].second);
                if nearest.is_none_or(|(nearest, ..)| distance < nearest) {
                    nearest = Some((distance, table, slot));
                }
            }
            if let (false, Some((_, table, slot))) = (kept, nearest) {
                decisions.push(Decision::Miss {
                    entry,
                    reason: table.reason(slot),
                    than: Than::Entry(slot.survivor),
                });
            }
        }
        decisions
    }
}
