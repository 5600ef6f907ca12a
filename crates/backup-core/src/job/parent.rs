//! What a backup may build on.

use std::sync::Arc;

use super::Job;
use crate::catalog::Catalog;
use crate::{Manifest, Source};

/// A restore needs the whole chain: the longer it is, the more hangs on its first link.
const LONGEST: usize = 30;

impl Job {
    /// The newest backup, where this run may build on it: every sink of the run has it and all that it
    /// builds on, and its parts went through the same stages as those of this run will.
    pub(super) fn parent(
        &self,
        source: &dyn Source,
        catalogs: &[Catalog],
    ) -> Option<Arc<Manifest>> {
        if !self.0.incremental || !source.incremental() {
            return None;
        }
        let (first, others) = catalogs.split_first()?;
        let newest = first.head()?;
        let is_newest = |c: &Catalog| c.head().is_some_and(|head| head.digest == newest.digest);
        let stages: Vec<&str> = self.0.pipeline.stages().map(|stage| stage.id()).collect();
        let mut parts = newest.manifest.parts.iter();
        if newest.manifest.kind != source.kind()
            || !others.iter().all(is_newest)
            || !parts.all(|part| part.transforms == stages)
        {
            return None;
        }
        let mut link = newest;
        for _ in 1..LONGEST {
            let Some(parent) = &link.manifest.parent else {
                return Some(Arc::clone(&newest.manifest));
            };
            link = first.backups.get(parent)?;
            let has = |c: &Catalog| {
                c.backups
                    .get(parent)
                    .is_some_and(|b| b.digest == link.digest)
            };
            if !others.iter().all(has) {
                return None;
            }
        }
        None
    }
}
