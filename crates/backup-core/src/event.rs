//! What happens, told while it happens: progress bars, metrics, audit and notifications are all
//! observers.

use std::fmt::Debug;
use std::sync::Arc;

use crate::{Id, Key};

/// Is told of everything that a job does. Called on the job's own tasks and threads: return fast,
/// hand slow work on.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A backup began.
    Started {
        /// The job.
        job: &'a str,
        /// The backup's id.
        id: &'a Id,
    },
    /// A part began to flow.
    PartStarted {
        /// Its name.
        part: &'a str,
    },
    /// Bytes since the last event of this kind, at most one event for each MiB of a part.
    Progress {
        /// The part.
        part: &'a str,
        /// Bytes on the plain side.
        plain: u64,
        /// Bytes on the stored side.
        stored: u64,
    },
    /// A part ended and is durable in every sink that is still in.
    PartFinished {
        /// Its name.
        part: &'a str,
        /// All its plain bytes.
        plain: u64,
        /// All its stored bytes.
        stored: u64,
    },
    /// A sink failed and gets nothing more of this backup.
    SinkFailed {
        /// The sink's name in the job.
        sink: &'a str,
        /// Why.
        error: &'a crate::Error,
    },
    /// How much room a place has for what comes, before it is begun.
    Space {
        /// The sink's name in the job, or the target's.
        place: &'a str,
        /// Bytes; `None` where nobody can tell.
        free: Option<u64>,
        /// About what it will take in bytes; `None` where nothing is known to judge by.
        needed: Option<u64>,
    },
    /// The manifest is durable in one sink: that copy is complete.
    Committed {
        /// The sink's name in the job.
        sink: &'a str,
        /// The backup.
        id: &'a Id,
    },
    /// Something to look at that does not stop the work.
    Warning {
        /// One line.
        message: &'a str,
    },
    /// An object was looked at by a verification.
    Verified {
        /// The object.
        key: &'a Key,
    },
    /// A backup was deleted from one sink.
    Deleted {
        /// The sink's name in the job.
        sink: &'a str,
        /// The backup.
        id: &'a Id,
    },
}

/// Several observers as one.
impl Observer for Vec<Arc<dyn Observer>> {
    fn event(&self, event: &Event<'_>) {
        for observer in self {
            observer.event(event);
        }
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn event(&self, _: &Event<'_>) {}
}
