use std::time::{Duration, SystemTime};

use super::{
    Decision, Entry, Limits, MAX_SKEW, Miss, Plan, Planned, Reason, Refusal, RetentionPolicy, Than,
    Verdict, Warning,
};
use crate::Id;

/// Says of every entry of `history`, the backups of one job in one sink, whether it stays.
///
/// Pure and total: the order of `history` does not matter, no input panics or hangs, and nothing
/// is read but the arguments. Whatever the policy says, these stay:
///
/// - the newest complete backup, the newest verified, the newest proven (by sequence; all that
///   share it in a fork);
/// - what is on hold; what its sink has locked is deferred to the end of the lock;
/// - what is stamped in the future, and what shares its id with another: these fill no slot;
/// - what a run in flight may build on, where the job makes incrementals;
/// - everything that a kept or deferred backup needs to be restored.
///
/// Entries without a manifest are no backups: they fill no slot and delete nothing.
///
/// Applying a plan and planning again at the same `now` deletes nothing more. A new backup takes
/// at most one place of each rule, and costs nobody else theirs: in each period it replaces the
/// survivor of its own bucket, or, if it opens a new one, the bucket that is then one too many.
/// Rules that reach back by time lose what is then too old for them, and nothing else.
pub fn decide(
    policy: &dyn RetentionPolicy,
    history: &[Entry],
    now: SystemTime,
    limits: &Limits,
) -> Plan {
    let mut planner = Planner::new(history, now);
    planner.mark_doubtful();
    planner.mark_floors(limits);
    planner.ask(policy);
    planner.mark_holds();
    planner.close();
    planner.plan(limits)
}

struct Planner<'a> {
    now: SystemTime,
    /// The newest first.
    entries: Vec<&'a Entry>,
    /// Parallel to `entries`.
    marks: Vec<Mark<'a>>,
    /// The complete entries that the policy may see, by position.
    sound: Vec<usize>,
    /// All positions, by id.
    by_id: Vec<usize>,
    warnings: Vec<Warning>,
    refusals: Vec<Refusal>,
}

#[derive(Clone, Default)]
struct Mark<'a> {
    reasons: Vec<Reason>,
    near: Option<Near<'a>>,
}

/// The nearest miss so far.
#[derive(Clone)]
struct Near<'a> {
    distance: Duration,
    reason: Reason,
    time: SystemTime,
    by: Option<&'a Id>,
}

impl From<Near<'_>> for Miss {
    fn from(near: Near<'_>) -> Self {
        let Near {
            reason, time, by, ..
        } = near;
        match by {
            Some(by) => Self::Taken {
                reason,
                by: by.clone(),
            },
            None => Self::TooOld {
                reason,
                begins: time,
            },
        }
    }
}

