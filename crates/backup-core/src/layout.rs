//! Where things are in a sink. `FORMAT.md` is the text to this file.

use crate::{Error, ErrorKind, Id, Key, Result};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SUMS: &str = "SHA256SUMS";
pub(crate) const RESTORE: &str = "RESTORE.md";
pub(crate) const COPY: &str = "copy.json";
pub(crate) const ATTESTATIONS: &str = "attestations";
pub(crate) const PRUNES: &str = "prunes";
/// Signatures are beside what they sign.
pub(crate) const SIGNATURE: &str = ".minisig";

/// Names under an id that a part cannot have, and folders of a job that are no ids.
const RESERVED: [&str; 4] = [MANIFEST, SUMS, RESTORE, COPY];

/// `<job>`
pub(crate) fn job(job: &str) -> Result<Key> {
    Key::check(job)?;
    Key::parse(job)
}

/// `<job>/<id>`
pub(crate) fn backup(job: &str, id: &Id) -> Result<Key> {
    Key::parse(format!("{job}/{id}"))
}

/// `<job>/<id>/<name>`
pub(crate) fn object(job: &str, id: &Id, name: &str) -> Result<Key> {
    Key::parse(format!("{job}/{id}/{name}"))
}

/// `<job>/<id>/<part><suffixes>`, and for every object after the first `.001`, `.002`, …
pub(crate) fn part_object(
    job: &str,
    id: &Id,
    part: &str,
    suffixes: &str,
    index: usize,
) -> Result<Key> {
    let tail = match index {
        0 => String::new(),
        n => format!(".{n:03}"),
    };
    object(job, id, &format!("{part}{suffixes}{tail}"))
}

/// `<job>/attestations/<id>`
pub(crate) fn attestations(job: &str, id: &Id) -> Result<Key> {
    Key::parse(format!("{job}/{ATTESTATIONS}/{id}"))
}

/// `<job>/prunes`
pub(crate) fn prunes(job: &str) -> Result<Key> {
    Key::parse(format!("{job}/{PRUNES}"))
}

/// The signature beside `key`.
pub(crate) fn signature(key: &Key) -> Result<Key> {
    Key::parse(format!("{key}{SIGNATURE}"))
}

/// Refuses part names that would collide with our own documents.
pub(crate) fn check_part(name: &str) -> Result<()> {
    Key::check(name)?;
    if RESERVED.contains(&name) || name.ends_with(SIGNATURE) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("part name `{name}` is taken by the stored format"),
        ));
    }
    Ok(())
}
