//! Sources and targets as configuration writes them.

use std::path::PathBuf;

use backup_core::Result;
use backup_core::retention::Span;
use backup_core::settings::Unknown;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::names::{Patterns, Rename};
use crate::options::{Aliases, Conflict, OpenSearch, OpenSearchCluster, Restoring};
use crate::server::{Pieces, invalid};
use crate::snapshot::{
    Kept, OpenSearchSnapshot, OpenSearchSnapshotTarget, Place, Register, Shared,
};

/// Configuration of a source.
#[derive(Deserialize)]
pub(crate) struct SourceTable {
    #[serde(flatten)]
    pieces: Pieces,
    #[serde(default)]
    indices: Patterns,
    #[serde(default)]
    state: Patterns,
    one_moment: Option<bool>,
    parallel: Option<usize>,
    timeout: Option<Span>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Configuration of a target.
#[derive(Deserialize)]
pub(crate) struct TargetTable {
    #[serde(flatten)]
    pieces: Pieces,
    #[serde(default)]
    indices: Patterns,
    #[serde(default)]
    state: Patterns,
    rename: Option<Rename>,
    #[serde(default)]
    conflict: Conflict,
    aliases: Option<Aliases>,
    parallel: Option<usize>,
    timeout: Option<Span>,
    /// The table of a source names a target too: the cluster that it reads.
    #[serde(rename = "one_moment")]
    _one_moment: Option<IgnoredAny>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl TryFrom<SourceTable> for OpenSearch {
    type Error = backup_core::Error;

    fn try_from(table: SourceTable) -> Result<Self> {
        table.unknown.refuse()?;
        let mut source = Self::new(table.pieces.server()?);
        source.indices = table.indices.checked()?;
        source.state = table.state.checked()?;
        source.one_moment = table.one_moment.unwrap_or(source.one_moment);
        source.timeout = table.timeout.unwrap_or(source.timeout);
        Ok(match table.parallel {
            Some(shards) => source.parallel(shards),
            None => source,
        })
    }
}

impl TryFrom<TargetTable> for OpenSearchCluster {
    type Error = backup_core::Error;

    fn try_from(table: TargetTable) -> Result<Self> {
        table.unknown.refuse()?;
        let mut target = Self::new(table.pieces.server()?);
        target.restoring = Restoring {
            indices: table.indices.checked()?,
            state: table.state.checked()?,
            rename: table.rename,
            conflict: table.conflict,
            aliases: table.aliases,
        };
        target.timeout = table.timeout.unwrap_or(target.timeout);
        Ok(match table.parallel {
            Some(shards) => target.parallel(shards),
            None => target,
        })
    }
}

/// Configuration of a source of snapshots.
#[derive(Deserialize)]
pub(crate) struct SnapshotTable {
    #[serde(flatten)]
    pieces: Pieces,
    folder: Option<PathBuf>,
    mounted: Option<PathBuf>,
    repository: Option<String>,
    register: Option<Register>,
    unencrypted: Option<bool>,
    #[serde(default)]
    indices: Patterns,
    #[serde(default)]
    allow_partial: bool,
    deadline: Option<Span>,
    timeout: Option<Span>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Configuration of a target for snapshots.
#[derive(Deserialize)]
pub(crate) struct SnapshotTargetTable {
    #[serde(flatten)]
    pieces: Pieces,
    folder: Option<PathBuf>,
    mounted: Option<PathBuf>,
    #[serde(default)]
    indices: Patterns,
    rename: Option<Rename>,
    #[serde(default)]
    conflict: Conflict,
    aliases: Option<Aliases>,
    deadline: Option<Span>,
    timeout: Option<Span>,
    /// The table of a source names a target too: the cluster that it reads.
    #[serde(rename = "allow_partial")]
    _allow_partial: Option<IgnoredAny>,
    #[serde(rename = "repository")]
    _repository: Option<IgnoredAny>,
    #[serde(rename = "register")]
    _register: Option<IgnoredAny>,
    #[serde(rename = "unencrypted")]
    _unencrypted: Option<IgnoredAny>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl TryFrom<SnapshotTable> for OpenSearchSnapshot {
    type Error = backup_core::Error;

    fn try_from(table: SnapshotTable) -> Result<Self> {
        table.unknown.refuse()?;
        let place = match (table.folder, table.repository) {
            (folder, Some(_)) if folder.is_some() || table.mounted.is_some() => {
                return Err(invalid(
                    "`folder` and `repository`: a snapshot goes through the pipeline or stays in the cluster",
                ));
            }
            (_, Some(repository)) => Place::Kept(Kept {
                repository,
                register: table.register,
                unencrypted: table.unencrypted.unwrap_or(false),
            }),
            _ if table.register.is_some() || table.unencrypted.is_some() => {
                return Err(invalid(
                    "`register` and `unencrypted` say something of a `repository`",
                ));
            }
            (Some(folder), None) => Place::Shared(Shared::new(folder, table.mounted)),
            (None, None) => {
                return Err(invalid(
                    "no place: write a `folder` below `path.repo` of the nodes, which this host has too, or a `repository` of the cluster",
                ));
            }
        };
        let mut source = Self::of(table.pieces.server()?, place);
        source.indices = table.indices.checked()?;
        source.allow_partial = table.allow_partial;
        source.deadline = table.deadline.unwrap_or(source.deadline);
        source.timeout = table.timeout.unwrap_or(source.timeout);
        Ok(source)
    }
}

impl TryFrom<SnapshotTargetTable> for OpenSearchSnapshotTarget {
    type Error = backup_core::Error;

