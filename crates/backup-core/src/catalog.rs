//! The manifests in one sink. There is no other database: this is rebuilt by listing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::digest::Digest;
use crate::manifest::{LIMIT, Manifest};
use crate::original::originals;
use crate::record::{self, Attestation, AttestationKind, PruneRecord};
use crate::task::{AbortOnDrop, spawn};
use crate::{Error, ErrorKind, Id, Result, Sink, Verifier, document, layout};

/// How many manifests are read at once.
const READS: usize = 32;

/// What one sink holds of one job.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Complete backups: those with a manifest that can be trusted.
    pub backups: BTreeMap<Id, Listed>,
    /// Ids with objects but without a manifest: a run in flight, or what one left behind.
    pub orphans: Vec<Id>,
    /// Ids whose manifest cannot be read or trusted, and why.
    pub damaged: BTreeMap<Id, Error>,
    /// Complete backups whose manifest something hides: a delete marker or a newer version. What
    /// was written is still there.
    pub hidden: Vec<Id>,
    /// Deletions on record, oldest first.
    pub prunes: Vec<PruneRecord>,
    /// Records that cannot be read or trusted.
    pub problems: Vec<Error>,
}

/// A complete backup in a [`Catalog`].
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// SHA-256 of the manifest's bytes.
    pub digest: Digest,
    /// What was attested of exactly these bytes, oldest first.
    pub attestations: Vec<Attestation>,
}

impl Listed {
    /// The newest attestation of `kind`.
    pub fn attested(&self, kind: AttestationKind) -> Option<&Attestation> {
        self.attestations.iter().rev().find(|a| a.kind == kind)
    }

    /// The hold that no later release ended.
    pub fn hold(&self) -> Option<&Attestation> {
        self.attestations
            .iter()
            .rev()
            .find(|a| matches!(a.kind, AttestationKind::Hold | AttestationKind::Release))
            .filter(|a| a.kind == AttestationKind::Hold)
    }
}

impl Catalog {
    /// Reads the catalog of `job` in `sink`. With a verifier, what it does not vouch for is a
    /// problem and no backup.
    pub async fn load(
        sink: &Arc<dyn Sink>,
        job: &str,
        verifier: Option<&Arc<dyn Verifier>>,
    ) -> Result<Self> {
        let mut catalog = Self::default();
        let children: Vec<String> = sink
            .children(Some(&layout::job(job)?))
            .try_collect()
            .await?;
        let ids: Vec<Id> = children
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        let mut manifests = futures::stream::iter(ids)
            .map(|id| {
                // A task each, so that signatures are checked on every core.
                let (sink, job, verifier) = (Arc::clone(sink), job.to_owned(), verifier.cloned());
                let task = spawn(async move {
                    let read = read_original(&sink, &job, &id, verifier.as_deref()).await;
                    (id, read)
                });
                AbortOnDrop(task)
            })
            .buffer_unordered(READS);
        while let Some(joined) = manifests.next().await {
            let (id, read) = joined
                .map_err(|e| Error::new(ErrorKind::Other, "read manifests").with_source(e))?;
            match read {
                Ok((listed, hidden)) => {
                    catalog.hidden.extend(hidden.then(|| id.clone()));
                    catalog.backups.insert(id, listed);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => catalog.orphans.push(id),
                Err(error) if is_verdict(error.kind()) => drop(catalog.damaged.insert(id, error)),
                Err(error) => return Err(error),
            }
        }
        drop(manifests);
        let sink = &originals(sink);
        let has = |folder: &str| children.iter().any(|name| name == folder);
        if has(layout::ATTESTATIONS) {
            catalog.load_attestations(sink, job, verifier).await?;
        }
        if has(layout::PRUNES) {
            let folder = layout::prunes(job)?;
            let (records, problems) =
                record::load(&**sink, &folder, verifier.map(|v| &**v)).await?;
            catalog.prunes = records.into_values().collect();
            catalog.problems.extend(problems);
        }
        catalog.orphans.sort();
        catalog.hidden.sort();
        Ok(catalog)
    }

    async fn load_attestations(
        &mut self,
        sink: &Arc<dyn Sink>,
        job: &str,
        verifier: Option<&Arc<dyn Verifier>>,
    ) -> Result<()> {
        let folder = layout::job(job)?.join(layout::ATTESTATIONS)?;
        let (records, problems) =
            record::load::<Attestation>(&**sink, &folder, verifier.map(|v| &**v)).await?;
        self.problems.extend(problems);
        // Keys sort by time within an id.
        for (key, attestation) in records {
            match self.backups.get_mut(&attestation.id) {
                Some(backup) if backup.digest == attestation.manifest => {
                    backup.attestations.push(attestation);
                }
                Some(_) => self.problems.push(Error::new(
                    ErrorKind::Corrupt,
                    format!("`{key}` attests another manifest than the one that is there"),
                )),
                None => {}
            }
        }
        Ok(())
    }

    /// The complete backup with the highest sequence; of a fork the higher id.
    pub fn head(&self) -> Option<&Listed> {
        self.backups
            .values()
            .max_by_key(|b| (b.manifest.sequence, &b.manifest.id))
    }
}

/// What a reader says of a manifest's bytes, as opposed to a sink that did not answer.
fn is_verdict(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported)
}

/// [`read_manifest`] of what is visible or, if that is none, of what was written there; and
/// whether it was hidden.
async fn read_original(
    sink: &Arc<dyn Sink>,
    job: &str,
    id: &Id,
    verifier: Option<&dyn Verifier>,
) -> Result<(Listed, bool)> {
    match read_manifest(&**sink, job, id, verifier).await {
        Err(error) if sink.capabilities().versions && error.kind() != ErrorKind::Unavailable => {
            let original = read_manifest(&*originals(sink), job, id, verifier).await;
            original.map(|listed| (listed, true)).map_err(|_| error)
        }
        read => read.map(|listed| (listed, false)),
    }
}

/// Reads one manifest and checks that it is signed, and for this job and id.
pub(crate) async fn read_manifest(
    sink: &dyn Sink,
    job: &str,
    id: &Id,
    verifier: Option<&dyn Verifier>,
) -> Result<Listed> {
    let key = layout::object(job, id, layout::MANIFEST)?;
    let comment = document::comment(&key);
    let bytes = document::read_signed(sink, &key, LIMIT, &comment, verifier).await?;
    parse_manifest(job, id, &bytes)
}

/// The manifest in `bytes`, which were stored for this job and id.
pub(crate) fn parse_manifest(job: &str, id: &Id, bytes: &[u8]) -> Result<Listed> {
    let key = layout::object(job, id, layout::MANIFEST)?;
    let manifest = Manifest::parse(bytes).map_err(|e| e.context(format!("read `{key}`")))?;
    if manifest.id != *id || manifest.job != job {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "`{key}` is the manifest of {}/{}",
                manifest.job, manifest.id
            ),
        ));
    }
    Ok(Listed {
        manifest: Arc::new(manifest),
        digest: Digest::of(bytes),
        attestations: Vec::new(),
    })
}
