//! The way back, behind its guards.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde::Serialize;
use tokio::time::Instant;

use super::{Backup, Job, NamedSink, space};
use crate::catalog::Listed;
use crate::pipeline::decode;
use crate::restore::PartReader;
use crate::{
    ByteStream, Error, ErrorKind, Event, Id, Key, Locator, Occupancy, Publication, RestoreOptions,
    Result, StreamReader, Target,
};

/// What a restore is allowed to do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RestoreRequest {
    /// Read from this sink; the first that has the backup otherwise.
    pub from: Option<String>,
    /// The name of the target whose contents may be replaced.
    pub overwrite: Option<String>,
    /// Agree to restore in production, and where room seems to be missing.
    pub force: bool,
    /// For the target.
    pub options: RestoreOptions,
}

impl RestoreRequest {
    /// Read from this sink.
    #[must_use]
    pub fn from(mut self, sink: impl Into<String>) -> Self {
        self.from = Some(sink.into());
        self
    }

    /// Agree to replace what the target of this name holds.
    #[must_use]
    pub fn overwrite(mut self, target: impl Into<String>) -> Self {
        self.overwrite = Some(target.into());
        self
    }

    /// Agree to restore in production, and where room seems to be missing.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// Options for the target.
    #[must_use]
    pub fn options(mut self, options: RestoreOptions) -> Self {
        self.options = options;
        self
    }
}

/// What a restore did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// The backup.
    pub id: Id,
    /// Where it was read.
    pub sink: String,
    /// How many parts it has.
    pub parts: usize,
    /// Their plain bytes.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What is left to do for people, a line each ([`Target::next_steps`]).
    pub next_steps: Vec<String>,
}

/// What a restore would do. `Display` is a text for people.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The backup.
    pub id: Id,
    /// What the target is called.
    pub target: String,
    /// Where it would be read.
    pub sink: String,
    /// Plain bytes that would be written.
    pub bytes: u64,
    /// About how many bytes the target needs room for.
    pub needed: u64,
    /// How many it has, where it can tell.
    pub free: Option<u64>,
    /// What the target holds now, if anything.
    pub destroys: Option<String>,
    /// Why the restore would be refused as asked, if it would.
    pub refused: Option<String>,
    /// What would happen, in order.
    pub steps: Vec<String>,
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "restore {} from `{}` into {}",
            self.id, self.sink, self.target
        )?;
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {step}", i + 1)?;
        }
        let needed = space::mib(self.needed);
        match self.free {
            Some(free) => writeln!(f, "room: {}, about {needed} needed", space::mib(free))?,
            None => writeln!(f, "room: not known, about {needed} needed")?,
        }
        match (&self.destroys, &self.refused) {
            (_, Some(reason)) => writeln!(f, "refused as asked: {reason}"),
            (Some(what), None) => writeln!(f, "destroys: {what}"),
            (None, None) => writeln!(f, "destroys: nothing"),
        }
    }
}

impl Job {
    /// Brings a backup back into `target`.
    ///
    /// Refused: a target of another kind, one that holds something unless
    /// [`overwrite`](RestoreRequest::overwrite) repeats its name, one that has no room unless
    /// [`force`](RestoreRequest::force) insists, and in production without `force` and its name.
    /// `Corrupt`: something of the backup is not what was written; the target is as it was.
    /// Signatures, checksums and presence are checked first; every byte is hashed again as it is
    /// read, before anything is published.
    pub async fn restore(
        &self,
        id: &Id,
        target: &dyn Target,
        request: RestoreRequest,
    ) -> Result<Restored> {
        let clock = Instant::now();
        let backup = self.find(id.as_str()).await?;
        let named = self.pick(&backup, request.from.as_deref())?;
        let occupancy = target.occupancy().await?;
        self.guard(&backup, target, &occupancy, &request)?;
        let (free, needed) = space::of_target(target, &backup.manifest).await;
        self.0.observer.event(&Event::Space {
            place: &target.to_string(),
            free,
            needed: Some(needed),
        });
        space::guard(target, free, needed, &request)?;
        self.check_whole(named, &backup).await?;

        let manifest = &backup.manifest;
        if !target.publishes_atomically() {
            // It cannot take back what it wrote: read everything once before it sees a byte.
            for part in &manifest.parts {
                drain(decode::plain(
                    &self.0.pipeline,
                    Arc::clone(&named.original),
                    part,
                )?)
                .await?;
            }
        }
        let parts = PartReader::new(
            Arc::clone(manifest),
            self.0.pipeline.clone(),
            Arc::clone(&named.original),
            Arc::clone(&self.0.observer),
        );
        let mut options = request.options;
        options.replace = matches!(occupancy, Occupancy::Holds(_));
        target
            .restore(&parts, &options)
            .await
            .map_err(|e| e.context(format!("restore {id} into `{target}`")))?;
        Ok(Restored {
            id: id.clone(),
            sink: named.name.clone(),
            parts: manifest.parts.len(),
            bytes: manifest.plain_bytes(),
            elapsed: clock.elapsed(),
            next_steps: target.next_steps(&options),
        })
    }