    fn try_from(table: SnapshotTargetTable) -> Result<Self> {
        table.unknown.refuse()?;
        let shared = table
            .folder
            .map(|folder| Shared::new(folder, table.mounted));
        let mut target = Self::of(table.pieces.server()?, shared);
        target.restoring = Restoring {
            indices: table.indices.checked()?,
            rename: table.rename,
            conflict: table.conflict,
            aliases: table.aliases,
            ..Restoring::default()
        };
        target.deadline = table.deadline.unwrap_or(target.deadline);
        target.timeout = table.timeout.unwrap_or(target.timeout);
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn configuration_says_what_the_setters_say() {
        let read: OpenSearch = toml::from_str(
            "url = 'http://u@h'\npassword = 'canary'\nindices = ['a*', '-ab']\nstate = ['t']\none_moment = false\nparallel = 3\ntimeout = '5s'",
        )
        .unwrap();
        let built = OpenSearch::from_url("http://h")
            .unwrap()
            .user("u")
            .password("canary");
        let built = built
            .indices(["a*", "-ab"])
            .state(["t"])
            .one_moment(false)
            .parallel(3);
        let built = built.timeout(Duration::from_secs(5));
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        assert!(!format!("{read:#?}").contains("canary"));

        let read: OpenSearchCluster = toml::from_str(
            "url = 'http://h'\nindices = ['a']\nrename = 'old-*'\nconflict = 'fail'\naliases = 'swap'\none_moment = true",
        )
        .unwrap();
        let built = OpenSearchCluster::from_url("http://h")
            .unwrap()
            .indices(["a"]);
        let built = built
            .rename("old-*")
            .unwrap()
            .conflict(Conflict::Fail)
            .aliases(Aliases::Swap);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
    }

    #[test]
    fn snapshots_are_configured_likewise() {
        let read: OpenSearchSnapshot = toml::from_str(
            "url = 'http://h'\nfolder = '/n'\nmounted = '/m'\nindices = ['a']\nallow_partial = true\ndeadline = '2h'",
        )
        .unwrap();
        let built = OpenSearchSnapshot::new("http://h", "/n").unwrap();
        let built = built.mounted("/m").indices(["a"]).allow_partial(true);
        let built = built.deadline(Duration::from_secs(7200));
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        let read: OpenSearchSnapshot = toml::from_str(
            "url = 'http://h'\nrepository = 'r'\nregister = { type = 'fs', settings = { location = '/n' } }\nunencrypted = true",
        )
        .unwrap();
        let built = OpenSearchSnapshot::kept("http://h", "r").unwrap();
        let built = built.register("fs", [("location", "/n")]).unencrypted(true);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        let target: OpenSearchSnapshotTarget = toml::from_str(
            "url = 'http://h/'\nfolder = '/n'\nconflict = 'close'\nrename = 'a*'\nallow_partial = true",
        )
        .unwrap();
        assert_eq!(target.to_string(), "http://h");
        for bad in [
            "",
            "folder = '/n'\nstate = ['a']",
            "folder = '/n'\nrepository = 'r'",
            "mounted = '/m'\nrepository = 'r'",
            "folder = '/n'\nunencrypted = true",
            "repository = 'r'\nregister = { type = 'fs', setting = {} }",
        ] {
            let bad = format!("url = 'http://h'\n{bad}");
            assert!(toml::from_str::<OpenSearchSnapshot>(&bad).is_err(), "{bad}");
        }
        let unknown = "url = 'http://h'\nstate = ['a']";
        assert!(toml::from_str::<OpenSearchSnapshotTarget>(unknown).is_err());
    }

    #[test]
    fn configuration_that_cannot_be_right_is_refused() {
        for bad in [
            "",
            "url = 'redis://h'",
            "url = 'http://h'\nindex = ['a']",
            "url = 'http://h'\nindices = ['a,b']",
            "url = 'http://h'\nindices = ['']",
            "url = 'http://h'\ncacert = '/c'",
            "url = 'https://h'\ncert = '/c'",
            "url = 'http://u:p@h'\npassword = 'q'",
        ] {
            assert!(toml::from_str::<OpenSearch>(bad).is_err(), "{bad}");
        }
        for bad in [
            "url = 'http://h'\nrename = 'a'",
            "url = 'http://h'\nconflict = 'ask'",
            "url = 'http://h'\naliases = true",
        ] {
            assert!(toml::from_str::<OpenSearchCluster>(bad).is_err(), "{bad}");
        }
    }
}
