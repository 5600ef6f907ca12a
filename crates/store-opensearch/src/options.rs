use std::fmt;
use std::time::Duration;

use backup_core::retention::Span;
use backup_core::{Result, Secret};
use serde::Deserialize;

use crate::config::{SourceTable, TargetTable};
use crate::names::{Patterns, Rename};
use crate::server::{Pieces, Server, invalid};

/// A cluster to back up.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "SourceTable")]
pub struct OpenSearch {
    pub(crate) server: Server,
    pub(crate) indices: Patterns,
    pub(crate) state: Patterns,
    pub(crate) one_moment: bool,
    pub(crate) parallel: usize,
    pub(crate) timeout: Span,
}

/// A cluster to restore into.
///
/// `Display` prints its URL without user and password: what a caller repeats to overwrite it. Only
/// indices and data streams that the backup has too are replaced; whatever else is there stays.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "TargetTable")]
pub struct OpenSearchCluster {
    pub(crate) server: Server,
    pub(crate) restoring: Restoring,
    pub(crate) parallel: usize,
    pub(crate) timeout: Span,
}

/// What to restore, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restoring {
    pub(crate) indices: Patterns,
    pub(crate) state: Patterns,
    pub(crate) rename: Option<Rename>,
    pub(crate) conflict: Conflict,
    pub(crate) aliases: Option<Aliases>,
}

/// What happens to an index or data stream that has the name of one that is restored, once the
/// caller has agreed to replace what the cluster holds. Without that the restore is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Conflict {
    /// It is deleted right before the other is made.
    #[default]
    Delete,
    /// It is closed, and what it has is replaced by the server: for snapshots only, and where both
    /// have as many shards. It is opened again where the server refuses. A data stream cannot be
    /// closed, and is deleted.
    Close,
    /// The restore is refused all the same.
    Fail,
}

/// What happens to aliases after a restore, all of them in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Aliases {
    /// They point to the restored indices too. The default, unless those are renamed.
    Add,
    /// They point to the restored indices, and to nothing else any more.
    Swap,
    /// They stay as they are. The default for renamed indices, which nobody should read unasked.
    Skip,
}

const TIMEOUT: Duration = Duration::from_secs(60);

/// Parts that are read side by side: a shard each.
const PARALLEL: usize = 2;
const MOST_PARALLEL: usize = 16;

/// Setters that everything has that talks to a server.
macro_rules! connection {
    () => {
        /// The user, where the URL has none.
        #[must_use]
        pub fn user(mut self, user: impl Into<String>) -> Self {
            self.server.user = Some(user.into());
            self
        }

        /// The password, where the URL has none.
        #[must_use]
        pub fn password(mut self, password: impl Into<String>) -> Self {
            self.server.password = Some(Secret::new(password));
            self
        }

        /// User and password from `OPENSEARCH_USERNAME` and `OPENSEARCH_PASSWORD` of this process, as
        /// far as there are none yet.
        #[must_use]
        pub fn login_from_env(mut self) -> Self {
            self.server.login_from_env();
            self
        }

        /// How long the server may be silent. A minute by default.
        #[must_use]
        pub fn timeout(mut self, limit: Duration) -> Self {
            self.timeout = limit.into();
            self
        }
    };
}
pub(crate) use connection;

/// Setters of everything that is restored into, but for what only one of them has.
macro_rules! restoring {
    () => {
        /// Restores indices and data streams of these names, as [`OpenSearch::indices`] has them.
        ///
        /// [`OpenSearch::indices`]: crate::OpenSearch::indices
        #[must_use]
        pub fn indices(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
            self.restoring.indices = Patterns::new(patterns);
            self
        }

        /// Restores indices and data streams under other names: `restored-*`, where `*` stands for
        /// the old one. For the documents of a data stream, there has to be a template for its new name.
        pub fn rename(mut self, to: impl Into<String>) -> Result<Self> {
            self.restoring.rename = Some(Rename::try_from(to.into())?);
            Ok(self)
        }

        /// What happens to what is there already.
        #[must_use]
        pub fn conflict(mut self, conflict: Conflict) -> Self {
            self.restoring.conflict = conflict;
            self
        }

        /// What happens to aliases.
        #[must_use]
        pub fn aliases(mut self, aliases: Aliases) -> Self {
            self.restoring.aliases = Some(aliases);
            self
        }
    };
}
pub(crate) use restoring;

/// What the two that read and write documents have in common.
macro_rules! connected {
    () => {
        /// A cluster by the URL of a node, or of what balances between them:
        /// `https://USER:PASSWORD@HOST:9200`, names percent-encoded.
        pub fn from_url(url: impl Into<String>) -> Result<Self> {
            let pieces = Pieces {
                url: Some(Secret::new(url)),
                ..Pieces::default()
            };
            Ok(Self::new(pieces.server()?))
        }

        /// The cluster that the variables `OPENSEARCH_URL`, `OPENSEARCH_USERNAME` and
        /// `OPENSEARCH_PASSWORD` of this process name.
        pub fn from_env() -> Result<Self> {
            let url = std::env::var("OPENSEARCH_URL").map_err(|_| {
                invalid("variable OPENSEARCH_URL is not set to the URL of a cluster")
            })?;
            let this = Self::from_url(url).map_err(|e| e.context("variable OPENSEARCH_URL"))?;
            Ok(this.login_from_env())
        }

        /// How many shards are worked on at once: 2 by default, at most 16. Each takes memory for a
        /// few MiB of documents.
        #[must_use]
        pub fn parallel(mut self, shards: usize) -> Self {
            self.parallel = shards.clamp(1, MOST_PARALLEL);
            self
        }
    };
}

impl OpenSearch {
    connected!();
    connection!();

    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            indices: Patterns::default(),
            state: Patterns::default(),
            one_moment: true,
            parallel: PARALLEL,
            timeout: TIMEOUT.into(),
        }
    }

    /// Backs up indices and data streams of these names: `*` stands for anything, a leading `-`
    /// leaves out. All of them by default, but for those that begin with a dot.
    ///
    /// A name without a `*` must be there, and something must be meant: a backup with nothing in it
    /// is an error.
    #[must_use]
    pub fn indices(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.indices = Patterns::new(patterns);
        self
    }

    /// Backs up scripts, pipelines and templates of these names, likewise.
    #[must_use]
    pub fn state(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.state = Patterns::new(patterns);
        self
    }

    /// Whether all indices are read as of one moment, which is the default.
    ///
    /// For as long as the backup takes, every shard has a point in time then, and keeps what is
    /// deleted or merged meanwhile. A node takes 300 (`search.max_open_pit_context`). With `false`
    /// each index has its own moment, when its turn comes.
    #[must_use]
    pub fn one_moment(mut self, one: bool) -> Self {
        self.one_moment = one;
        self
    }
}

impl OpenSearchCluster {
    connected!();
    connection!();
    restoring!();

    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            restoring: Restoring::default(),
            parallel: PARALLEL,
            timeout: TIMEOUT.into(),
        }
    }

    /// Restores scripts, pipelines and templates of these names. One that the cluster has already
    /// is left as it is.
    #[must_use]
    pub fn state(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.restoring.state = Patterns::new(patterns);
        self
    }
}

impl fmt::Display for OpenSearchCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}
