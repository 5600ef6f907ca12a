//! Whether a copy is exactly what was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::{Job, NamedSink};
use crate::catalog::{Listed, parse_manifest};
use crate::manifest::{LIMIT, PartRecord};
use crate::original::hidden;
use crate::pipeline::decode;
use crate::record::{Attestation, AttestationKind};
use crate::{Error, ErrorKind, Event, Id, Key, Object, Result, Sink, copy, document, layout, sums};

/// What a verification found in one sink.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verification {
    /// The sink's name in the job.
    pub sink: String,
    /// How deep it went.
    pub level: Level,
    /// Whether signatures were checked: only with trusted keys.
    pub signed: bool,
    /// Objects that were read.
    pub objects: u64,
    /// Stored bytes that were read.
    pub bytes: u64,
    /// What is wrong. Empty: every object is exactly what was written.
    pub problems: Vec<Problem>,
}

/// How deep a verification went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every stored byte was hashed.
    Stored,
    /// Every part was decoded too, and its plain bytes hashed.
    Decoded,
}

impl Level {
    /// `stored` or `decoded`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Decoded => "decoded",
        }
    }
}

/// Something wrong with one object.
#[derive(Debug)]
pub struct Problem {
    /// The object.
    pub key: Key,
    /// What is wrong with it.
    pub error: Error,
}

