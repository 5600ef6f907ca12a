use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backup_core::process::{Env, Program};
use backup_core::{
    Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target, async_trait,
    free_space,
};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use tempfile::TempDir;

use crate::snapshot::{checked, told};
use crate::{DB, EtcdDataDir, KIND};

#[async_trait]
impl Target for EtcdDataDir {
    fn kind(&self) -> &str {
        KIND
    }

    /// Empty: no such directory, or nothing in it.
    async fn occupancy(&self) -> Result<Occupancy> {
        match fs::read_dir(&self.path).map(|mut entries| entries.next()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Occupancy::Empty),
            Err(e) => Err(self.failed("look into", e)),
            Ok(None) => Ok(Occupancy::Empty),
            Ok(Some(_)) if self.path.join("member").exists() => {
                Ok(Occupancy::Holds("the data directory of a member".into()))
            }
            Ok(Some(_)) => Ok(Occupancy::Holds("files that are no member's".into())),
        }
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        Ok(free_space(self.parent()))
    }

    fn publishes_atomically(&self) -> bool {
        true
    }

    /// Writes the snapshot beside the directory, checks it meanwhile, lets `etcdutl` make a
    /// directory of it there, and renames that.
    ///
    /// Refused: a directory in which a server runs, and an `etcdutl` of another minor version than
    /// the server had: formats differ (<https://github.com/etcd-io/etcd/issues/13070>). What a
    /// killed process leaves behind is a hidden directory `.lifebelt-*`, which holds the snapshot.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        if let Some(name) = options.extra.keys().next() {
            let message = format!("a restore of kind `{KIND}` has no option `{name}`");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        self.refuse_running()?;
        self.refuse_other_version(parts).await?;
        let place = tempfile::Builder::new()
            .prefix(".lifebelt-")
            .tempdir_in(self.parent());
        let place = place.map_err(|e| self.failed("make a directory beside", e))?;
        let snapshot = place.path().join(DB);
        let (bytes, tell) = checked(parts.open(DB).await?);
        let (file, failed) = (snapshot.clone(), self.path.clone());
        let write = move |file: &Path, data: &mut backup_core::StreamReader| {
            let failed = |e| Error::io(format!("write beside {}", failed.display()), e);
            let opened = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(file);
            let mut opened = opened.map_err(failed)?;
            while let Some(chunk) = data.next_chunk()? {
                opened.write_all(&chunk).map_err(failed)?;
            }
            Ok(())
        };
        bytes.consume(move |data, _| write(&file, data)).await?;
        told(tell)?;
        self.run_etcdutl(&snapshot, &place).await?;
        // It took a while.
        self.refuse_running()?;
        self.swap(&place, options.replace)
    }

    fn next_steps(&self, _options: &RestoreOptions) -> Vec<String> {
        let mut steps = vec![format!("start etcd with --data-dir {self}")];
        if self.initial_cluster.is_some() {
            steps.push(
                "restore every other member from the same backup, before any is started".into(),
            );
        }
        steps
    }
}

impl EtcdDataDir {
    fn parent(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        Error::io(format!("{verb} {self}"), error)
    }

    /// A server holds a lock on its database (`bbolt/bolt_unix.go`).
    fn refuse_running(&self) -> Result<()> {
        let Ok(file) = File::open(self.path.join("member/snap/db")) else {
            return Ok(());
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(
                ErrorKind::Refused,
                format!("an etcd runs in {self}: stop it first"),
            )),
            _ => Ok(()),
        }
    }

    async fn refuse_other_version(&self, parts: &PartReader) -> Result<()> {
        let had = parts.facts().get("server_version").and_then(Value::as_str);
        let argv = [self.etcdutl.display().to_string(), "version".to_owned()];
        // `etcdctl` before 3.4 speaks another protocol unless it is told.
        let env = Env::default().without_secrets().with("ETCDCTL_API", "3");
        let said = match program(&argv, &env).output(ErrorKind::Other) {
            Ok(output) => output.collect(4096).await,
            Err(error) => Err(error),
        };
        let said = said.map_err(|e| {
            e.context(format!(
                "`{}` does not run: install it, or say where it is with `etcdutl`",
                self.etcdutl.display()
            ))
        })?;
        let said = String::from_utf8_lossy(&said);
        let version = said.lines().find_map(|line| line.split_once("version: "));
        let version = version.map(|(_, version)| version.trim());
        match (had.and_then(minor), version.and_then(minor)) {
            (Some(had), Some(has)) if had != has => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the backup is of etcd {had}, and `{}` is of {has}: name one of {had} with `etcdutl`",
                    self.etcdutl.display()
                ),
            )),
            _ => Ok(()),
        }
    }

    async fn run_etcdutl(&self, snapshot: &Path, place: &TempDir) -> Result<()> {
        let text = |path: &Path| path.display().to_string();
        let mut argv = vec![
            text(&self.etcdutl),
            "snapshot".into(),
            "restore".into(),
            text(snapshot),
        ];
        argv.extend(["--data-dir".into(), text(&place.path().join(DATA))]);
        for (option, value) in [
            ("--name", &self.name),
            ("--initial-cluster", &self.initial_cluster),
            ("--initial-cluster-token", &self.initial_cluster_token),
            (
                "--initial-advertise-peer-urls",
                &self.initial_advertise_peer_urls,
            ),
        ] {
            argv.extend(
                value
                    .iter()
                    .flat_map(|value| [option.to_owned(), value.clone()]),
            );
        }
        if self.bump_revision > 0 {
            let by = self.bump_revision.to_string();
            argv.extend(["--bump-revision".into(), by, "--mark-compacted".into()]);
        }
        let env = Env::default().without_secrets().with("ETCDCTL_API", "3");
        let mut said = program(&argv, &env).output(ErrorKind::Other)?;
        while let Some(chunk) = futures::StreamExt::next(&mut said).await {
            chunk.map_err(|e| e.context("restore the snapshot"))?;
        }
        Ok(())
    }

    /// What is there now goes into `place`, and with it.
    fn swap(&self, place: &TempDir, replace: bool) -> Result<()> {
        let failed = |e| self.failed("rename to", e);
        let (made, old): (PathBuf, PathBuf) = (place.path().join(DATA), place.path().join("old"));
        let moved = match fs::rename(&self.path, &old) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            renamed => renamed.map(|()| true).map_err(failed)?,
        };
        let is_empty = || fs::read_dir(&old).is_ok_and(|mut entries| entries.next().is_none());
        let renamed = match moved && !replace && !is_empty() {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => fs::rename(&made, &self.path),
        };
        if renamed.is_err() && moved {
            fs::rename(&old, &self.path).map_err(failed)?;
        }
        renamed.map_err(failed)?;
        File::open(self.parent())
            .and_then(|parent| parent.sync_all())
            .map_err(failed)
    }
}

const DATA: &str = "data";

fn program<'a>(argv: &'a [String], env: &'a Env) -> Program<'a> {
    Program {
        argv,
        env,
        env_clear: false,
        directory: None,
    }
}

/// `3.6` of `3.6.16`.
fn minor(version: &str) -> Option<String> {
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next()?, numbers.next()?);
    Some(format!("{major}.{minor}"))
}
