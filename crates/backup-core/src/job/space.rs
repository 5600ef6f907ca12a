//! Whether something fits, before it is begun.
//!
//! Only what cannot fit is refused: no more is known before the bytes have been seen. A place that
//! runs full all the same makes a failed backup, and never a false one. Who fails to tell is no
//! worse than who cannot.

use std::collections::BTreeMap;

use serde_json::Value;

use super::RestoreRequest;
use crate::catalog::Catalog;
use crate::manifest::Manifest;
use crate::pipeline::Lane;
use crate::{Error, ErrorKind, Event, Observer, Result, Target};

/// How many of the newest backups say what the next one takes at least.
const RECENT: usize = 3;

/// A sink with less room than the smallest of its last backups took is `Unavailable`: it is out of
/// this run.
pub(super) async fn of_sink(lane: &Lane, catalog: &Catalog, observer: &dyn Observer) -> Result<()> {
    let free = lane.sink.free_space().await.unwrap_or(None);
    let by_sequence: BTreeMap<u64, u64> = catalog
        .backups
        .values()
        .map(|listed| (listed.manifest.sequence, listed.manifest.stored_bytes()))
        .collect();
    let needed = by_sequence.into_values().rev().take(RECENT).min();
    observer.event(&Event::Space {
        place: &lane.name,
        free,
        needed,
    });
    match (free, needed) {
        (Some(free), Some(needed)) if free < needed => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} are free, and each of the last backups took {} or more: make room",
                mib(free),
                mib(needed)
            ),
        )),
        _ => Ok(()),
    }
}

/// Free bytes in a target, and about how many a restore of `manifest` takes.
///
/// What the store took once (fact `size`) counts what was dead in it, and a dump has none of its
/// indexes: the smaller of the two is what it takes at least.
pub(super) async fn of_target(target: &dyn Target, manifest: &Manifest) -> (Option<u64>, u64) {
    let plain = manifest.plain_bytes();
    let size = manifest.facts.get("size").and_then(Value::as_u64);
    let needed = size.map_or(plain, |size| size.min(plain));
    (target.free_space().await.unwrap_or(None), needed)
}

/// Refuses what cannot fit, unless the caller insists.
pub(super) fn guard(
    target: &dyn Target,
    free: Option<u64>,
    needed: u64,
    request: &RestoreRequest,
) -> Result<()> {
    match free {
        Some(free) if free < needed && !request.force => Err(Error::new(
            ErrorKind::Refused,
            format!(
                "`{target}` has room for {}, and the backup needs about {}: make room, or insist with --force",
                mib(free),
                mib(needed)
            ),
        )),
        _ => Ok(()),
    }
}

/// `1536 MiB`.
pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
