//! `SHA256SUMS`: what `sha256sum -c` needs to check a backup without us.

use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::{Key, layout};

/// One line for each own part object, for `RESTORE.md` and for `manifest.json`, sorted by name.
///
/// Objects of ancestors are in the ancestors' own files.
pub(crate) fn render(manifest: &Manifest, manifest_bytes: &[u8], recipe: &[u8]) -> String {
    let mut lines: Vec<(String, Digest)> = own_objects(manifest)
        .map(|(key, digest)| (key.name().to_owned(), digest))
        .collect();
    lines.push((layout::RESTORE.to_owned(), Digest::of(recipe)));
    lines.push((layout::MANIFEST.to_owned(), Digest::of(manifest_bytes)));
    lines.sort();
    let lines = lines
        .into_iter()
        .map(|(name, digest)| format!("{digest}  {name}\n"));
    lines.collect()
}

/// How many lines [`render`] gives.
pub(crate) fn lines(manifest: &Manifest) -> usize {
    own_objects(manifest).count() + 2
}

/// The part objects that lie under the backup's own id.
pub(crate) fn own_objects(manifest: &Manifest) -> impl Iterator<Item = (&Key, Digest)> {
    let own = format!("{}/{}/", manifest.job, manifest.id);
    manifest
        .parts
        .iter()
        .flat_map(|part| &part.objects)
        .filter(move |object| object.key.as_str().starts_with(&own))
        .map(|object| (&object.key, object.measure.sha256))
}
