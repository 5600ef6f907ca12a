//! Backups whose data the store keeps itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Job;
use crate::catalog::Catalog;
use crate::{Delegated, Error, ErrorKind, Event, Id, Observer, Result};

/// How many sinks have each receipt. The data goes with the last of them.
#[derive(Debug, Default)]
pub(super) struct Holders {
    sinks: BTreeMap<Id, usize>,
    /// A sink that did not say which receipts it has.
    unasked: Option<String>,
}

impl Holders {
    pub(super) fn of<'a>(
        catalogs: impl Iterator<Item = &'a Catalog>,
        unasked: Option<String>,
    ) -> Self {
        let mut sinks = BTreeMap::new();
        for listed in catalogs.flat_map(|catalog| catalog.backups.values()) {
            if listed.manifest.receipt.is_some() {
                *sinks.entry(listed.manifest.id.clone()).or_default() += 1;
            }
        }
        Self { sinks, unasked }
    }

    /// A sink has this one no more.
    pub(super) fn lost(&mut self, id: &Id) {
        if let Some(sinks) = self.sinks.get_mut(id) {
            *sinks -= 1;
        }
    }
}

impl Job {
    /// Data that the store keeps goes before the last receipt for it. On `Err` the receipt stays.
    pub(super) async fn forget(&self, id: &Id, receipt: &Value, holders: &Holders) -> Result<()> {
        if holders.sinks.get(id).is_some_and(|sinks| *sinks > 1) {
            return Ok(());
        }
        if let Some(sink) = &holders.unasked {
            let message = format!(
                "sink `{sink}` cannot be listed: whether it has the receipt too is not known"
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        self.store()?.forget(receipt).await
    }

    /// What the store keeps for a backup that no sink has the receipt of.
    pub(super) async fn forget_unheld(&self, receipt: &Value, observer: &dyn Observer) {
        let forgotten = match self.store() {
            Ok(store) => store.forget(receipt).await,
            Err(error) => Err(error),
        };
        if let Err(error) = forgotten {
            let message = format!(
                "the store keeps data that nobody has a receipt for: {}",
                error.chain()
            );
            observer.event(&Event::Warning { message: &message });
        }
    }

    /// What is wrong with what the store keeps for `receipt`. `Err`: it could not be asked.
    pub(super) async fn check_receipt(&self, receipt: &Value) -> Result<Option<Error>> {
        let Err(error) = self.store()?.check(receipt).await else {
            return Ok(None);
        };
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Source => {
                Ok(Some(error.context("the receipt is worth nothing")))
            }
            _ => Err(error.context("ask the store for what it keeps")),
        }
    }

    fn store(&self) -> Result<&dyn Delegated> {
        let store = self.0.source.as_ref().and_then(|source| source.delegated());
        store.ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                "the store keeps the data itself, and this job has no source that could ask it",
            )
        })
    }
}
