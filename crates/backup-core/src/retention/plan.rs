use std::fmt;
use std::time::SystemTime;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Miss, Reason, Span};
use crate::{Error, ErrorKind, Id, Result, Stamp};

/// What [`decide`](super::decide) found. It serialises as `prune --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Every entry, the newest first by sequence, then id.
    pub entries: Vec<Planned>,
    /// What somebody should look at.
    pub warnings: Vec<Warning>,
    /// Why nothing may be deleted. Empty: go ahead. Nothing to delete is never refused.
    pub refusals: Vec<Refusal>,
}

/// One entry and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Planned {
    /// The backup.
    pub id: Id,
    /// Its sequence.
    pub sequence: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It stays, for at least one reason.
    Keep(Vec<Reason>),
    /// It goes. `None` when its policy named nothing that came near.
    Delete(Option<Miss>),
    /// It would go, but the sink refuses to delete it before.
    Deferred {
        /// When its lock ends.
        until: SystemTime,
        /// As for [`Delete`](Self::Delete).
        miss: Option<Miss>,
    },
    /// It has no manifest, so no policy speaks about it: a sweep collects it once it is older
    /// than any run.
    Incomplete,
}

impl Planned {
    /// Why it stays; empty when it does not.
    pub fn reasons(&self) -> &[Reason] {
        match &self.verdict {
            Verdict::Keep(reasons) => reasons,
            _ => &[],
        }
    }
}

impl Plan {
    /// What to delete, in this order: the newest first, so that an incremental goes before what
    /// it builds on. Or [`Refused`](ErrorKind::Refused) with every refusal.
    pub fn deletable(&self) -> Result<Vec<&Planned>> {
        if self.refusals.is_empty() {
            return Ok(self
                .entries
                .iter()
                .filter(|entry| matches!(entry.verdict, Verdict::Delete(_)))
                .collect());
        }
        let why: Vec<String> = self.refusals.iter().map(Refusal::to_string).collect();
        Err(Error::new(
            ErrorKind::Refused,
            format!("nothing is deleted: {}", why.join("; ")),
        ))
    }

    /// What becomes of one backup, and why.
    pub fn get(&self, id: &Id) -> Option<&Planned> {
        self.entries.iter().find(|entry| entry.id == *id)
    }
}

/// Something in the history that somebody should look at. It stops nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The clock of the host that wrote it was ahead, or ours is behind.
    Future {
        /// The backup.
        id: Id,
        /// What its manifest says.
        time: SystemTime,
    },
    /// It is stamped before the backup that came before it: a clock was set back.
    Backwards {
        /// The backup.
        id: Id,
        /// The one before it.
        after: Id,
    },
    /// Two entries have this id.
    Ambiguous(Id),
    /// Two complete backups have one sequence.
    Fork {
        /// The sequence.
        sequence: u64,
        /// One of them.
        id: Id,
        /// Another.
        other: Id,
    },
    /// It stays, and what it needs is not here, or not complete.
    Missing {
        /// The backup.
        id: Id,
        /// What it needs.
        needs: Id,
    },
    /// What is kept has more stored bytes than somebody wanted.
    TooLarge {
        /// Bytes of what is kept.
        bytes: u64,
        /// What somebody wanted.
        max: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Future { id, time } => {
                write!(f, "{id} is stamped in the future: {}", Stamp::from(*time))
            }
            Self::Backwards { id, after } => {
                write!(f, "{id} is stamped before {after}, which it follows")
            }
            Self::Ambiguous(id) => write!(f, "{id} is there more than once"),
            Self::Fork {
                sequence,
                id,
                other,
            } => {
                write!(f, "{id} and {other} both have sequence {sequence}")
            }
            Self::Missing { id, needs } => write!(f, "{id} needs {needs}, which is not here"),
            Self::TooLarge { bytes, max } => {
                write!(f, "{bytes} bytes are kept, more than the {max} wanted")
            }
        }
    }
}

/// Why nothing may be deleted now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// More at once than a healthy job would delete.
    TooMany {
        /// How many would go.
        deletes: usize,
        /// Of so many complete ones.
        of: usize,
        /// How many may.
        allowed: usize,
    },
    /// Backups have stopped.
    Stale {
        /// The newest complete one.
        newest: SystemTime,
        /// What the schedule leaves between two.
        period: Span,
    },
    /// Our clock and the sink's are so far apart.
    Skew(Span),
    /// The policy spoke about an entry that it was not given.
    Policy {
        /// The entry.
        entry: usize,
        /// How many it was given.
        of: usize,
    },
    /// The caller's own.
    Doubt(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany {
                deletes,
                of,
                allowed,
            } => write!(
                f,
                "{deletes} of {of} backups would go, and {allowed} may without somebody allowing \
                 {deletes}"
            ),
            Self::Stale { newest, period } => write!(
                f,
                "the newest backup is of {}, more than twice the schedule's {period} ago",
                Stamp::from(*newest)
            ),
            Self::Skew(skew) => write!(f, "the sink's clock and ours are {skew} apart"),
            Self::Policy { entry, of } => {
                write!(f, "the policy spoke about entry {entry} and was given {of}")
            }
            Self::Doubt(why) => f.write_str(why),
        }
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `{keep: [{id, reasons}], delete: [{id, nearest_miss}], deferred: [{id, until, nearest_miss}],
/// incomplete: [id], warnings, refusals}`.
impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Keep<'a> {
            id: &'a Id,
            reasons: &'a [Reason],
        }
        #[derive(Serialize)]
        struct Delete<'a> {
            id: &'a Id,
            nearest_miss: &'a Option<Miss>,
        }
        #[derive(Serialize)]
        struct Deferred<'a> {
            id: &'a Id,
            until: Stamp,
            nearest_miss: &'a Option<Miss>,
        }
        let (mut keep, mut delete, mut deferred, mut incomplete) =
            <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        for Planned { id, verdict, .. } in &self.entries {
            match verdict {
                Verdict::Keep(reasons) => keep.push(Keep { id, reasons }),
                Verdict::Delete(nearest_miss) => delete.push(Delete { id, nearest_miss }),
                Verdict::Deferred { until, miss } => deferred.push(Deferred {
                    id,
                    until: (*until).into(),
                    nearest_miss: miss,
                }),
                Verdict::Incomplete => incomplete.push(id),
            }
        }
        let mut plan = serializer.serialize_struct("Plan", 6)?;
        plan.serialize_field("keep", &keep)?;
        plan.serialize_field("delete", &delete)?;
        plan.serialize_field("deferred", &deferred)?;
        plan.serialize_field("incomplete", &incomplete)?;
        plan.serialize_field("warnings", &self.warnings)?;
        plan.serialize_field("refusals", &self.refusals)?;
        plan.end()
    }
}
