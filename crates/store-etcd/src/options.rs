use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::retention::Span;
use backup_core::{Result, Secret};
use serde::Deserialize;

use crate::config::{DirectoryTable, ServerTable, SourceTable};
use crate::server::{Server, invalid, variable};

/// A member of a cluster to back up.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "SourceTable")]
pub struct Etcd {
    pub(crate) server: Server,
    pub(crate) timeout: Span,
    pub(crate) deadline: Span,
}

/// The data directory of a member that does not run, to restore.
///
/// `Display` prints the path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "DirectoryTable")]
pub struct EtcdDataDir {
    pub(crate) path: PathBuf,
    pub(crate) etcdutl: PathBuf,
    pub(crate) name: Option<String>,
    pub(crate) initial_cluster: Option<String>,
    pub(crate) initial_cluster_token: Option<String>,
    pub(crate) initial_advertise_peer_urls: Option<String>,
    pub(crate) bump_revision: u64,
}

/// A cluster that runs, to put keys into.
///
/// `Display` prints the member's URL.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ServerTable")]
pub struct EtcdServer {
    pub(crate) server: Server,
    pub(crate) timeout: Span,
    pub(crate) prefix: Vec<u8>,
    pub(crate) conflict: Conflict,
    pub(crate) leases: Leases,
    pub(crate) kubernetes: bool,
}

/// What becomes of a key that the cluster has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conflict {
    /// No key may be there below the prefix. All that are there are deleted first for who agrees to
    /// replace them.
    #[default]
    Fail,
    /// It stays as it is.
    Skip,
    /// It gets the value of the backup, for who agrees to replace it; other keys stay.
    Overwrite,
}

/// What becomes of the lease of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leases {
    /// A new one of the same length: the key goes when it runs out, unless somebody keeps it alive.
    #[default]
    Grant,
    /// None: the key stays.
    Drop,
}

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
pub(crate) const DEADLINE: Duration = Duration::from_secs(3600);

/// More changes than a cluster makes in days.
pub(crate) const BUMP: u64 = 1_000_000_000;

impl Etcd {
    /// One member by its client URL: `http://HOST:2379`, or `https://`. Of a cluster any member that
    /// is up to date will do; the snapshot is that of this one.
    pub fn from_url(url: impl Into<String>) -> Result<Self> {
        Ok(Self::at(Server::from_url(url)?))
    }

    pub(crate) fn at(server: Server) -> Self {
        Self {
            server,
            timeout: TIMEOUT.into(),
            deadline: DEADLINE.into(),
        }
    }

    /// The member, login and certificates that the variables of `etcdctl` name: `ETCDCTL_ENDPOINTS`
    /// (one), `ETCDCTL_USER` (`NAME:PASSWORD`, or with `ETCDCTL_PASSWORD`), `ETCDCTL_CACERT`,
    /// `ETCDCTL_CERT`, `ETCDCTL_KEY`.
    pub fn from_env() -> Result<Self> {
        let endpoint = variable("ETCDCTL_ENDPOINTS")
            .ok_or_else(|| invalid("variable ETCDCTL_ENDPOINTS is not set to a member's URL"))?;
        if endpoint.contains(',') {
            return Err(invalid(
                "variable ETCDCTL_ENDPOINTS names several members: a snapshot is of one",
            ));
        }
        let mut source = Self::from_url(endpoint)?;
        let tls = &mut source.server.tls;
        tls.cacert = variable("ETCDCTL_CACERT").map(PathBuf::from);
        tls.cert = variable("ETCDCTL_CERT").map(PathBuf::from);
        tls.key = variable("ETCDCTL_KEY").map(PathBuf::from);
        source = source.login_from_env();
        source.server = source.server.checked()?;
        Ok(source)
    }

    /// How long the snapshot may take in all. An hour by default.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = limit.into();
        self
    }
}

