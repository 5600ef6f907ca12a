use std::time::{Duration, SystemTime};

use super::Span;

/// How far two clocks may be apart before nothing is deleted: 5 minutes.
pub const MAX_SKEW: Duration = Duration::from_secs(5 * 60);

/// What [`decide`](super::decide) must know besides the backups, so that a plan that looks like
/// an accident is refused.
#[derive(Clone, Debug)]
pub struct Limits {
    pub(super) share: u8,
    pub(super) max_deletes: Option<usize>,
    pub(super) last_prune: Option<SystemTime>,
    pub(super) period: Option<Duration>,
    pub(super) skew: Option<Duration>,
    pub(super) incrementals: bool,
    pub(super) max_run: Duration,
    pub(super) max_bytes: Option<u64>,
    pub(super) doubts: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            share: 20,
            max_deletes: None,
            last_prune: None,
            period: None,
            skew: None,
            incrementals: false,
            max_run: Duration::from_secs(24 * 60 * 60),
            max_bytes: None,
            doubts: Vec::new(),
        }
    }
}

impl Limits {
    /// The percentage of complete backups that one plan may delete; 20 unless set, 100 for no
    /// limit.
    ///
    /// Always allowed are 5 backups (as many as one new backup can replace in five periods) where
    /// that is at most half of all, and as many as were added since the [last
    /// prune](Self::last_prune). So neither a short history nor a prune that runs rarely trips,
    /// and a mistyped policy, a wrong clock or the first prune of an old store does.
    #[must_use]
    pub fn share(mut self, percent: u8) -> Self {
        self.share = percent;
        self
    }

    /// Allows this many deletions whatever the share: what somebody says who has read the plan.
    #[must_use]
    pub fn max_deletes(mut self, count: usize) -> Self {
        self.max_deletes = Some(count);
        self
    }

    /// When the newest prune record of this sink was written.
    #[must_use]
    pub fn last_prune(mut self, time: impl Into<Option<SystemTime>>) -> Self {
        self.last_prune = time.into();
        self
    }

    /// How long the schedule leaves between two backups. When the newest is older than twice
    /// that, backups have stopped, and nothing is deleted.
    #[must_use]
    pub fn period(mut self, period: impl Into<Option<Duration>>) -> Self {
        self.period = period.into();
        self
    }

    /// How far our clock is from the sink's. More than [`MAX_SKEW`], and nothing is deleted.
    #[must_use]
    pub fn skew(mut self, skew: impl Into<Option<Duration>>) -> Self {
        self.skew = skew.into();
        self
    }

    /// The job makes incrementals: a run in flight, which may have begun
    /// [`max_run`](Self::max_run) ago, builds on what was newest then.
    #[must_use]
    pub fn incrementals(mut self, yes: bool) -> Self {
        self.incrementals = yes;
        self
    }

    /// The longest time a run may take; 24 hours unless set.
    #[must_use]
    pub fn max_run(mut self, length: Duration) -> Self {
        self.max_run = length;
        self
    }

    /// Warns when what is kept has more stored bytes. It deletes nothing: size is no reason to
    /// lose a backup.
    #[must_use]
    pub fn max_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_bytes = bytes.into();
        self
    }

    /// Says why nothing may be deleted now: a rolled-back store, a gap in the chain.
    #[must_use]
    pub fn doubt(mut self, why: impl Into<String>) -> Self {
        self.doubts.push(why.into());
        self
    }

    /// How many of `complete` backups may go, of which `added` are newer than the last prune.
    pub(super) fn allowed(&self, complete: usize, added: usize) -> usize {
        let percent = usize::from(self.share.min(100));
        // Divided first: a count of entries times 100 fits, but costs nothing to be sure of.
        let share = complete / 100 * percent + complete % 100 * percent / 100;
        share
            .max((complete / 2).min(5))
            .max(added)
            .max(self.max_deletes.unwrap_or(0))
    }

    /// The schedule's period, when `age` is more than twice as long.
    pub(super) fn overdue(&self, age: Duration) -> Option<Span> {
        self.period
            .filter(|period| age > period.saturating_mul(2))
            .map(Span::from)
    }
}
