use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};

use backup_core::process::{Env, Program};
use backup_core::{
    Error, ErrorKind, Occupancy, PartReader, Publication, RestoreOptions, Result, StreamReader,
    Target, async_trait, blocking, free_space,
};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use tempfile::TempDir;

use crate::graft::Graft;
use crate::lines::{self, Lines};
use crate::reach::{self, Reach};
use crate::snapshot::{checked, seal, told};
use crate::source::minor;
use crate::{DB, EtcdDataDir, KIND};

#[async_trait]
impl Target for EtcdDataDir {
    fn kind(&self) -> &str {
        KIND
    }

    /// Empty: no `member` in it. Whatever else is there, as in a mount point, stays.
    async fn occupancy(&self) -> Result<Occupancy> {
        match fs::symlink_metadata(self.member()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Occupancy::Empty),
            Err(e) => Err(self.failed("look into", e)),
            Ok(_) => Ok(Occupancy::Holds("the data of a member".into())),
        }
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        let parents = self.path.ancestors();
        let mut there = parents.filter(|path| path.exists());
        Ok(there.next().and_then(free_space))
    }

    fn publishes_atomically(&self) -> bool {
        true
    }

    /// Writes the snapshot into a hidden folder in the directory, checks it meanwhile, lays the changes
    /// since upon it, up to the option `revision` where that is given, lets `etcdutl`
    /// make a member of it there, gives that to the owner of the directory, and renames it to
    /// `member`.
    ///
    /// Refused: a directory in which a server runs, and an `etcdutl` of another minor version than
    /// the server had: formats differ (<https://github.com/etcd-io/etcd/issues/13070>). What a
    /// killed process leaves behind is the hidden folder `.lifebelt-*`, which holds the snapshot, and, where
    /// it was killed between two renames, in `old` the member that was there.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        let wanted = reach::wanted(options)?;
        self.refuse_running()?;
        self.refuse_other_version(parts).await?;
        let place = Place::new(&self.path).map_err(|e| self.failed("make a folder in", e))?;
        let snapshot = place.path().join(DB);
        let (bytes, tell) = checked(parts.open(DB).await?);
        let file = snapshot.clone();
        bytes.consume(move |data, _| write(&file, data)).await?;
        let revision = told(tell)?.revision;
        let reach = Reach::of(parts, (revision, revision), wanted)?;
        graft(parts, &reach, &snapshot).await?;
        self.run_etcdutl(&snapshot, place.path()).await?;
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
    fn member(&self) -> PathBuf {
        self.path.join(MEMBER)
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        Error::io(format!("{verb} {self}"), error)
    }

    /// A server holds a lock on its database (`bbolt/bolt_unix.go`).
    fn refuse_running(&self) -> Result<()> {
        let Ok(file) = File::open(self.member().join("snap/db")) else {
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

    async fn run_etcdutl(&self, snapshot: &Path, place: &Path) -> Result<()> {
        let text = |path: &Path| path.display().to_string();
        let mut argv = vec![
            text(&self.etcdutl),
            "snapshot".into(),
            "restore".into(),
            text(snapshot),
        ];
        argv.extend(["--data-dir".into(), text(&place.join(DATA))]);
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
    fn swap(&self, place: &Place, replace: bool) -> Result<()> {
        let failed = |e| self.failed("rename a member into", e);
        let made = place.path().join(DATA).join(MEMBER);
        own(&made, &fs::metadata(&self.path).map_err(failed)?).map_err(failed)?;
        let old = place.path().join("old");
        let moved = match fs::rename(self.member(), &old) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            renamed => renamed.map(|()| true).map_err(failed)?,
        };
        let renamed = match moved && !replace {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => fs::rename(&made, self.member()),
        };
        if renamed.is_err() && moved {
            fs::rename(&old, self.member()).map_err(failed)?;
        }
        renamed.map_err(failed)?;
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(failed)
    }
}

/// A hidden folder in the data directory, which goes with what is left in it; the directory too,
/// if it was not there before and nothing came into it.
struct Place {
    // Dropped first.
    folder: TempDir,
    _directory: Made,
}

struct Made(Option<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        // Fails where something is in it.
        let _ = self.0.as_ref().map(fs::remove_dir);
    }
}

impl Place {
    fn new(directory: &Path) -> io::Result<Self> {
        let made = fs::DirBuilder::new().mode(0o700).create(directory);
        let made = match made {
            Ok(()) => Made(Some(directory.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Made(None),
            Err(e) => return Err(e),
        };
        let folder = tempfile::Builder::new()
            .prefix(".lifebelt-")
            .tempdir_in(directory)?;
        Ok(Self {
            folder,
            _directory: made,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Lays the changes upon the snapshot, up to the last that is wanted.
async fn graft(parts: &PartReader, reach: &Reach, snapshot: &Path) -> Result<()> {
    if reach.changes.is_empty() {
        return Ok(());
    }
    let mut graft = Graft::open(snapshot)?;
    let until = reach.until;
    for (part, revisions) in &reach.changes {
        let mut read = Lines::new(*revisions);
        let add = move |data: &mut StreamReader, _: &Publication| {
            while let Some(chunk) = data.next_chunk()? {
                let rows = read.feed(&chunk)?;
                let wanted = rows.iter().filter(|row| lines::main(&row.at) <= until);
                wanted.into_iter().try_for_each(|row| graft.add(row))?;
            }
            read.finish().map(|()| graft)
        };
        graft = parts.open(part).await?.consume(add).await?;
    }
    let path = snapshot.to_owned();
    let sealed = blocking(move || graft.finish().and_then(|()| seal(&path))).await?;
    match sealed.revision == until {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Other,
            format!(
                "the changes lead to revision {} instead of {until}",
                sealed.revision
            ),
        )),
    }
}

fn write(file: &Path, data: &mut StreamReader) -> Result<()> {
    let failed = |e| Error::io(format!("write {}", file.display()), e);
    let mut options = File::options();
    let opened = options.write(true).create_new(true).mode(0o600).open(file);
    let mut opened = opened.map_err(failed)?;
    while let Some(chunk) = data.next_chunk()? {
        opened.write_all(&chunk).map_err(failed)?;
    }
    Ok(())
}

/// Gives a folder and all in it to whoever `owner` belongs to: the server runs as somebody.
fn own(path: &Path, owner: &fs::Metadata) -> io::Result<()> {
    let known = fs::symlink_metadata(path)?;
    if (known.uid(), known.gid()) != (owner.uid(), owner.gid()) {
        lchown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    if known.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

const MEMBER: &str = "member";
const DATA: &str = "data";

fn program<'a>(argv: &'a [String], env: &'a Env) -> Program<'a> {
    Program {
        argv,
        env,
        env_clear: false,
        directory: None,
    }
}
