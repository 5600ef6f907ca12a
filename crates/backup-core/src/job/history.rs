//! What there is: every backup of a job, over all its sinks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::join_all;

use super::Job;
use crate::catalog::{Catalog, Listed};
use crate::chain::{Chain, Finding};
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::record::{Attestation, AttestationKind};
use crate::{Error, ErrorKind, Event, Id, Result};

/// Every backup of a job, and what is odd about them.
#[derive(Debug)]
#[non_exhaustive]
pub struct History {
    /// Complete backups, the newest first: by sequence, never by a clock.
    pub backups: Vec<Backup>,
    /// What nobody ordered: gaps, forks, a sink that shows less than it did.
    pub findings: Vec<Finding>,
    /// Sinks that did not answer, and why.
    pub unreachable: Vec<(String, Error)>,
}

impl History {
    /// Why a backup that `wanted` names cannot be had: no sink has a manifest of it that can be
    /// trusted. A rolled-back newest one counts if its id is wanted.
    fn damage(&self, wanted: impl Fn(&Id) -> bool) -> Option<Error> {
        let intact = |id: &Id| self.backups.iter().any(|b| b.manifest.id == *id);
        self.findings.iter().find_map(|finding| {
            let kind = match finding {
                Finding::Unreadable { id, kind, .. } => {
                    id.as_ref().filter(|id| wanted(id) && !intact(id))?;
                    *kind
                }
                Finding::RolledBack { remembered, .. } if wanted(&remembered.id) => {
                    ErrorKind::Corrupt
                }
                _ => return None,
            };
            Some(Error::new(kind, finding.to_string()))
        })
    }
}

/// One complete backup.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backup {
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// SHA-256 of the manifest.
    pub digest: Digest,
    /// The sinks that have it, in the job's order.
    pub copies: Vec<Copy>,
    /// When it was last read back and matched.
    pub verified: Option<SystemTime>,
    /// When a drill last restored it.
    pub proven: Option<SystemTime>,
    /// Why it must not be deleted.
    pub held: Option<String>,
    /// When the last of that was said.
    attested: Option<SystemTime>,
}

/// A backup in one sink.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copy {
    /// The sink's name in the job.
    pub sink: String,
}

