//! Whole indices by the server's own snapshots, taken through the pipeline.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::retention::Span;
use backup_core::{Result, Secret};
use serde::Deserialize;

use crate::config::{SnapshotTable, SnapshotTargetTable};
use crate::names::{Patterns, Rename};
use crate::options::{Aliases, Conflict, Restoring, connection, restoring};
use crate::server::Server;

mod archive;
mod repository;
mod source;
mod state;
mod target;

/// What kind of backup this module writes and takes.
const KIND: &str = "opensearch-snapshot";

/// The part with the files of a repository that holds one snapshot.
pub const REPOSITORY: &str = "repository.tar";

/// A cluster to back up by its own snapshots, through a folder that its nodes and this host share.
///
/// For indices that do not keep the `_source` of their documents, and where a restore must not
/// index everything again. The nodes write into a new folder below one of their `path.repo`, and
/// what they wrote goes through the pipeline: encrypted, to every sink. Then it is deleted. No
/// repository or snapshot of anybody else is touched.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "SnapshotTable")]
pub struct OpenSearchSnapshot {
    pub(crate) server: Server,
    pub(crate) shared: Shared,
    pub(crate) indices: Patterns,
    pub(crate) allow_partial: bool,
    pub(crate) deadline: Span,
    pub(crate) timeout: Span,
}

/// A cluster to restore the backup of an [`OpenSearchSnapshot`] into: of the same version, or of the
/// next major one.
///
/// `Display` prints its URL without user and password: what a caller repeats to overwrite it. Only
/// indices and data streams that the backup has too are replaced; whatever else is there stays.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "SnapshotTargetTable")]
pub struct OpenSearchSnapshotTarget {
    pub(crate) server: Server,
    pub(crate) shared: Shared,
    pub(crate) restoring: Restoring,
    pub(crate) deadline: Span,
    pub(crate) timeout: Span,
}

/// A folder that the nodes and this host share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// As the nodes have it.
    folder: PathBuf,
    /// As this host has it.
    mounted: PathBuf,
}

impl Shared {
    pub(crate) fn new(folder: impl Into<PathBuf>, mounted: Option<PathBuf>) -> Self {
        let folder = folder.into();
        let mounted = mounted.unwrap_or_else(|| folder.clone());
        Self { folder, mounted }
    }

    /// A folder in it: as the nodes have it, and as we do.
    fn place(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.folder.join(name), self.mounted.join(name))
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(12 * 3600);

/// What the two that share a folder with the nodes have in common.
macro_rules! shared {
    () => {
        /// A cluster by its URL, and the folder below `path.repo` of every node, as the nodes have
        /// it.
        pub fn new(url: impl AsRef<str>, folder: impl Into<PathBuf>) -> Result<Self> {
            let server = Server::of_url(url.as_ref())?;
            Ok(Self::of(server, Shared::new(folder, None)))
        }

        /// Where this host has the folder, if elsewhere than the nodes.
        #[must_use]
        pub fn mounted(mut self, folder: impl AsRef<Path>) -> Self {
            folder.as_ref().clone_into(&mut self.shared.mounted);
            self
        }

        /// How long the cluster may take for all of it. Twelve hours by default.
        #[must_use]
        pub fn deadline(mut self, limit: Duration) -> Self {
            self.deadline = limit.into();
            self
        }
    };
}

impl OpenSearchSnapshot {
    shared!();
    connection!();

    pub(crate) fn of(server: Server, shared: Shared) -> Self {
        Self {
            server,
            shared,
            indices: Patterns::default(),
            allow_partial: false,
            deadline: DEADLINE.into(),
            timeout: TIMEOUT.into(),
        }
    }

    /// Backs up indices and data streams of these names, as
    /// [`OpenSearch::indices`](crate::OpenSearch::indices) has them.
    #[must_use]
    pub fn indices(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.indices = Patterns::new(patterns);
        self
    }

    /// Takes a snapshot that lacks shards (`PARTIAL`) for a backup all the same. The facts say so. The
    /// server restores those of its indices that are whole: a restore names them.
    #[must_use]
    pub fn allow_partial(mut self, allow: bool) -> Self {
        self.allow_partial = allow;
        self
    }
}

impl OpenSearchSnapshotTarget {
    shared!();
    connection!();
    restoring!();

    pub(crate) fn of(server: Server, shared: Shared) -> Self {
        Self {
            server,
            shared,
            restoring: Restoring::default(),
            deadline: DEADLINE.into(),
            timeout: TIMEOUT.into(),
        }
    }
}

impl fmt::Display for OpenSearchSnapshotTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}
