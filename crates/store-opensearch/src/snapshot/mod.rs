//! Whole indices by the server's own snapshots: through the pipeline, or by a receipt.

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

pub(crate) use kept::{Kept, Register};

mod archive;
mod kept;
mod named;
mod repository;
mod source;
mod state;
mod target;

/// What kind of backup this module writes and takes.
const KIND: &str = "opensearch-snapshot";

/// The part with the files of a repository that holds one snapshot.
pub const REPOSITORY: &str = "repository.tar";
/// The part with the request that has a snapshot restored which the cluster keeps.
pub const RESTORE: &str = "restore.requests";

/// A cluster to back up by its own snapshots.
///
/// For indices that do not keep the `_source` of their documents, and where a restore must not
/// index everything again. No repository or snapshot of anybody else is touched.
///
/// - Through a folder that the nodes and this host share ([`new`](Self::new)): the nodes write into a
///   new folder below one of their `path.repo`, and what they wrote goes through the pipeline:
///   encrypted, to every sink. Then it is deleted.
/// - In a repository of the cluster ([`kept`](Self::kept)): only what changed is written, and stays
///   there. The backup is a receipt and counts as no copy: who can delete in that repository can
///   delete the data. `verify` asks the cluster for it, and retention has the cluster delete it.
///
/// ```
/// # let source: store_opensearch::OpenSearchSnapshot = toml::from_str(r#"
/// url = "https://backup@search.internal:9200"
/// repository = "backups"
/// ## before OpenSearch 3.1: server_side_encryption = true
/// register = { type = "s3", settings = { bucket = "search", server_side_encryption_type = "aws:kms" } }
/// # "#).unwrap();
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "SnapshotTable")]
pub struct OpenSearchSnapshot {
    pub(crate) server: Server,
    pub(crate) place: Place,
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
    pub(crate) shared: Option<Shared>,
    pub(crate) restoring: Restoring,
    pub(crate) deadline: Span,
    pub(crate) timeout: Span,
}

/// Where snapshots go.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Shared(Shared),
    Kept(Kept),
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
}

const TIMEOUT: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(12 * 3600);

/// What the source and the target have in common.
macro_rules! limits {
    () => {
        /// How long the cluster may take for all of it. Twelve hours by default.
        #[must_use]
        pub fn deadline(mut self, limit: Duration) -> Self {
            self.deadline = limit.into();
            self
        }
    };
}

impl OpenSearchSnapshot {
    limits!();
    connection!();

    /// A cluster by its URL, and the folder below `path.repo` of every node, as the nodes have it.
    pub fn new(url: impl AsRef<str>, folder: impl Into<PathBuf>) -> Result<Self> {
        let server = Server::of_url(url.as_ref())?;
        Ok(Self::of(server, Place::Shared(Shared::new(folder, None))))
    }

    /// A cluster by its URL, and a repository that it has. What that keeps must be encrypted by the
    /// place where it lies ([`unencrypted`](Self::unencrypted)).
    pub fn kept(url: impl AsRef<str>, repository: impl Into<String>) -> Result<Self> {
        let kept = Kept {
            repository: repository.into(),
            register: None,
            unencrypted: false,
        };
        Ok(Self::of(Server::of_url(url.as_ref())?, Place::Kept(kept)))
    }

    /// Where this host has the folder, if elsewhere than the nodes.
    #[must_use]
    pub fn mounted(mut self, folder: impl AsRef<Path>) -> Self {
        if let Place::Shared(shared) = &mut self.place {
            folder.as_ref().clone_into(&mut shared.mounted);
        }
        self
    }

    /// What the repository has to be: a type and its settings, as `PUT /_snapshot/REPOSITORY` takes
    /// them. Registered where the cluster has none of the name; refused where it has another.
    #[must_use]
    pub fn register<K, V>(
        mut self,
        kind: impl Into<String>,
        settings: impl IntoIterator<Item = (K, V)>,
    ) -> Self
    where
        K: Into<String>,
        V: Into<serde_json::Value>,
    {
        if let Place::Kept(kept) = &mut self.place {
            let settings = settings.into_iter().map(|(k, v)| (k.into(), v.into()));
            kept.register = Some(Register {
                kind: kind.into(),
                settings: settings.collect(),
            });
        }
        self
    }

    /// Takes a repository that does not say that what it keeps is encrypted: any but one of type `s3`
    /// whose `server_side_encryption_type` is `AES256` or `aws:kms`; before OpenSearch 3.1, whose
    /// `server_side_encryption` is `true`. A server ignores the setting of the other version.
    #[must_use]
    pub fn unencrypted(mut self, allow: bool) -> Self {
        if let Place::Kept(kept) = &mut self.place {
            kept.unencrypted = allow;
        }
        self
    }

    pub(crate) fn of(server: Server, place: Place) -> Self {
        Self {
            server,
            place,
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
    limits!();
    connection!();
    restoring!();

    /// A cluster by its URL, and the folder below `path.repo` of every node, as the nodes have it.
    pub fn new(url: impl AsRef<str>, folder: impl Into<PathBuf>) -> Result<Self> {
        let server = Server::of_url(url.as_ref())?;
        Ok(Self::of(server, Some(Shared::new(folder, None))))
    }

    /// A cluster by its URL, for snapshots that it kept itself.
    pub fn kept(url: impl AsRef<str>) -> Result<Self> {
        Ok(Self::of(Server::of_url(url.as_ref())?, None))
    }

    /// Where this host has the folder, if elsewhere than the nodes.
    #[must_use]
    pub fn mounted(mut self, folder: impl AsRef<Path>) -> Self {
        if let Some(shared) = &mut self.shared {
            folder.as_ref().clone_into(&mut shared.mounted);
        }
        self
    }

    pub(crate) fn of(server: Server, shared: Option<Shared>) -> Self {
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
