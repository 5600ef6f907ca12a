use std::time::SystemTime;

use crate::Id;

/// What retention knows of one backup in one sink.
///
/// Entries order as backups do: by sequence, then id. The rest only makes the order total.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Entry {
    /// Its place in the job's chain. Forks share one.
    pub sequence: u64,
    /// Its name.
    pub id: Id,
    /// When it began, from the signed manifest. Names its buckets.
    pub time: SystemTime,
    /// When it was committed: from then on a log can carry it forward, and a run can build on it.
    pub finished: SystemTime,
    /// Has a manifest. Nothing else counts.
    pub complete: bool,
    /// The backup that this incremental builds on.
    pub parent: Option<Id>,
    /// Other backups in the same sink without which this one cannot be restored.
    pub needs: Vec<Id>,
    /// When it was last read back and matched.
    pub verified: Option<SystemTime>,
    /// When a drill last restored it.
    pub proven: Option<SystemTime>,
    /// Why somebody put it on hold.
    pub held: Option<String>,
    /// The sink deletes none of its objects before.
    pub locked_until: Option<SystemTime>,
    /// Stored bytes.
    pub bytes: u64,
}

impl Entry {
    /// A complete backup that began, and until [`finished`](Self::finished) says otherwise ended,
    /// at `time`.
    pub fn new(id: Id, sequence: u64, time: SystemTime) -> Self {
        Self {
            sequence,
            id,
            time,
            finished: time,
            complete: true,
            parent: None,
            needs: Vec::new(),
            verified: None,
            proven: None,
            held: None,
            locked_until: None,
            bytes: 0,
        }
    }

    /// Objects without a manifest: a run that failed, or one that is still writing.
    pub fn incomplete(id: Id) -> Self {
        let time = id.time();
        Self {
            complete: false,
            ..Self::new(id, 0, time)
        }
    }

    /// Sets when it was committed.
    #[must_use]
    pub fn finished(mut self, time: SystemTime) -> Self {
        self.finished = time;
        self
    }

    /// Sets what it builds on.
    #[must_use]
    pub fn parent(mut self, id: impl Into<Option<Id>>) -> Self {
        self.parent = id.into();
        self
    }

    /// Sets what else it cannot be restored without.
    #[must_use]
    pub fn needs(mut self, ids: impl IntoIterator<Item = Id>) -> Self {
        self.needs = ids.into_iter().collect();
        self
    }

    /// Sets when it was read back.
    #[must_use]
    pub fn verified(mut self, time: impl Into<Option<SystemTime>>) -> Self {
        self.verified = time.into();
        self
    }

    /// Sets when it was restored.
    #[must_use]
    pub fn proven(mut self, time: impl Into<Option<SystemTime>>) -> Self {
        self.proven = time.into();
        self
    }

    /// Puts it on hold.
    #[must_use]
    pub fn held(mut self, reason: impl Into<Option<String>>) -> Self {
        self.held = reason.into();
        self
    }

    /// Sets its lock.
    #[must_use]
    pub fn locked_until(mut self, time: impl Into<Option<SystemTime>>) -> Self {
        self.locked_until = time.into();
        self
    }

    /// Sets its size.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// What a restore of it reads besides itself.
    pub(crate) fn needed(&self) -> impl Iterator<Item = &Id> {
        self.parent.iter().chain(&self.needs)
    }

    /// The sink would refuse to delete it now.
    pub(super) fn locked(&self, now: SystemTime) -> Option<SystemTime> {
        self.locked_until.filter(|until| *until > now)
    }
}