    /// What [`restore`](Self::restore) would do with the same arguments. Changes nothing.
    pub async fn plan_restore(
        &self,
        id: &Id,
        target: &dyn Target,
        request: &RestoreRequest,
    ) -> Result<RestorePlan> {
        let backup = self.find(id.as_str()).await?;
        let named = self.pick(&backup, request.from.as_deref())?;
        let occupancy = target.occupancy().await?;
        let (free, needed) = space::of_target(target, &backup.manifest).await;
        let refused = self
            .guard(&backup, target, &occupancy, request)
            .and_then(|()| space::guard(target, free, needed, request))
            .err();
        let mut steps = vec![format!(
            "check signatures and checksums in `{}`",
            named.name
        )];
        if !target.publishes_atomically() {
            steps.push("read and hash every part once".to_owned());
        }
        for part in &backup.manifest.parts {
            steps.push(format!(
                "restore part `{}`, {} bytes",
                part.name, part.plain.len
            ));
        }
        if target.publishes_atomically() {
            steps.push("publish everything in one step, after the last hash was right".to_owned());
        }
        Ok(RestorePlan {
            id: id.clone(),
            target: target.to_string(),
            sink: named.name.clone(),
            bytes: backup.manifest.plain_bytes(),
            needed,
            free,
            destroys: match occupancy {
                Occupancy::Empty => None,
                Occupancy::Holds(what) => Some(what),
            },
            refused: refused.map(|error| error.chain()),
            steps,
        })
    }

