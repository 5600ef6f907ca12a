//! `copy.json`: where exactly one sink keeps the objects of one backup.

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, FORMAT, Key, Object, Result, Stamp};

#[derive(Serialize, Deserialize)]
struct Locators {
    format: u32,
    objects: Vec<Located>,
}

#[derive(Serialize, Deserialize)]
struct Located {
    key: Key,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock_until: Option<Stamp>,
}

impl Locators {
    fn of(objects: &[Object]) -> Self {
        let objects = objects.iter().map(|object| Located {
            key: object.key.clone(),
            version: object.version.clone(),
            lock_until: object.lock_until.map(Stamp::from),
        });
        Self {
            format: FORMAT,
            objects: objects.collect(),
        }
    }
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
    let mut bytes = serde_json::to_vec_pretty(&Locators::of(objects))
        .map_err(|e| Error::new(ErrorKind::Other, "write copy.json").with_source(e))?;
    bytes.push(b'\n');
    Ok(Some(bytes))
}

/// Whether `bytes` say where `objects` are. A lock may be longer than it was: nobody could have
/// made it shorter.
pub(crate) fn agrees(bytes: &[u8], objects: &[Object]) -> bool {
    let Ok(told) = serde_json::from_slice::<Locators>(bytes) else {
        return false;
    };
    let found = Locators::of(objects).objects;
    told.objects.len() == found.len()
        && told.objects.iter().zip(found).all(|(told, found)| {
            told.key == found.key
                && told.version == found.version
                && told.lock_until <= found.lock_until
        })
}
