use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::retention::Span;
use backup_core::{Result, Secret};
use serde::Deserialize;

use crate::config::{SourceTable, TargetTable};
use crate::sentinel::Sentinel;
use crate::server::{Pieces, Server, invalid};

/// A server, or a cluster of them, to back up.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "SourceTable")]
pub struct Redis {
    pub(crate) place: Place,
    pub(crate) cluster: bool,
    pub(crate) allow_unchecked: bool,
    pub(crate) max_age: Option<Span>,
    pub(crate) timeout: Span,
}

/// Where a snapshot comes from.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Server(Server),
    Sentinel(Sentinel),
    File(PathBuf),
}

/// A running server to restore into, over the network.
///
/// `Display` prints its URL without user, password and database: what a caller repeats to
/// overwrite it. All of its databases are replaced. Sentinels that watch it may take it for gone
/// while it is a replica: stop them meanwhile.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "TargetTable")]
pub struct RedisServer {
    pub(crate) server: Server,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) advertise: Option<(String, u16)>,
    pub(crate) restoring: Restoring,
    pub(crate) timeout: Span,
}

/// A `dump.rdb` to restore, for a server that does not run.
///
/// `Display` prints the path.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "TargetTable")]
pub struct RdbFile {
    pub(crate) path: PathBuf,
    pub(crate) append_only: bool,
    pub(crate) restoring: Restoring,
}

/// What to restore, and how to look at it afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restoring {
    pub(crate) part: Option<String>,
    pub(crate) check: Check,
}

/// How a restored server is compared with the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Check {
    /// The number of keys in each database, and a digest over keys and values, for which the
    /// server makes a snapshot of what it has. Where it writes another version of the format than
    /// the backup has, only the numbers.
    #[default]
    Digest,
    /// The number of keys in each database.
    Counts,
}

const TIMEOUT: Duration = Duration::from_secs(60);

macro_rules! connected {
    () => {
        /// A server by its URL: `redis://USER:PASSWORD@HOST:PORT`, `rediss://` for TLS.
        ///
        /// Names are percent-encoded. The number of a database behind the port is read over: a
        /// snapshot is of all of them.
        pub fn from_url(url: impl Into<String>) -> Result<Self> {
            let pieces = Pieces {
                url: Some(Secret::new(url)),
                ..Pieces::default()
            };
            Ok(Self::new(pieces.server()?))
        }

        /// The server that the variables `REDIS_URL` and `REDISCLI_AUTH` of this process name.
        pub fn from_env() -> Result<Self> {
            let url = std::env::var("REDIS_URL")
                .map_err(|_| invalid("variable REDIS_URL is not set to the URL of a server"))?;
            let this = Self::from_url(url).map_err(|e| e.context("variable REDIS_URL"))?;
            Ok(this.password_from_env())
        }

        /// The user, where the URL has none.
        #[must_use]
        pub fn user(mut self, user: impl Into<String>) -> Self {
            if let Some(server) = self.server_mut() {
                server.user = Some(user.into());
            }
            self
        }

        /// The password, where the URL has none.
        #[must_use]
        pub fn password(mut self, password: impl Into<String>) -> Self {
            if let Some(server) = self.server_mut() {
                server.password = Some(Secret::new(password));
            }
            self
        }

        /// The password from `REDISCLI_AUTH` of this process, if there is none yet.
        #[must_use]
        pub fn password_from_env(mut self) -> Self {
            if let Some(server) = self.server_mut()
                && server.password.is_none()
            {
                let known = std::env::var("REDISCLI_AUTH").ok();
                server.password = known.filter(|text| !text.is_empty()).map(Secret::new);
            }
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

macro_rules! restored {
    () => {
        /// Restores this part: of a cluster's backup the shard `shard-1.rdb`, by default `dump.rdb`.
        #[must_use]
        pub fn part(mut self, name: impl Into<String>) -> Self {
            self.restoring.part = Some(name.into());
            self
        }
    };
}

impl Redis {
    connected!();

    pub(crate) fn new(server: Server) -> Self {
        Self::at(Place::Server(server))
    }

    pub(crate) fn at(place: Place) -> Self {
        Self {
            place,
            cluster: false,
            allow_unchecked: false,
            max_age: None,
            timeout: TIMEOUT.into(),
        }
    }

    /// The file that a server saved: `/var/lib/redis/dump.rdb`. It is as old as the last save that
    /// succeeded; the fact `created` says when that was, and [`max_age`](Self::max_age) bounds it.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::File(path.into()))
    }

    /// The server that is master of the name `master` now, as one of these sentinels says, in turn:
    /// `HOST:PORT`, or a `redis://` or `rediss://` URL; with the latter the master is talked to
    /// over TLS too. [`user`](Self::user) and [`password`](Self::password) are for the master.
    pub fn from_sentinel(
        master: impl Into<String>,
        nodes: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self> {
        Ok(Self::at(Place::Sentinel(Sentinel::new(
            master.into(),
            nodes,
        )?)))
    }

    /// Backs up all shards of the cluster that the server is a node of, one after the other.
    #[must_use]
    pub fn cluster(mut self, cluster: bool) -> Self {
        self.cluster = cluster;
        self
    }

    /// Takes a snapshot without a checksum too, of a server with `rdbchecksum no`.
    #[must_use]
    pub fn allow_unchecked(mut self, allow: bool) -> Self {
        self.allow_unchecked = allow;
        self
    }

    /// Refuses a file that was saved longer ago: the server may have failed to save since.
    #[must_use]
    pub fn max_age(mut self, limit: Duration) -> Self {
        self.max_age = Some(limit.into());
        self
    }

    fn server_mut(&mut self) -> Option<&mut Server> {
        match &mut self.place {
            Place::Server(server) => Some(server),
            Place::Sentinel(sentinel) => Some(&mut sentinel.login),
            Place::File(_) => None,
        }
    }
}

impl RedisServer {
    connected!();
    restored!();

    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            listen: None,
            advertise: None,
            restoring: Restoring::default(),
            timeout: TIMEOUT.into(),
        }
    }

    /// Where the restore waits for the server to come and get the data. By default the address
    /// from which the server is talked to, and any free port.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// What the server is told to connect to, where that is another address than the one that is
    /// listened on: behind a router, or out of a container.
    #[must_use]
    pub fn advertise(mut self, host: impl Into<String>, port: u16) -> Self {
        self.advertise = Some((host.into(), port));
        self
    }

    /// What is compared afterwards.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.restoring.check = check;
        self
    }

    fn server_mut(&mut self) -> Option<&mut Server> {
        Some(&mut self.server)
    }
}

impl RdbFile {
    restored!();

    /// Restores into `path`: the `dbfilename` in the folder `dir` of a server, `dump.rdb` if its
    /// configuration says nothing else.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            append_only: false,
            restoring: Restoring::default(),
        }
    }

    /// Makes an append-only file too, for a server of version 7 or later with `appendonly yes`: it
    /// reads that, and not its `dump.rdb`, and would come up empty. One that is there already is
    /// replaced in any case.
    #[must_use]
    pub fn append_only(mut self, append_only: bool) -> Self {
        self.append_only = append_only;
        self
    }
}

impl fmt::Display for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

impl fmt::Display for RdbFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