/// What a source and a target have in common: the way to a server.
macro_rules! server {
    ($name:ident, $needs:literal) => {
        impl $name {
            /// The user of `ETCDCTL_USER` and `ETCDCTL_PASSWORD`, if there is none yet.
            #[must_use]
            pub fn login_from_env(mut self) -> Self {
                self.server.login_from_env();
                self
            }

            #[doc = concat!("As whom to log in, where the cluster has `auth enable`: ", $needs, ".")]
            #[must_use]
            pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
                self.server.user = Some(name.into());
                self.server.password = Some(Secret::new(password));
                self
            }

            /// Who may have signed the server's certificate, instead of whom the system trusts.
            #[must_use]
            pub fn cacert(mut self, file: impl Into<PathBuf>) -> Self {
                self.server.tls.cacert = Some(file.into());
                self
            }

            /// The certificate that a server asks for (`--client-cert-auth`), and its key. Where the
            /// cluster has `auth enable`, its common name is the user.
            #[must_use]
            pub fn certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
                self.server.tls.cert = Some(cert.into());
                self.server.tls.key = Some(key.into());
                self
            }

            /// How long the server may be silent. A minute by default.
            #[must_use]
            pub fn timeout(mut self, limit: Duration) -> Self {
                self.timeout = limit.into();
                self
            }
        }
    };
}

server!(Etcd, "a user with the role `root`");
server!(EtcdServer, "a user who may write below the prefix");

impl EtcdServer {
    /// Restores into the cluster of this member: `http://HOST:2379`, or `https://`.
    pub fn from_url(url: impl Into<String>) -> Result<Self> {
        Ok(Self::at(Server::from_url(url)?))
    }

    pub(crate) fn at(server: Server) -> Self {
        Self {
            server,
            timeout: TIMEOUT.into(),
            prefix: Vec::new(),
            conflict: Conflict::default(),
            leases: Leases::default(),
            kubernetes: false,
        }
    }

    /// Keys that begin with it, and no other. All by default.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What becomes of a key that is there already.
    #[must_use]
    pub fn conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }

    /// What becomes of leases.
    #[must_use]
    pub fn leases(mut self, leases: Leases) -> Self {
        self.leases = leases;
        self
    }

    /// Puts keys of a Kubernetes control plane too. Its controllers remember revisions, and miss
    /// changes when those go back: a data directory, with its revision raised, is what they need.
    #[must_use]
    pub fn kubernetes(mut self, allowed: bool) -> Self {
        self.kubernetes = allowed;
        self
    }
}

impl fmt::Display for EtcdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: impl Into<String>) -> Self {
            self.$name = Some(value.into());
            self
        }
    };
}

impl EtcdDataDir {
    /// Restores into `path`, the `--data-dir` of a member.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            etcdutl: "etcdutl".into(),
            name: None,
            initial_cluster: None,
            initial_cluster_token: None,
            initial_advertise_peer_urls: None,
            bump_revision: BUMP,
        }
    }

    /// The program `etcdutl` of the version that will run, or before 3.5 `etcdctl`. From `PATH` by
    /// default.
    #[must_use]
    pub fn etcdutl(mut self, program: impl Into<PathBuf>) -> Self {
        self.etcdutl = program.into();
        self
    }

    text! {
        /// `--name` of this member.
        name
    }
    text! {
        /// `--initial-cluster`: all members of the new cluster, `NAME=PEER-URL,…`. Each of them is
        /// restored from the same backup.
        initial_cluster
    }
    text! {
        /// `--initial-cluster-token` of the new cluster.
        initial_cluster_token
    }
    text! {
        /// `--initial-advertise-peer-urls` of this member.
        initial_advertise_peer_urls
    }

    /// By how much the revision goes up, a thousand million by default: more than the changes that
    /// are lost, so that nobody who remembers a revision of the old cluster, as every Kubernetes
    /// controller does, takes the new one's past for its present. Older revisions count as compacted.
    /// 0 leaves the revision alone, and is for tools that cannot raise it: before 3.4.27 and 3.5.10.
    #[must_use]
    pub fn bump_revision(mut self, by: u64) -> Self {
        self.bump_revision = by;
        self
    }
}

impl fmt::Display for EtcdDataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