impl<'a> Planner<'a> {
    fn new(history: &'a [Entry], now: SystemTime) -> Self {
        let mut entries: Vec<&Entry> = history.iter().collect();
        entries.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            now,
            marks: vec![Mark::default(); entries.len()],
            sound: Vec::with_capacity(entries.len()),
            by_id: (0..entries.len()).collect(),
            entries,
            warnings: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// Keeps what cannot be judged, and leaves the rest to the policy.
    fn mark_doubtful(&mut self) {
        self.by_id.sort_unstable_by_key(|i| &self.entries[*i].id);
        for twins in self
            .by_id
            .chunk_by(|a, b| self.entries[*a].id == self.entries[*b].id)
        {
            if twins.len() > 1 {
                for i in twins {
                    self.marks[*i].reasons.push(Reason::Ambiguous);
                }
                let id = self.entries[twins[0]].id.clone();
                self.warnings.push(Warning::Ambiguous(id));
            }
        }
        let horizon = self.now.checked_add(MAX_SKEW).unwrap_or(self.now);
        let mut newer: Option<&Entry> = None;
        for (i, entry) in self.entries.iter().enumerate() {
            if !entry.complete {
                continue;
            }
            if let Some(newer) = newer.replace(entry) {
                if newer.sequence == entry.sequence && newer.id != entry.id {
                    self.warnings.push(Warning::Fork {
                        sequence: entry.sequence,
                        id: newer.id.clone(),
                        other: entry.id.clone(),
                    });
                }
                if entry
                    .time
                    .duration_since(newer.time)
                    .is_ok_and(|back| back > MAX_SKEW)
                {
                    self.warnings.push(Warning::Backwards {
                        id: newer.id.clone(),
                        after: entry.id.clone(),
                    });
                }
            }
            if entry.time > horizon {
                self.marks[i].reasons.push(Reason::Future);
                self.warnings.push(Warning::Future {
                    id: entry.id.clone(),
                    time: entry.time,
                });
            } else if self.marks[i].reasons.is_empty() {
                self.sound.push(i);
            }
        }
    }

    /// Marks the newest entry that fits, and all that share its sequence.
    fn mark_newest(&mut self, reason: &Reason, fits: impl Fn(&Entry) -> bool) {
        let mut sequence = None;
        for (i, entry) in self.entries.iter().enumerate() {
            if !entry.complete || !fits(entry) {
                continue;
            }
            if *sequence.get_or_insert(entry.sequence) != entry.sequence {
                break;
            }
            self.marks[i].reasons.push(reason.clone());
        }
    }

    fn mark_floors(&mut self, limits: &Limits) {
        self.mark_newest(&Reason::Latest, |_| true);
        // The anchor of every age must not go while a doubtful one is newest.
        if let Some(anchor) = self.sound.first() {
            let reasons = &mut self.marks[*anchor].reasons;
            if reasons.is_empty() {
                reasons.push(Reason::Latest);
            }
        }
        self.mark_newest(&Reason::NewestVerified, |entry| entry.verified.is_some());
        self.mark_newest(&Reason::NewestProven, |entry| entry.proven.is_some());
        if limits.incrementals {
            // Whatever was newest at some time since the oldest run in flight began: all that
            // was committed since then, and the newest of before.
            let began = self.now.checked_sub(limits.max_run);
            let recent = |entry: &Entry| began.is_none_or(|began| entry.finished >= began);
            for (i, entry) in self.entries.iter().enumerate() {
                if entry.complete && recent(entry) {
                    self.marks[i].reasons.push(Reason::PossibleParent);
                }
            }
            self.mark_newest(&Reason::PossibleParent, |entry| !recent(entry));
        }
    }

    fn ask(&mut self, policy: &dyn RetentionPolicy) {
        let history: Vec<&Entry> = self.sound.iter().map(|i| self.entries[*i]).collect();
        for decision in policy.keep(&history, self.now) {
            let of = history.len();
            match decision {
                Decision::Keep { entry, reason } if entry < of => {
                    let reasons = &mut self.marks[self.sound[entry]].reasons;
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
                Decision::Miss {
                    entry,
                    reason,
                    than,
                } if entry < of && !matches!(than, Than::Entry(by) if by >= of) => {
                    let (time, by) = match than {
                        Than::Entry(by) => (history[by].time, Some(&history[by].id)),
                        Than::Time(time) => (time, None),
                    };
                    let own = history[entry].time;
                    let distance = own.duration_since(time).unwrap_or_else(|e| e.duration());
                    let near = &mut self.marks[self.sound[entry]].near;
                    if near.as_ref().is_none_or(|near| distance < near.distance) {
                        *near = Some(Near {
                            distance,
                            reason,
                            time,
                            by,
                        });
                    }
                }
                Decision::Keep { entry, .. } | Decision::Miss { entry, .. } => {
                    self.refusals.push(Refusal::Policy { entry, of });
                }
            }
        }
    }

    fn mark_holds(&mut self) {
        for (entry, mark) in self.entries.iter().zip(&mut self.marks) {
            if let (Some(why), true) = (&entry.held, entry.complete) {
                mark.reasons.push(Reason::Held(why.clone()));
            }
        }
    }

    /// Keeps what a backup that stays cannot be restored without; a deferred one stays for now.
    fn close(&mut self) {
        let stays = |i: usize, marks: &[Mark]| {
            !marks[i].reasons.is_empty() || self.entries[i].locked(self.now).is_some()
        };
        let mut work: Vec<usize> = (0..self.entries.len())
            .filter(|i| self.entries[*i].complete && stays(*i, &self.marks))
            .collect();
        let mut next = 0;
        while let Some(child) = work.get(next).map(|i| self.entries[*i]) {
            next += 1;
            for id in child.needed().filter(|id| **id != child.id) {
                let first = self.by_id.partition_point(|i| self.entries[*i].id < *id);
                let mut found = false;
                for &i in &self.by_id[first..] {
                    if self.entries[i].id != *id {
                        break;
                    }
                    if !self.entries[i].complete {
                        continue;
                    }
                    found = true;
                    if !stays(i, &self.marks) {
                        work.push(i);
                    }
                    let reasons = &mut self.marks[i].reasons;
                    match reasons.last() {
                        // Named twice: the parent comes first.
                        Some(Reason::ParentOf(by) | Reason::NeededBy(by)) if *by == child.id => {}
                        _ if child.parent.as_ref() == Some(id) => {
                            reasons.push(Reason::ParentOf(child.id.clone()));
                        }
                        _ => reasons.push(Reason::NeededBy(child.id.clone())),
                    }
                }
                if !found {
                    self.warnings.push(Warning::Missing {
                        id: child.id.clone(),
                        needs: id.clone(),
                    });
                }
            }
        }
    }

    fn plan(mut self, limits: &Limits) -> Plan {
        let mut planned = Vec::with_capacity(self.entries.len());
        let (mut complete, mut deletes, mut added, mut bytes) = (0, 0, 0, 0u64);
        for (entry, mut mark) in self.entries.iter().zip(std::mem::take(&mut self.marks)) {
            let locked = entry.locked(self.now);
            let miss = || mark.near.map(Miss::from);
            let verdict = match (mark.reasons.is_empty(), locked) {
                (true, _) if !entry.complete => Verdict::Incomplete,
                (true, Some(until)) => Verdict::Deferred {
                    until,
                    miss: miss(),
                },
                (true, None) => Verdict::Delete(miss()),
                (false, locked) => {
                    mark.reasons.extend(locked.map(Reason::Locked));
                    Verdict::Keep(mark.reasons)
                }
            };
            complete += usize::from(entry.complete);
            if let Verdict::Delete(_) = verdict {
                deletes += 1;
            } else {
                bytes = bytes.saturating_add(entry.bytes);
            }
            planned.push(Planned {
                id: entry.id.clone(),
                sequence: entry.sequence,
                verdict,
            });
        }
        if let Some(last) = limits.last_prune {
            let new = |i: &&usize| self.entries[**i].finished > last;
            added = self.sound.iter().filter(new).count();
        }
        if let Some(max) = limits.max_bytes.filter(|max| bytes > *max) {
            self.warnings.push(Warning::TooLarge { bytes, max });
        }
        if deletes > 0 {
            self.refuse(limits, deletes, complete, added);
        } else {
            self.refusals.clear();
        }
        Plan {
            entries: planned,
            warnings: self.warnings,
            refusals: self.refusals,
        }
    }

    fn refuse(&mut self, limits: &Limits, deletes: usize, of: usize, added: usize) {
        let allowed = limits.allowed(of, added);
        if deletes > allowed {
            self.refusals.push(Refusal::TooMany {
                deletes,
                of,
                allowed,
            });
        }
        // Without a sound one nothing is deleted.
        let newest = self
            .sound
            .first()
            .map_or(self.now, |i| self.entries[*i].time);
        let age = self.now.duration_since(newest).unwrap_or(Duration::ZERO);
        if let Some(period) = limits.overdue(age) {
            self.refusals.push(Refusal::Stale { newest, period });
        }
        if let Some(skew) = limits.skew.filter(|skew| *skew > MAX_SKEW) {
            self.refusals.push(Refusal::Skew(skew.into()));
        }
        let doubts = limits.doubts.iter().cloned().map(Refusal::Doubt);
        self.refusals.extend(doubts);
    }
}
