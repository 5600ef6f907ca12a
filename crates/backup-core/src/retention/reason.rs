use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::Span;
use crate::{Id, Stamp};

/// How long a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Period {
    /// Hours of the zone. The hour that a change of the clocks repeats is two.
    Hourly,
    /// Days of the zone, whether they have 23, 24 or 25 hours.
    Daily,
    /// ISO weeks: Monday to Sunday, also across the new year.
    Weekly,
    /// Months.
    Monthly,
    /// Years.
    Yearly,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

/// Why a backup stays. `Display` is a few words for people; serde writes the same text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The newest complete one: `latest`.
    Latest,
    /// The newest that was read back: `newest verified`.
    NewestVerified,
    /// The newest that a drill restored: `newest proven`.
    NewestProven,
    /// One of the last: `last 2/5`.
    Last {
        /// Counted from the newest, which is 1.
        rank: u32,
        /// How many the policy keeps.
        of: u32,
    },
    /// Survives in its bucket: `daily 3/7`.
    Bucket {
        /// How long the bucket is.
        period: Period,
        /// The bucket's place, counted from the newest, which is 1.
        rank: u32,
        /// How many the policy keeps.
        of: u32,
    },
    /// Not older than so many days: `days 2/14` is two days older than the newest.
    Days {
        /// Days before the newest backup's day.
        age: u32,
        /// How many days the policy reaches back.
        of: u32,
    },
    /// Not older than a length of time: `within 30d`.
    Within(Span),
    /// Nothing ever goes: `forever`.
    Forever,
    /// On hold: `held: audit 2026`.
    Held(String),
    /// The sink refuses to delete it before: `locked until 2026-12-01T00:00:00Z`.
    Locked(SystemTime),
    /// A kept incremental builds on it: `parent of 20261121T020000Z-1a2b3c4d`.
    ParentOf(Id),
    /// A kept backup cannot be restored without it: `needed by 20261121T020000Z-1a2b3c4d`.
    NeededBy(Id),
    /// A run that is still writing may build on it: `possible parent of a run in flight`.
    PossibleParent,
    /// It lies in the window of point-in-time recovery: `in the last 7d`.
    Window(Span),
    /// Point-in-time recovery to the window's beginning starts from it: `base of the last 7d`.
    WindowBase(Span),
    /// Its clock was ahead of ours: `stamped in the future`.
    Future,
    /// Two entries have its id, and nobody can say which one a deletion would hit: `not the only
    /// one of its id`.
    Ambiguous,
    /// In the words of another policy.
    Other(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::NewestVerified => f.write_str("newest verified"),
            Self::NewestProven => f.write_str("newest proven"),
            Self::Last { rank, of } => write!(f, "last {rank}/{of}"),
            Self::Bucket { period, rank, of } => write!(f, "{period} {rank}/{of}"),
            Self::Days { age, of } => write!(f, "days {age}/{of}"),
            Self::Within(span) => write!(f, "within {span}"),
            Self::Forever => f.write_str("forever"),
            Self::Held(why) => write!(f, "held: {why}"),
            Self::Locked(until) => write!(f, "locked until {}", Stamp::from(*until)),
            Self::ParentOf(id) => write!(f, "parent of {id}"),
            Self::NeededBy(id) => write!(f, "needed by {id}"),
            Self::PossibleParent => f.write_str("possible parent of a run in flight"),
            Self::Window(span) => write!(f, "in the last {span}"),
            Self::WindowBase(span) => write!(f, "base of the last {span}"),
            Self::Future => f.write_str("stamped in the future"),
            Self::Ambiguous => f.write_str("not the only one of its id"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a backup that goes would nearly have been kept for: `daily 3/7 went to
/// 20261121T020000Z-1a2b3c4d`, `within 30d begins at 2026-10-22T02:00:00Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Miss {
    /// Another backup has the place.
    Taken {
        /// The place.
        reason: Reason,
        /// Who has it.
        by: Id,
    },
    /// It is too old.
    TooOld {
        /// For what.
        reason: Reason,
        /// What is kept for it is not older than this.
        begins: SystemTime,
    },
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { reason, by } => write!(f, "{reason} went to {by}"),
            Self::TooOld { reason, begins } => {
                write!(f, "{reason} begins at {}", Stamp::from(*begins))
            }
        }
    }
}

impl Serialize for Miss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
