//! `copy.json`: where exactly one sink keeps the objects of one backup.

use serde::Serialize;

use crate::{Error, ErrorKind, FORMAT, Key, Object, Result, Stamp};

#[derive(Serialize)]
struct Locators<'a> {
    format: u32,
    objects: Vec<Located<'a>>,
}

#[derive(Serialize)]
struct Located<'a> {
    key: &'a Key,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_until: Option<Stamp>,
}

/// The file's bytes, or `None` where a sink has neither versions nor locks and a key says all.
///
/// Unsigned and different in each sink: a help to find objects that something hides, never a
/// proof. Lost or forged, listing the versions gives the same.
pub(crate) fn render(objects: &[Object]) -> Result<Option<Vec<u8>>> {
    if objects
        .iter()
        .all(|o| o.version.is_none() && o.lock_until.is_none())
    {
        return Ok(None);
    }
    let objects = objects.iter().map(|object| Located {
        key: &object.key,
        version: object.version.as_deref(),
        lock_until: object.lock_until.map(Stamp::from),
    });
    let locators = Locators {
        format: FORMAT,
        objects: objects.collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&locators)
        .map_err(|e| Error::new(ErrorKind::Other, "write copy.json").with_source(e))?;
    bytes.push(b'\n');
    Ok(Some(bytes))
}