impl Job {
    /// Reads a backup back, every object under its id, from `sink` or from every sink that has
    /// any of it, and attests what was found whole.
    ///
    /// Without the key to decrypt, stored bytes are checked and plain ones are not:
    /// [`Level`] tells. What is wrong is in the result; `Err` means that it could not be looked
    /// at. Of a receipt, the store is asked whether it still has what it stands for.
    pub async fn verify(&self, id: &Id, sink: Option<&str>) -> Result<Vec<Verification>> {
        let sinks: Vec<&NamedSink> = match sink {
            Some(name) => vec![self.sink(name)?],
            None => self.0.sinks.iter().collect(),
        };
        let mut verifications = Vec::new();
        for named in sinks {
            let listing = self.listing(&named.original, id).await?;
            if listing.is_empty() {
                continue;
            }
            let (verification, listed) = self.verify_copy(named, id, listing).await?;
            if let (true, Some(listed)) = (verification.problems.is_empty(), listed) {
                self.attest_verified(&verification, &listed).await;
            }
            verifications.push(verification);
        }
        if verifications.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("job `{}` has nothing of {id}", self.name()),
            ));
        }
        Ok(verifications)
    }

    async fn verify_copy(
        &self,
        named: &NamedSink,
        id: &Id,
        listing: BTreeMap<Key, Object>,
    ) -> Result<(Verification, Option<Listed>)> {
        let mut verification = Verification {
            sink: named.name.clone(),
            level: Level::Stored,
            signed: self.0.pipeline.verifier.is_some(),
            objects: 0,
            bytes: 0,
            problems: Vec::new(),
        };
        let mut found = self.check_documents(&named.original, id, &listing).await?;
        verification.problems.append(&mut found.problems);
        let folder = layout::backup(self.name(), id)?;
        for (key, by) in hidden(&*named.sink, &folder, &listing).await? {
            let what = format!("`{key}` is hidden by {by}: what was written is still there");
            let error = Error::new(ErrorKind::Corrupt, what);
            verification.problems.push(Problem { key, error });
        }
        if let Some(listed) = &found.listed {
            if let Some(receipt) = &listed.manifest.receipt
                && let Some(error) = self.check_receipt(receipt).await?
            {
                let key = layout::object(self.name(), id, layout::MANIFEST)?;
                verification.problems.push(Problem { key, error });
            }
            let parts = &listed.manifest.parts;
            let can_decode = parts.iter().all(|part| self.can_decode(part));
            if can_decode {
                verification.level = Level::Decoded;
            }
            for part in parts {
                match self.read_part(&named.original, part, can_decode).await {
                    Ok(()) => {
                        verification.objects += part.objects.len() as u64;
                        verification.bytes += part.stored_len();
                        for object in &part.objects {
                            self.0.observer.event(&Event::Verified { key: &object.key });
                        }
                    }
                    Err(error) if is_damage(&error) => verification.problems.push(Problem {
                        key: blamed(part, &error),
                        error,
                    }),
                    Err(error) => return Err(error),
                }
            }
        }
        verification.objects += found.documents;
        verification.bytes += found.bytes;
        Ok((verification, found.listed))
    }

    pub(super) fn can_decode(&self, part: &PartRecord) -> bool {
        self.0
            .pipeline
            .stages_named(&part.transforms)
            .is_ok_and(|stages| stages.iter().all(|stage| stage.can_decode()))
    }

    async fn read_part(
        &self,
        sink: &Arc<dyn Sink>,
        part: &PartRecord,
        decoded: bool,
    ) -> Result<()> {
        let sink = Arc::clone(sink);
        let mut bytes = match decoded {
            true => decode::plain(&self.0.pipeline, sink, part)?,
            false => decode::stored(sink, part.objects.clone()),
        };
        while let Some(chunk) = bytes.next().await {
            let len = chunk?.len() as u64;
            let part = part.name.as_str();
            self.0.observer.event(&Event::Progress {
                part,
                plain: len,
                stored: 0,
            });
        }
        Ok(())
    }

    /// Everything that a sink shows under `id`.
    pub(super) async fn listing(
        &self,
        sink: &Arc<dyn Sink>,
        id: &Id,
    ) -> Result<BTreeMap<Key, Object>> {
        let folder = layout::backup(self.name(), id)?;
        let objects = sink.list(Some(&folder));
        objects
            .map_ok(|object| (object.key.clone(), object))
            .try_collect()
            .await
    }

    /// Checks everything under `id` but the bytes of the parts: signatures, checksums, presence,
    /// length, and that nothing else is there.
    pub(super) async fn check_documents(
        &self,
        sink: &Arc<dyn Sink>,
        id: &Id,
        listing: &BTreeMap<Key, Object>,
    ) -> Result<Found> {
        let mut found = Found::default();
        let key = |name: &str| layout::object(self.name(), id, name);
        let (manifest_key, sums_key, recipe_key) = (
            key(layout::MANIFEST)?,
            key(layout::SUMS)?,
            key(layout::RESTORE)?,
        );

        let Some(manifest) = self.signed(sink, &manifest_key, &mut found).await? else {
            return Ok(found);
        };
        let listed = match parse_manifest(self.name(), id, &manifest) {
            Ok(listed) => listed,
            Err(error) => {
                found.problem(&manifest_key, error);
                return Ok(found);
            }
        };
        let recipe = match document::read(&**sink, &recipe_key, LIMIT).await {
            Ok(bytes) => Some(found.count(bytes)),
            Err(error) => found.damage(&recipe_key, error)?,
        };
        let sums = self.signed(sink, &sums_key, &mut found).await?;
        if let (Some(recipe), Some(sums)) = (recipe, sums) {
            let expected = sums::render(&listed.manifest, &manifest, &recipe);
            if sums != expected.as_bytes() {
                let (key, error) =
                    self.blame(&sums, &expected, [&manifest_key, &recipe_key, &sums_key]);
                found.problem(&key, error);
            }
        }
        self.check_presence(sink, id, &listed, listing, &mut found)
            .await?;
        found.listed = Some(listed);
        Ok(found)
    }

    async fn signed(
        &self,
        sink: &Arc<dyn Sink>,
        key: &Key,
        found: &mut Found,
    ) -> Result<Option<bytes::Bytes>> {
        let verifier = self.0.pipeline.verifier.as_deref();
        let comment = document::comment(key);
        match document::read_signed(&**sink, key, LIMIT, &comment, verifier).await {
            Ok(bytes) => Ok(Some(found.count(bytes))),
            Err(error) => found.damage(key, error),
        }
    }

    /// Which object is to blame when the checksums are not those that the rest gives.
    fn blame(&self, sums: &[u8], expected: &str, keys: [&Key; 3]) -> (Key, Error) {
        let [manifest, recipe, own] = keys;
        let sums = String::from_utf8_lossy(sums);
        let lacks = |name: &str| {
            let line = expected
                .lines()
                .find(|line| line.ends_with(&format!("  {name}")));
            !line.is_some_and(|line| sums.lines().any(|l| l == line))
        };
        let blamed = match (lacks(layout::RESTORE), lacks(layout::MANIFEST)) {
            (true, false) => recipe,
            (false, true) => manifest,
            _ => own,
        };
        let what = "SHA256SUMS, RESTORE.md and manifest.json do not fit together";
        (
            blamed.clone(),
            Error::new(ErrorKind::Corrupt, format!("`{blamed}`: {what}")),
        )
    }

    async fn check_presence(
        &self,
        sink: &Arc<dyn Sink>,
        id: &Id,
        listed: &Listed,
        listing: &BTreeMap<Key, Object>,
        found: &mut Found,
    ) -> Result<()> {
        let key = |name: &str| layout::object(self.name(), id, name);
        let mut known = vec![
            key(layout::MANIFEST)?,
            key(layout::SUMS)?,
            key(layout::RESTORE)?,
            key(layout::COPY)?,
        ];
        known.push(layout::signature(&known[0])?);
        known.push(layout::signature(&known[1])?);
        let folder = layout::backup(self.name(), id)?;
        for part in &listed.manifest.parts {
            if let Some(signature) = part.notes.get("signature").and_then(|v| v.as_str()) {
                let first = part.objects.first().map(|object| &object.key);
                let Some(beside) = first.map(layout::signature).transpose()? else {
                    continue;
                };
                match document::read(&**sink, &beside, LIMIT).await {
                    Ok(bytes) if bytes == signature.as_bytes() => drop(found.count(bytes)),
                    Ok(_) => found.corrupt(&beside, "is not the signature in the manifest"),
                    Err(error) => drop(found.damage::<()>(&beside, error)?),
                }
                known.push(beside);
            }
            for object in &part.objects {
                if !object.key.is_under(&folder) {
                    continue;
                }
                match listing.get(&object.key) {
                    None => found.corrupt(&object.key, "is missing"),
                    Some(there) if there.len != object.measure.len => {
                        let wants = object.measure.len;
                        found.corrupt(
                            &object.key,
                            &format!("has {} bytes instead of {wants}", there.len),
                        );
                    }
                    Some(_) => {}
                }
                known.push(object.key.clone());
            }
        }
        for stranger in listing.keys().filter(|key| !known.contains(key)) {
            found.corrupt(stranger, "is not part of this backup");
        }
        self.check_locators(sink, &key(layout::COPY)?, listing, found)
            .await
    }

    /// `copy.json` must say what the sink says, where there is one.
    async fn check_locators(
        &self,
        sink: &Arc<dyn Sink>,
        key: &Key,
        listing: &BTreeMap<Key, Object>,
        found: &mut Found,
    ) -> Result<()> {
        if !listing.contains_key(key) {
            return Ok(());
        }
        let written_later = [layout::COPY, layout::SUMS, layout::MANIFEST];
        let mut objects = Vec::new();
        for object in listing.values() {
            let name = object.key.name().trim_end_matches(layout::SIGNATURE);
            if !written_later.contains(&name) {
                objects.push(sink.stat(&object.locator()).await?);
            }
        }
        let bytes = document::read(&**sink, key, LIMIT).await?;
        match copy::agrees(&bytes, &objects) {
            true => drop(found.count(bytes)),
            false => found.corrupt(key, "does not say where this sink keeps the objects"),
        }
        Ok(())
    }

    /// Leaves the good news where retention finds it. A reader that may not write is no failure.
    async fn attest_verified(&self, verification: &Verification, listed: &Listed) {
        let id = listed.manifest.id.clone();
        let now = self.0.clock.now();
        let mut attestation = Attestation::new(AttestationKind::Verified, id, listed.digest, now);
        attestation.level = Some(verification.level.as_str().to_owned());
        if verification.level == Level::Stored {
            attestation
                .unchecked
                .push("plain bytes: no key to decrypt here".to_owned());
        }
        if !verification.signed {
            attestation
                .unchecked
                .push("signatures: no trusted keys here".to_owned());
        }
        if let Err(error) = self.attest(&verification.sink, &attestation).await {
            let message = format!("verified, but not recorded: {}", error.chain());
            self.0.observer.event(&Event::Warning { message: &message });
        }
    }
}