    /// Copies a backup's files into the folder `out`, which must not exist or be empty: as they
    /// are stored, for the stock commands of `RESTORE.md`, or with `decode` the plain parts. What a
    /// backup has of earlier ones is stored in folders beside its own, each named by its id, as in a
    /// sink. Every byte is checked; a file that would be wrong does not appear.
    pub async fn fetch(
        &self,
        id: &Id,
        out: &Path,
        decoded: bool,
        from: Option<&str>,
    ) -> Result<Vec<PathBuf>> {
        let backup = self.find(id.as_str()).await?;
        let named = self.pick(&backup, from)?;
        self.check_whole(named, &backup).await?;
        let at = |e| Error::io(format!("folder `{}`", out.display()), e);
        fs::create_dir_all(out).map_err(at)?;
        if fs::read_dir(out).map_err(at)?.next().is_some() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("folder `{}` is not empty", out.display()),
            ));
        }
        let mut objects = backup.manifest.parts.iter().flat_map(|part| &part.objects);
        let is_alone = objects.all(|object| backup.manifest.owns(object));
        let place = |key: &Key| -> Result<PathBuf> {
            let mut names = key.as_str().rsplit('/').skip(1);
            let folder = match names.next().filter(|_| !is_alone) {
                Some(id) => out.join(id),
                None => out.to_owned(),
            };
            fs::create_dir_all(&folder).map_err(at)?;
            Ok(folder.join(key.name()))
        };
        let mut files = Vec::new();
        let sink = || Arc::clone(&named.original);
        for part in &backup.manifest.parts {
            if decoded {
                let bytes = decode::plain(&self.0.pipeline, sink(), part)?;
                files.push(save(bytes, out.join(&part.name)).await?);
            } else {
                for object in &part.objects {
                    let bytes = decode::stored(sink(), vec![object.clone()]);
                    files.push(save(bytes, place(&object.key)?).await?);
                }
            }
        }
        if !decoded {
            // Documents were checked above, and are small: as the sink has them.
            let objects: Vec<&Key> = backup
                .manifest
                .parts
                .iter()
                .flat_map(|p| &p.objects)
                .map(|o| &o.key)
                .collect();
            for key in self.listing(&named.original, id).await?.into_keys() {
                if !objects.contains(&&key) {
                    let bytes = named.original.get(&Locator::from(&key), None).await?;
                    files.push(save(bytes, place(&key)?).await?);
                }
            }
        }
        Ok(files)
    }

    /// The sink to read from.
    fn pick(&self, backup: &Backup, from: Option<&str>) -> Result<&NamedSink> {
        let has = |name: &str| backup.copies.iter().any(|copy| copy.sink == name);
        match from {
            Some(name) => {
                let named = self.sink(name)?;
                match has(name) {
                    true => Ok(named),
                    false => Err(Error::new(
                        ErrorKind::NotFound,
                        format!("sink `{name}` does not have {}", backup.manifest.id),
                    )),
                }
            }
            None => self
                .0
                .sinks
                .iter()
                .find(|named| has(&named.name))
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::NotFound,
                        format!("no sink has {}", backup.manifest.id),
                    )
                }),
        }
    }

    fn guard(
        &self,
        backup: &Backup,
        target: &dyn Target,
        occupancy: &Occupancy,
        request: &RestoreRequest,
    ) -> Result<()> {
        let refused = |why: String| Err(Error::new(ErrorKind::Refused, why));
        let (kind, name) = (&backup.manifest.kind, target.to_string());
        if target.kind() != kind {
            return refused(format!(
                "`{name}` takes backups of kind `{}`, this one is of kind `{kind}`",
                target.kind()
            ));
        }
        if backup.manifest.receipt.is_some() && !target.takes_receipts() {
            return refused(format!(
                "this backup is a receipt for what the store keeps itself, and `{name}` takes none"
            ));
        }
        let named = request.overwrite.as_deref() == Some(&name);
        if let Some(other) = request.overwrite.as_deref().filter(|_| !named) {
            return refused(format!(
                "asked to overwrite `{other}`, but the target is `{name}`"
            ));
        }
        if self.0.production && !(request.force && named) {
            return refused(format!(
                "`{name}` is production: restoring there needs --force and --overwrite {name}, both"
            ));
        }
        match occupancy {
            Occupancy::Holds(what) if !named => refused(format!(
                "`{name}` holds {what}: restore elsewhere, or repeat its name to replace it: --overwrite {name}"
            )),
            _ => Ok(()),
        }
    }

    /// Everything but the bytes of the parts, which are hashed when they are read.
    async fn check_whole(&self, named: &NamedSink, backup: &Backup) -> Result<()> {
        let id = &backup.manifest.id;
        let listing = self.listing(&named.original, id).await?;
        let found = self.check_documents(&named.original, id, &listing).await?;
        let is_same = |listed: &Listed| listed.digest == backup.digest;
        let problem = match (found.problems.into_iter().next(), &found.listed) {
            (Some(problem), _) => problem.error,
            (None, Some(listed)) if is_same(listed) => return Ok(()),
            (None, _) => Error::new(
                ErrorKind::Corrupt,
                "another manifest than the one that was written is shown",
            ),
        };
        let others: Vec<&str> = backup
            .copies
            .iter()
            .map(|copy| copy.sink.as_str())
            .filter(|sink| *sink != named.name)
            .collect();
        let hint = match others.is_empty() {
            true => String::new(),
            false => format!("; another copy is in `{}`", others.join("`, `")),
        };
        Err(problem.context(format!("{id} in sink `{}` is damaged{hint}", named.name)))
    }
}

async fn drain(mut bytes: ByteStream) -> Result<()> {
    while let Some(chunk) = bytes.next().await {
        chunk?;
    }
    Ok(())
}

/// Writes a stream into a new private file that appears only when it is whole.
async fn save(bytes: ByteStream, path: PathBuf) -> Result<PathBuf> {
    let at = path.clone();
    let work = move |reader: &mut StreamReader, publication: &Publication| {
        let named = |e| Error::io(format!("fetch `{}`", at.display()), e);
        let temp = at.with_file_name(".fetching");
        let written = (|| {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&temp)?;
            std::io::copy(reader, &mut file)?;
            file.sync_all()
        })();
        let rename = || fs::rename(&temp, &at).map_err(named);
        let undo = at.clone();
        let published = written
            .map_err(named)
            .and_then(|()| publication.publish(rename, move || drop(fs::remove_file(undo))));
        if published.is_err() {
            let _ = fs::remove_file(&temp);
        }
        published
    };
    bytes.consume(work).await?;
    Ok(path)
}
