//! How far a backup reaches, and how far a restore is to go.

use backup_core::{Error, ErrorKind, PartReader, RestoreOptions, Result};

use crate::page::corrupt;
use crate::{DB, KIND, lines};

/// The revision that a restore is to end with, where somebody says so.
pub(crate) fn wanted(options: &RestoreOptions) -> Result<Option<i64>> {
    let mut wanted = None;
    for (name, value) in &options.extra {
        match name.as_str() {
            "revision" => wanted = Some(RestoreOptions::read(name, value)?),
            _ => return Err(RestoreOptions::unknown(KIND, name)),
        }
    }
    Ok(wanted)
}

/// The changes that a restore lays upon the snapshot.
pub(crate) struct Reach {
    /// The parts with changes and their revisions, oldest first.
    pub(crate) changes: Vec<(String, (i64, i64))>,
    /// The last revision that comes back.
    pub(crate) until: i64,
}

impl Reach {
    /// Of a backup whose snapshot ends at revision `snapshot`, and of which every revision from `lowest`
    /// on can be had. `Corrupt`: some changes are missing.
    pub(crate) fn of(
        parts: &PartReader,
        (lowest, snapshot): (i64, i64),
        wanted: Option<i64>,
    ) -> Result<Self> {
        let (mut changes, mut last) = (Vec::new(), snapshot);
        for part in parts.names().filter(|name| *name != DB) {
            let (first, end) = lines::revisions(part)
                .filter(|(first, end)| *first == last + 1 && end >= first)
                .ok_or_else(|| {
                    corrupt(&format!("`{part}` is not what comes after revision {last}"))
                })?;
            changes.push((part.to_owned(), (first, end)));
            last = end;
        }
        match wanted.unwrap_or(last) {
            until if (lowest..=last).contains(&until) => Ok(Self { changes, until }),
            until => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "revision {until} is not in this backup, which reaches from {lowest} to {last}: take another one"
                ),
            )),
        }
    }
}