/// What [`Job::check_documents`] saw.
#[derive(Default)]
pub(super) struct Found {
    pub(super) listed: Option<Listed>,
    pub(super) problems: Vec<Problem>,
    documents: u64,
    bytes: u64,
}

impl Found {
    fn count(&mut self, bytes: bytes::Bytes) -> bytes::Bytes {
        self.documents += 1;
        self.bytes += bytes.len() as u64;
        bytes
    }

    fn problem(&mut self, key: &Key, error: Error) {
        let key = key.clone();
        self.problems.push(Problem { key, error });
    }

    fn corrupt(&mut self, key: &Key, what: &str) {
        self.problem(
            key,
            Error::new(ErrorKind::Corrupt, format!("`{key}` {what}")),
        );
    }

    /// Takes damage down as a problem; a sink that did not answer is an error.
    fn damage<T>(&mut self, key: &Key, error: Error) -> Result<Option<T>> {
        match error.kind() {
            ErrorKind::NotFound => self.corrupt(key, "is missing"),
            _ if is_damage(&error) => self.problem(key, error),
            _ => return Err(error),
        }
        Ok(None)
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}

/// The object of `part` that `error` speaks of; the first if it speaks of none.
fn blamed(part: &PartRecord, error: &Error) -> Key {
    let text = error.chain();
    let named = part
        .objects
        .iter()
        .find(|object| text.contains(&format!("`{}`", object.key)));
    named.unwrap_or(&part.objects[0]).key.clone()
}
