//! Write-once records beside the backups: what was verified, proven, held, deleted.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::{
    Error, ErrorKind, Id, Key, Result, Signer, Sink, Stamp, Verifier, document, id, layout,
};

/// No record is longer.
const LIMIT: usize = 4 << 20;

/// That one backup was verified, proven by a drill, put on hold or released, by whom the signature
/// says. Stored under `<job>/attestations/<id>/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attestation {
    /// Version of the stored format.
    pub format: u32,
    /// What is attested.
    pub kind: AttestationKind,
    /// The backup.
    pub id: Id,
    /// SHA-256 of its manifest: the attestation is worthless for any other bytes.
    pub manifest: Digest,
    /// When.
    pub time: Stamp,
    /// How deep: `stored` (every stored byte hashed) or `decoded` (and every plain byte).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// What was not checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<String>,
    /// Why it is on hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Fields of a later minor revision.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The kinds of [`Attestation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AttestationKind {
    /// Read back and matched.
    Verified,
    /// Restored by a drill.
    Proven,
    /// Must not be deleted.
    Hold,
    /// May be deleted again.
    Release,
}

impl AttestationKind {
    fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Proven => "proven",
            Self::Hold => "hold",
            Self::Release => "release",
        }
    }
}

impl Attestation {
    /// An attestation of the backup `id`, whose manifest has the hash `manifest`.
    pub fn new(kind: AttestationKind, id: Id, manifest: Digest, time: SystemTime) -> Self {
        Self {
            format: crate::FORMAT,
            kind,
            id,
            manifest,
            time: time.into(),
            level: None,
            unchecked: Vec::new(),
            reason: None,
            extra: Map::new(),
        }
    }

    /// Stores it, signed if there is a signer.
    pub(crate) async fn store(
        &self,
        sink: &dyn Sink,
        job: &str,
        signer: Option<&dyn Signer>,
    ) -> Result<()> {
        let name = format!("{}-{}", self.time.compact(), self.kind.name());
        let folder = layout::attestations(job, &self.id)?;
        store(sink, &folder, &name, self, signer).await
    }
}

/// That backups were deleted, so that the gaps they leave in the sequence alarm nobody. Stored
/// under `<job>/prunes/` before the first object goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PruneRecord {
    /// Version of the stored format.
    pub format: u32,
    /// When.
    pub time: Stamp,
    /// What this prune deletes.
    pub deleted: Vec<Pruned>,
    /// Sequences that earlier prunes deleted, as inclusive ranges: the newest record says all.
    pub earlier: Vec<(u64, u64)>,
    /// Fields of a later minor revision.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One backup that a prune deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Its id.
    pub id: Id,
    /// Its place in the job's sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
}

impl PruneRecord {
    /// A record that `deleted` goes, after all that `earlier` records told.
    pub(crate) fn new(time: SystemTime, deleted: Vec<Pruned>, earlier: &[PruneRecord]) -> Self {
        let mut gone: Vec<u64> = Vec::new();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for record in earlier {
            gone.extend(record.deleted.iter().map(|d| d.sequence));
            ranges.extend(&record.earlier);
        }
        ranges.extend(gone.into_iter().map(|n| (n, n)));
        Self {
            format: crate::FORMAT,
            time: time.into(),
            deleted,
            earlier: merge(ranges),
            extra: Map::new(),
        }
    }

    /// Whether this record says that `sequence` was deleted.
    pub fn covers(&self, sequence: u64) -> bool {
        self.deleted.iter().any(|d| d.sequence == sequence)
            || self
                .earlier
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&sequence))
    }

    /// The highest sequence that this record knows of.
    pub fn highest(&self) -> u64 {
        let deleted = self.deleted.iter().map(|d| d.sequence);
        deleted
            .chain(self.earlier.iter().map(|range| range.1))
            .max()
            .unwrap_or(0)
    }

    pub(crate) async fn store(
        &self,
        sink: &dyn Sink,
        job: &str,
        signer: Option<&dyn Signer>,
    ) -> Result<()> {
        store(
            sink,
            &layout::prunes(job)?,
            &self.time.compact(),
            self,
            signer,
        )
        .await
    }
}

/// Sorted ranges that neither touch nor overlap.
fn merge(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

async fn store(
    sink: &dyn Sink,
    folder: &Key,
    name: &str,
    record: &impl Serialize,
    signer: Option<&dyn Signer>,
) -> Result<()> {
    let key = folder.join(&format!("{name}-{}.json", id::nonce()?))?;
    let mut bytes = serde_json::to_vec_pretty(record)
        .map_err(|e| Error::new(ErrorKind::Other, format!("write `{key}`")).with_source(e))?;
    bytes.push(b'\n');
    document::write_signed(sink, &key, bytes, &document::comment(&key), signer).await
}

/// Every record under `folder` whose signature fits, and what is wrong with the others.
pub(crate) async fn load<T: for<'de> Deserialize<'de>>(
    sink: &dyn Sink,
    folder: &Key,
    verifier: Option<&dyn Verifier>,
) -> Result<(BTreeMap<Key, T>, Vec<Error>)> {
    let keys: Vec<Key> = sink
        .list(Some(folder))
        .map_ok(|object| object.key)
        .try_filter(|key| std::future::ready(key.as_str().ends_with(".json")))
        .try_collect()
        .await?;
    let mut records = BTreeMap::new();
    let mut problems = Vec::new();
    let mut reads = futures::stream::iter(keys)
        .map(|key| async move {
            let comment = document::comment(&key);
            let read = document::read_signed(sink, &key, LIMIT, &comment, verifier).await;
            (key, read)
        })
        .buffer_unordered(16);
    while let Some((key, read)) = reads.next().await {
        let parsed = read.and_then(|bytes| {
            serde_json::from_slice(&bytes).map_err(|e| {
                Error::new(ErrorKind::Corrupt, format!("`{key}` cannot be read")).with_source(e)
            })
        });
        match parsed {
            Ok(record) => {
                records.insert(key, record);
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => problems.push(error),
            // Somebody prunes meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok((records, problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_prune_record_repeats_the_earlier_ones() {
        let time = SystemTime::UNIX_EPOCH;
        let gone = |sequence| Pruned {
            id: Id::new(time).unwrap(),
            sequence,
            manifest: Digest::of(b""),
        };
        let first = PruneRecord::new(time, vec![gone(1), gone(2)], &[]);
        let second = PruneRecord::new(time, vec![gone(5)], std::slice::from_ref(&first));
        let third = PruneRecord::new(time, vec![gone(3)], &[first, second]);
        assert_eq!(third.earlier, [(1, 2), (5, 5)]);
        assert!([1, 2, 3, 5].iter().all(|n| third.covers(*n)));
        assert!(!third.covers(4));
        assert_eq!(third.highest(), 5);
    }
}
