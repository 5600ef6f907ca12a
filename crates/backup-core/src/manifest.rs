//! The document that *is* the backup: it names every part with its hashes, and is written last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::{Digest, Measure};
use crate::{Error, ErrorKind, Facts, Id, Key, Result, Stamp};

/// The stored format that this build writes. It reads every format up to this one.
pub const FORMAT: u32 = 1;

/// No manifest is longer: a reader refuses to hold more.
pub(crate) const LIMIT: usize = 64 << 20;

/// No number in it is larger: every reader of JSON holds these exactly, and sums do not overflow.
pub(crate) const LARGEST: u64 = 1 << 53;

/// The manifest of one backup, byte-identical in every sink. `FORMAT.md` describes each field.
///
/// Fields that this build does not know are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// Version of the stored format.
    pub format: u32,
    /// The backup's name.
    pub id: Id,
    /// The job that wrote it.
    pub job: String,
    /// The kind of source.
    pub kind: String,
    /// The backup that this one builds on and cannot be restored without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    /// 1 for the job's first backup, and one more for each that follows.
    pub sequence: u64,
    /// SHA-256 of the manifest before it in the job; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// When the run began, by the writer's clock.
    pub started: Stamp,
    /// When the source had written everything, by the writer's clock.
    pub finished: Stamp,
    /// What the source knew at its end.
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    pub facts: Facts,
    /// Names given to the run: `pre-migration`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The job's schedule, so that a reader can judge freshness alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// After this time a newer backup should be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Stamp>,
    /// For stores that keep the data themselves: all that we hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Value>,
    /// The parts, in the order in which their writing began.
    pub parts: Vec<PartRecord>,
    /// Fields of a later minor revision.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One part of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartRecord {
    /// Its name: `db.dump`.
    pub name: String,
    /// Where its coded bytes are; joined in this order they are the coded stream.
    pub objects: Vec<ObjectRecord>,
    /// Ids of the stages, in the order in which they were applied.
    pub transforms: Vec<String>,
    /// What the stages noted: recipients, a signature.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, Value>,
    /// Length and hash before the first stage.
    pub plain: Measure,
    /// Fields of a later minor revision.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl PartRecord {
    /// Bytes in a sink.
    pub fn stored_len(&self) -> u64 {
        self.objects.iter().map(|object| object.measure.len).sum()
    }
}

