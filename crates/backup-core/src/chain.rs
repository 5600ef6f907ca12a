//! The sequence of a job's backups across its sinks: what is missing, forked or rolled back.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Listed};
use crate::digest::Digest;
use crate::manifest::LARGEST;
use crate::{Error, ErrorKind, Id, Result, record::PruneRecord};

/// The newest backup that somebody saw: kept outside the sinks, so that a sink that shows less
/// than it did can be caught.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its place in the sequence.
    pub sequence: u64,
    /// Its id.
    pub id: Id,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
}

/// Something in a job's history that nobody ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Backups are gone and no prune record says why.
    Gap {
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
    /// Two backups claim one place.
    Fork {
        /// The place.
        sequence: u64,
        /// Who claims it.
        ids: Vec<Id>,
    },
    /// A backup names another predecessor than the one that is there.
    Broken {
        /// The backup.
        id: Id,
    },
    /// The newest backup that was seen before is not there any more, or has other bytes.
    RolledBack {
        /// What was seen.
        remembered: Head,
        /// The highest sequence that is there now.
        found: u64,
    },
    /// A delete marker or a newer version hides a manifest; what was written is still there.
    Hidden {
        /// Which sink.
        sink: String,
        /// The backup.
        id: Id,
    },
    /// An object that cannot be read or trusted.
    Unreadable {
        /// Which sink.
        sink: String,
        /// The backup, if it is a manifest.
        id: Option<Id>,
        /// `Corrupt`, or `Unsupported` for what a newer version wrote.
        kind: ErrorKind,
        /// One line.
        problem: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { first, last } if first == last => {
                write!(
                    f,
                    "backup number {first} is missing, and no prune record says why"
                )
            }
            Self::Gap { first, last } => {
                write!(
                    f,
                    "backups number {first} to {last} are missing, and no prune record says why"
                )
            }
            Self::Fork { sequence, ids } => {
                write!(f, "fork: number {sequence} is claimed by")?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::Broken { id } => {
                write!(
                    f,
                    "{id} names another predecessor than the one that is there"
                )
            }
            Self::RolledBack { remembered, found } => write!(
                f,
                "rolled back: number {} ({}) was here before, the highest is now {found}",
                remembered.sequence, remembered.id
            ),
            Self::Hidden { sink, id } => write!(
                f,
                "in sink `{sink}`: somebody hid the manifest of {id}; what was written is still there"
            ),
            Self::Unreadable { sink, problem, .. } => write!(f, "in sink `{sink}`: {problem}"),
        }
    }
}

/// What the catalogs of all sinks that answered say together.
pub(crate) struct Chain<'a> {
    by_sequence: BTreeMap<u64, BTreeMap<&'a Id, &'a Listed>>,
    prunes: Vec<&'a PruneRecord>,
    highest: u64,
}

impl<'a> Chain<'a> {
    pub(crate) fn of(catalogs: impl IntoIterator<Item = &'a Catalog>) -> Self {
        let mut by_sequence: BTreeMap<u64, BTreeMap<&Id, &Listed>> = BTreeMap::new();
        let mut prunes = Vec::new();
        for catalog in catalogs {
            for (id, listed) in &catalog.backups {
                let place = by_sequence.entry(listed.manifest.sequence).or_default();
                place.insert(id, listed);
            }
            prunes.extend(&catalog.prunes);
        }
        let pruned = prunes.iter().map(|record| record.highest()).max();
        let seen = by_sequence.keys().next_back().copied();
        Self {
            by_sequence,
            prunes,
            highest: pruned.max(seen).unwrap_or(0),
        }
    }

    /// The number of the next backup. It never reuses one that was seen, also if that one is gone.
    ///
    /// `Corrupt` if there is none left: whoever claims the last one forged it.
    pub(crate) fn next(&self, remembered: Option<&Head>) -> Result<u64> {
        let highest = self.highest.max(remembered.map_or(0, |head| head.sequence));
        if highest >= LARGEST {
            let what = format!("a manifest or prune record claims to be number {highest}");
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        Ok(highest + 1)
    }

    /// The newest backup that is there.
    pub(crate) fn head(&self) -> Option<Head> {
        let (sequence, place) = self.by_sequence.iter().next_back()?;
        let (id, listed) = place.iter().next_back()?;
        Some(Head {
            sequence: *sequence,
            id: (*id).clone(),
            manifest: listed.digest,
        })
    }

    pub(crate) fn findings(&self, remembered: Option<&Head>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut expected = 1;
        let mut before: Option<(u64, &BTreeMap<&Id, &Listed>)> = None;
        for (&sequence, place) in &self.by_sequence {
            self.gaps(expected, sequence - 1, &mut findings);
            expected = sequence + 1;
            if place.len() > 1 {
                let ids = place.keys().map(|id| (*id).clone()).collect();
                findings.push(Finding::Fork { sequence, ids });
            }
            if let Some((number, earlier)) = before
                && number + 1 == sequence
            {
                for (id, listed) in place {
                    let named = listed.manifest.previous;
                    if !earlier.values().any(|b| Some(b.digest) == named) {
                        findings.push(Finding::Broken { id: (*id).clone() });
                    }
                }
            }
            before = Some((sequence, place));
        }
        self.gaps(expected, self.highest, &mut findings);
        if let Some(head) = remembered
            && !self.accounts_for(head)
        {
            findings.push(Finding::RolledBack {
                remembered: head.clone(),
                found: self.by_sequence.keys().next_back().copied().unwrap_or(0),
            });
        }
        findings
    }

    /// Missing numbers between `first` and `last` that no prune record covers.
    fn gaps(&self, first: u64, last: u64, findings: &mut Vec<Finding>) {
        // A range may be astronomically long if somebody forged a sequence: walk the records'
        // ranges, not the numbers.
        let mut covered: Vec<(u64, u64)> = Vec::new();
        for record in &self.prunes {
            covered.extend(record.deleted.iter().map(|d| (d.sequence, d.sequence)));
            covered.extend(&record.earlier);
        }
        covered.sort_unstable();
        let mut next = first;
        for (from, to) in covered {
            if next > last {
                return;
            }
            if from > next && from <= last {
                findings.push(Finding::Gap {
                    first: next,
                    last: from - 1,
                });
            } else if from > last {
                break;
            }
            next = next.max(to.saturating_add(1));
        }
        if next <= last {
            findings.push(Finding::Gap { first: next, last });
        }
    }

    fn accounts_for(&self, head: &Head) -> bool {
        let there = self
            .by_sequence
            .get(&head.sequence)
            .and_then(|place| place.get(&head.id))
            .is_some_and(|listed| listed.digest == head.manifest);
        there
            || self
                .prunes
                .iter()
                .any(|record| record.covers(head.sequence))
    }
}
