//! Backups whose data the store keeps itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Job, NamedSink};
use crate::catalog::Catalog;
use crate::{Delegated, Error, ErrorKind, Event, Id, Observer, Result, layout};

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

    /// What the store keeps for a backup whose commit failed, unless a sink may have the receipt
    /// nevertheless: one that could not be read back could perhaps not be deleted either.
    pub(super) async fn forget_unheld(&self, id: &Id, receipt: &Value, observer: &dyn Observer) {
        let forget = async {
            let commit = layout::object(self.name(), id, layout::MANIFEST)?;
            for NamedSink { name, sink, .. } in &self.0.sinks {
                match sink.stat(&(&commit).into()).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error.context(format!("look into sink `{name}`"))),
                    Ok(_) => {
                        let message = format!("sink `{name}` has a receipt that was not confirmed");
                        return Err(Error::new(ErrorKind::Sink, message));
                    }
                }
            }
            self.store()?.forget(receipt).await
        };
        if let Err(error) = forget.await {
            let message = format!(
                "the store keeps the data of backup {id}, which did not succeed: {}",
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