impl Job {
    /// Lists every backup. A sink that does not answer is told, and fails the call only if no
    /// other is left.
    pub async fn history(&self) -> Result<History> {
        // Before the listing: what is remembered by then was there when the listing began, whatever
        // another process commits meanwhile.
        let remembered = self.remembered();
        let (catalogs, unreachable) = self.catalogs().await;
        if catalogs.is_empty() {
            let reasons: Vec<String> = unreachable
                .iter()
                .map(|(sink, e)| format!("{sink}: {}", e.chain()))
                .collect();
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "no sink of job `{}` can be read: {}",
                    self.name(),
                    reasons.join("; ")
                ),
            ));
        }
        let chain = Chain::of(catalogs.iter().map(|(_, catalog)| catalog));
        let mut findings = chain.findings(remembered.as_ref());
        for (sink, catalog) in &catalogs {
            findings.extend(catalog.hidden.iter().map(|id| Finding::Hidden {
                sink: sink.clone(),
                id: id.clone(),
            }));
            let damaged = catalog
                .damaged
                .iter()
                .map(|(id, error)| (Some(id.clone()), error));
            let problems = damaged.chain(catalog.problems.iter().map(|error| (None, error)));
            findings.extend(problems.map(|(id, error)| Finding::Unreadable {
                kind: error.kind(),
                sink: sink.clone(),
                id,
                problem: error.chain(),
            }));
        }
        // A reader is a witness too: what it saw once must not vanish for it either. What contradicts
        // that is told until it is cleared up, and not only once.
        let contradicts = |finding: &Finding| matches!(finding, Finding::RolledBack { .. });
        if let Some(head) = chain.head()
            && !findings.iter().any(contradicts)
            && let Err(error) = self.remember(&head)
        {
            let message = error.chain();
            self.0.observer.event(&Event::Warning { message: &message });
        }
        Ok(History {
            backups: merge(&catalogs),
            findings,
            unreachable,
        })
    }

    /// One backup, by id, by the beginning of an id, by label (the newest that has it), or
    /// `latest`.
    ///
    /// `NotFound` if there is none, `Invalid` if several fit, `Corrupt` if its manifest cannot be
    /// trusted. `latest` is `Corrupt` too while the newest backup is damaged everywhere or hidden:
    /// an older one is restored only by its own name.
    pub async fn find(&self, name: &str) -> Result<Backup> {
        let history = self.history().await?;
        self.find_in(&history, name)
    }

    fn find_in(&self, history: &History, name: &str) -> Result<Backup> {
        let fits = |id: &Id| {
            // The random half alone names a backup too; it is what people copy.
            id.as_str().starts_with(name)
                || (name.len() >= 4 && id.as_str()[17..].starts_with(name))
        };
        let latest = name == "latest";
        let labelled = |b: &&Backup| latest || b.manifest.labels.iter().any(|label| label == name);
        if let Some(damage) = history.damage(|id| latest || fits(id)) {
            return Err(damage);
        }
        if let Some(newest) = history.backups.iter().find(labelled) {
            for (sink, error) in &history.unreachable {
                let error = error.chain();
                let message =
                    format!("sink `{sink}` cannot be read, and may have a newer backup: {error}");
                self.0.observer.event(&Event::Warning { message: &message });
            }
            return Ok(newest.clone());
        }
        let mut matching = history.backups.iter().filter(|b| fits(&b.manifest.id));
        match (matching.next(), matching.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => Err(Error::new(
                ErrorKind::NotFound,
                format!("job `{}` has no backup `{name}`", self.name()),
            )),
            (Some(_), Some(_)) => Err(Error::new(
                ErrorKind::Invalid,
                format!("`{name}` begins the id of several backups: write more of it"),
            )),
        }
    }

    /// The catalogs of the sinks that answer, in the job's order, and the reasons of the others.
    pub(super) async fn catalogs(&self) -> (Vec<(String, Catalog)>, Vec<(String, Error)>) {
        let verifier = self.0.pipeline.verifier.as_ref();
        let mut loads = Vec::new();
        for named in &self.0.sinks {
            loads.push(Catalog::load(&named.sink, self.name(), verifier).boxed());
        }
        let (mut catalogs, mut unreachable) = (Vec::new(), Vec::new());
        for (named, loaded) in self.0.sinks.iter().zip(join_all(loads).await) {
            match loaded {
                Ok(catalog) => catalogs.push((named.name.clone(), catalog)),
                Err(error) => unreachable.push((named.name.clone(), error)),
            }
        }
        (catalogs, unreachable)
    }

    /// Marks a backup so that no policy deletes it, in every sink that has it. An error where a sink
    /// does not answer, which may have it too.
    pub async fn hold(&self, id: &Id, reason: &str) -> Result<()> {
        self.attest_everywhere(id, AttestationKind::Hold, Some(reason))
            .await
    }

    /// Ends a hold.
    pub async fn release(&self, id: &Id) -> Result<()> {
        self.attest_everywhere(id, AttestationKind::Release, None)
            .await
    }

    async fn attest_everywhere(
        &self,
        id: &Id,
        kind: AttestationKind,
        reason: Option<&str>,
    ) -> Result<()> {
        let history = self.history().await?;
        let backup = self.find_in(&history, id.as_str())?;
        // The last word counts, whatever the clock of whoever spoke before.
        let now = self.0.clock.now();
        let time = backup
            .attested
            .map_or(now, |last| now.max(last + Duration::from_secs(1)));
        let mut attestation = Attestation::new(kind, id.clone(), backup.digest, time);
        attestation.reason = reason.map(str::to_owned);
        for copy in &backup.copies {
            self.attest(&copy.sink, &attestation).await?;
        }
        match history.unreachable.into_iter().next() {
            None => Ok(()),
            Some((sink, error)) => Err(error.context(format!(
                "sink `{sink}` cannot be read, and may have {id} too: do it again when it is back"
            ))),
        }
    }

    pub(super) async fn attest(&self, sink: &str, attestation: &Attestation) -> Result<()> {
        let signer = self.0.pipeline.signer.as_deref();
        if signer.is_none() && self.0.pipeline.verifier.is_some() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a record without signature would be ignored where keys are trusted: a signing key is needed",
            ));
        }
        attestation
            .store(&*self.sink(sink)?.sink, self.name(), signer)
            .await
    }
}

fn merge(catalogs: &[(String, Catalog)]) -> Vec<Backup> {
    // Two sinks with different manifests under one id are two backups: one of them is forged, and
    // the fork is reported.
    let mut merged: BTreeMap<(u64, &Id, Digest), Backup> = BTreeMap::new();
    for (sink, catalog) in catalogs {
        for (id, listed) in &catalog.backups {
            let key = (listed.manifest.sequence, id, listed.digest);
            let backup = merged.entry(key).or_insert_with(|| Backup::of(listed));
            backup.copies.push(Copy { sink: sink.clone() });
            backup.learn(listed);
        }
    }
    merged.into_values().rev().collect()
}

impl Backup {
    fn of(listed: &Listed) -> Self {
        Self {
            manifest: Arc::clone(&listed.manifest),
            digest: listed.digest,
            copies: Vec::new(),
            verified: None,
            proven: None,
            held: None,
            attested: None,
        }
    }

    fn learn(&mut self, listed: &Listed) {
        let time = |kind| listed.attested(kind).map(|a| a.time.into());
        self.verified = self.verified.max(time(AttestationKind::Verified));
        self.proven = self.proven.max(time(AttestationKind::Proven));
        let times = listed.attestations.iter().map(|it| it.time.into());
        self.attested = self.attested.max(times.max());
        if let Some(hold) = listed.hold() {
            self.held = Some(hold.reason.clone().unwrap_or_default());
        }
    }
}
