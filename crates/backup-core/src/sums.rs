//! `SHA256SUMS`: what `sha256sum -c` needs to check a backup without us.

use crate::digest::Digest;
use crate::layout;
use crate::manifest::Manifest;

/// One line for each own part object, for `RESTORE.md` and for `manifest.json`, sorted by name.
///
/// Objects of ancestors are in the ancestors' own files.
pub(crate) fn render(manifest: &Manifest, manifest_bytes: &[u8], recipe: &[u8]) -> String {
    let own = manifest.own_objects();
    let own = own.map(|object| (object.key.name().to_owned(), object.measure.sha256));
    let mut lines: Vec<(String, Digest)> = own.collect();
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
    manifest.own_objects().count() + 2
}
