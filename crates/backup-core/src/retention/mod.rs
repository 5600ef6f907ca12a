//! Which backups to keep, and why: a pure function of a history, a policy and the time.
//!
//! [`decide`] takes the backups of one job in one sink and says of *every* one of them whether it
//! stays and why, or goes and what it nearly stayed for. Dry run, prune, simulation and status
//! pages all call it, so that they cannot disagree. A policy only names what to keep; what no
//! policy may delete is added here, and a plan that looks like an accident is refused.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use backup_core::retention::{Counts, Entry, Gfs, Limits, decide};
//! # fn main() -> backup_core::Result<()> {
//! let policy = Gfs::new(Counts { daily: 2, weekly: 4, ..Counts::default() })?
//!     .in_zone("Europe/Berlin")?;
//! let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_262_400);
//! let history = (0..5).map(|day| {
//!     let time = noon - Duration::from_secs(86_400 * (4 - day));
//!     Ok(Entry::new(backup_core::Id::new(time)?, day, time))
//! }).collect::<backup_core::Result<Vec<_>>>()?;
//!
//! // More than a fifth of all at once must be allowed by somebody who has read the plan.
//! let plan = decide(&policy, &history, noon, &Limits::default().max_deletes(3));
//! assert_eq!(plan.entries.len(), 5);
//! assert_eq!(plan.deletable()?.len(), 3);
//! assert_eq!(plan.entries[0].reasons()[1].to_string(), "daily 1/2");
//! # Ok(())
//! # }
//! ```
//!
//! # Whose clock
//!
//! No clock can make the newest backup look old: *newest* always means the highest sequence, then
//! the highest id. Only the name of a bucket (which day, which week) comes from the time that the
//! writing host put into the signed manifest. In detail, when that clock was wrong:
//!
//! - **Ahead of us by more than [`MAX_SKEW`]**: the backup is kept, warned about, and fills no
//!   slot until its time has come.
//! - **Set back**, as on a board that boots in 1970: warned about. Buckets are ranked by their
//!   highest sequence, so that the days on which backups were made last stay, whatever they are
//!   called; `within`, `days` and calendar counting begin at the newest backup's own time and so
//!   keep everything stamped later. Only where the *oldest* of a bucket survives are buckets
//!   ranked by date, since there the backup that gives a bucket its place may itself go.
//! - **Ours is wrong**: none of the policies here counts from `now`. Behind, and everything is in
//!   the future and stays; ahead, and the newest looks older than its schedule allows, which
//!   [`Limits`] refuses, as it does a difference from the sink's clock.

mod bucket;
mod decide;
mod entry;
mod gfs;
mod limits;
mod plan;
mod policies;
mod reason;
mod span;
mod spec;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

pub use decide::decide;
pub use entry::Entry;
pub use gfs::{Counts, Gfs};
pub use limits::{Limits, MAX_SKEW};
pub use plan::{Plan, Planned, Refusal, Verdict, Warning};
pub use policies::{Any, Forever, KeepDays, KeepLast, RecoveryWindow, Within};
pub use reason::{Miss, Period, Reason};
pub use span::Span;
pub use spec::PolicySpec;

/// Names what to keep and every reason why. What no policy names goes, unless a floor of
/// [`decide`] holds it.
///
/// Pure and total: the same arguments give the same answer, no input panics, nothing is read
/// from outside.
pub trait RetentionPolicy: Debug + Send + Sync + 'static {
    /// Speaks about any of `history`, in any order, as often as it likes.
    ///
    /// `history` holds complete backups only, none of them stamped in the future, the newest (by
    /// sequence, then id) first. So the first one is the anchor from which ages are counted, and
    /// nothing else can fill a slot. Counting from `now` instead would delete during an outage.
    fn keep(&self, history: &[&Entry], now: SystemTime) -> Vec<Decision>;
}

/// One thing that a policy says about one backup, named by its position in the history that the
/// policy was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep it. One reason each: a backup with several has several decisions.
    Keep {
        /// The backup.
        entry: usize,
        /// Why.
        reason: Reason,
    },
    /// No reason to keep it, but a near one. Of several the nearest is shown.
    Miss {
        /// The backup.
        entry: usize,
        /// What would have kept it, had it been
        reason: Reason,
        /// newer than this.
        than: Than,
    },
}

/// What a backup would have to be newer than; where the oldest survives, older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Than {
    /// The backup at this position, which has the place.
    Entry(usize),
    /// A time.
    Time(SystemTime),
}

impl<P: RetentionPolicy + ?Sized> RetentionPolicy for Arc<P> {
    fn keep(&self, history: &[&Entry], now: SystemTime) -> Vec<Decision> {
        (**self).keep(history, now)
    }
}

impl<P: RetentionPolicy + ?Sized> RetentionPolicy for Box<P> {
    fn keep(&self, history: &[&Entry], now: SystemTime) -> Vec<Decision> {
        (**self).keep(history, now)
    }
}