/// One stored object of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectRecord {
    /// Its full key, so that an incremental can name objects of its ancestors.
    pub key: Key,
    /// Length and hash of the stored bytes.
    #[serde(flatten)]
    pub measure: Measure,
    /// Fields of a later minor revision.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// The bytes that are stored and signed: JSON, indented, with a line end.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(ErrorKind::Other, "write manifest").with_source(e))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a manifest. A newer format is `Unsupported`; anything that cannot be one `Corrupt`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(bytes).map_err(corrupt)?;
        if version.format > FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "manifest has format {}, this build reads up to {FORMAT}: use a newer lifebelt",
                    version.format
                ),
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(corrupt)?;
        manifest.check().map_err(corrupt)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        Key::check(&self.job)?;
        if self.format == 0 || self.sequence == 0 {
            return invalid("format and sequence begin at 1".into());
        }
        if self.sequence > LARGEST {
            return invalid(format!(
                "sequence {} is no number of a backup",
                self.sequence
            ));
        }
        let parts = self.parts.iter();
        let lens = parts.flat_map(|part| {
            let stored = part.objects.iter().map(|object| object.measure.len);
            stored.chain([part.plain.len])
        });
        let mut total: u64 = 0;
        for len in lens {
            total = total.saturating_add(len);
        }
        if total > LARGEST {
            return invalid(format!("{total} bytes are more than any backup has"));
        }
        let mut names = std::collections::BTreeSet::new();
        for part in &self.parts {
            Key::check(&part.name)?;
            if !names.insert(&part.name) {
                return invalid(format!("part `{}` stands twice", part.name));
            }
            if part.objects.is_empty() {
                return invalid(format!("part `{}` has no object", part.name));
            }
        }
        if self.parts.is_empty() && self.receipt.is_none() {
            return invalid("neither parts nor a receipt".into());
        }
        Ok(())
    }

    /// Bytes before the first stage, all parts together.
    pub fn plain_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.plain.len).sum()
    }

    /// Bytes before the first stage of the parts that are its own and of no ancestor.
    pub(crate) fn own_plain_bytes(&self) -> u64 {
        let own = |part: &&PartRecord| part.objects.first().is_some_and(|it| self.owns(it));
        let own = self.parts.iter().filter(own);
        own.map(|part| part.plain.len).sum()
    }

    /// Bytes in a sink that are its own: those that it shares with its ancestors are theirs.
    pub fn stored_bytes(&self) -> u64 {
        self.own_objects().map(|object| object.measure.len).sum()
    }

    /// The objects of its parts that lie under its own id.
    pub(crate) fn own_objects(&self) -> impl Iterator<Item = &ObjectRecord> {
        let objects = self.parts.iter().flat_map(|part| &part.objects);
        objects.filter(|object| self.owns(object))
    }

    /// Whether an object lies under its own id, and not under that of an ancestor.
    pub(crate) fn owns(&self, object: &ObjectRecord) -> bool {
        let rest = object.key.as_str().strip_prefix(&self.job);
        let rest = rest.and_then(|rest| rest.strip_prefix('/')?.strip_prefix(self.id.as_str()));
        rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// One part by name.
    pub fn part(&self, name: &str) -> Option<&PartRecord> {
        self.parts.iter().find(|part| part.name == name)
    }
}

fn corrupt(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Corrupt, "manifest cannot be read").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{
  "format": 1,
  "id": "20261121T020000Z-1a2b3c4d",
  "job": "orders",
  "kind": "files",
  "sequence": 1,
  "started": "2026-11-21T02:00:00Z",
  "finished": "2026-11-21T02:00:05Z",
  "parts": [
    {
      "name": "files.tar",
      "objects": [
        {
          "key": "orders/20261121T020000Z-1a2b3c4d/files.tar.zst",
          "len": 3,
          "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
          "moon": "full"
        }
      ],
      "transforms": [
        "zstd"
      ],
      "plain": {
        "len": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
      }
    }
  ],
  "weather": {
    "tomorrow": "rain"
  }
}
"#;

    #[test]
    fn unknown_fields_are_kept() {
        let manifest = Manifest::parse(SMALL.as_bytes()).unwrap();
        assert_eq!(manifest.extra["weather"]["tomorrow"], "rain");
        let again = String::from_utf8(manifest.to_bytes().unwrap()).unwrap();
        assert_eq!(again, SMALL);
    }

    #[test]
    fn a_newer_format_is_a_clear_error() {
        let newer = SMALL.replace("\"format\": 1", "\"format\": 2");
        let error = Manifest::parse(newer.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 2"), "{error}");
    }

    #[test]
    fn lengths_that_no_sum_can_hold_are_corrupt() {
        // A fuzz target's assertion: two forged lengths overflowed the sum that `ls` prints.
        let huge = SMALL.replace("\"len\": 0", "\"len\": 18446744073709551615");
        let error = Manifest::parse(huge.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error.chain().contains("more than any backup"),
            "{}",
            error.chain()
        );
    }

    #[test]
    fn names_that_leave_the_root_are_corrupt() {
        for (from, to) in [
            ("orders/2026", "../2026"),
            ("\"files.tar\"", "\"../x\""),
            ("\"orders\"", "\"a/b\""),
            ("\"sequence\": 1", "\"sequence\": 0"),
            ("\"len\": 3", "\"len\": -3"),
            ("\"sequence\": 1", "\"sequence\": 18446744073709551615"),
        ] {
            let error = Manifest::parse(SMALL.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{to}");
        }
    }
}
