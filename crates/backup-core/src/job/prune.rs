//! Deleting what the policy lets go, and what failed runs left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;

use super::receipts::Holders;
use super::{Job, NamedSink, locks};
use crate::catalog::{Catalog, Listed};
use crate::chain::{Chain, Finding};
use crate::record::{PruneRecord, Pruned};
use crate::retention::{Entry, Forever, Limits, Plan, Verdict, decide};
use crate::{Error, ErrorKind, Event, Id, Key, Object, Result, Sink, Swept, layout};

/// What a prune may do beyond the job's policy.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PruneOptions {
    /// Only this sink.
    pub sink: Option<String>,
    /// Allow this many deletions in one sink, whatever share of all it is.
    pub max_deletes: Option<usize>,
    /// Leftovers of failed runs go when they are older; the job's longest run by default.
    pub sweep_older_than: Option<Duration>,
}

impl PruneOptions {
    /// Only this sink.
    #[must_use]
    pub fn sink(mut self, sink: impl Into<String>) -> Self {
        self.sink = Some(sink.into());
        self
    }

    /// Allow this many deletions in one sink.
    #[must_use]
    pub fn max_deletes(mut self, count: usize) -> Self {
        self.max_deletes = Some(count);
        self
    }

    /// When leftovers of failed runs go.
    #[must_use]
    pub fn sweep_older_than(mut self, age: Duration) -> Self {
        self.sweep_older_than = Some(age);
        self
    }
}

/// What would go from one sink, and why the rest stays.
#[derive(Debug)]
#[non_exhaustive]
pub struct PrunePlan {
    /// The sink's name in the job.
    pub sink: String,
    /// The verdict on every backup there.
    pub plan: Plan,
    /// Leftovers of failed runs that a sweep would take now.
    pub leftovers: Vec<Id>,
}

/// What went from one sink.
#[derive(Debug)]
#[non_exhaustive]
pub struct PruneReport {
    /// The plan that was carried out.
    pub plan: PrunePlan,
    /// Backups that are gone.
    pub deleted: Vec<Id>,
    /// Backups that are still there, wholly or in part, and why.
    pub kept: Vec<(Id, Error)>,
    /// Leftovers that are gone.
    pub swept: Swept,
}

impl Job {
    /// What [`prune`](Self::prune) would do. Changes nothing.
    pub async fn plan_prune(&self, options: &PruneOptions) -> Result<Vec<PrunePlan>> {
        let (planned, _) = self.plan_all(options).await?;
        Ok(planned.into_iter().map(|(plan, _, _)| plan).collect())
    }

    /// Deletes, in every sink, what the sink's policy does not keep, and leftovers of failed runs.
    ///
    /// Per sink: first a record of what goes, then of each backup its manifest, then the rest; an
    /// error leaves the backup for the next time. `Refused`, before anything is deleted, when the
    /// plan of any sink looks like an accident: too large a share, a newest backup that is long
    /// overdue, a sink that shows less than it did. What is locked is kept and told.
    pub async fn prune(&self, options: &PruneOptions) -> Result<Vec<PruneReport>> {
        let _lock = self.lock_run()?;
        let (planned, mut holders) = self.plan_all(options).await?;
        for (plan, _, _) in &planned {
            let refused = |e: Error| e.context(format!("sink `{}`", plan.sink));
            plan.plan.deletable().map_err(refused)?;
        }
        let mut reports = Vec::new();
        for (plan, named, catalog) in planned {
            let pruned = self.prune_sink(plan, named, &catalog, options, &mut holders);
            reports.push(pruned.await?);
        }
        Ok(reports)
    }

    async fn plan_all(
        &self,
        options: &PruneOptions,
    ) -> Result<(Vec<(PrunePlan, &NamedSink, Catalog)>, Holders)> {
        let only = options.sink.as_deref();
        if let Some(name) = only {
            self.sink(name)?;
        }
        // Before the listing, as in `history`.
        let remembered = self.remembered();
        let (catalogs, unreachable) = self.catalogs().await;
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        let unasked = unreachable.first().map(|(name, _)| name.clone());
        if let Some((sink, error)) = unreachable.into_iter().find(|(name, _)| wanted(name)) {
            return Err(error.context(format!(
                "sink `{sink}` cannot be listed: nothing is deleted"
            )));
        }
        let holders = Holders::of(catalogs.iter().map(|(_, c)| c), unasked);
        let findings = Chain::of(catalogs.iter().map(|(_, c)| c)).findings(remembered.as_ref());
        let rolled_back = findings
            .iter()
            .find(|f| matches!(f, Finding::RolledBack { .. }));
        let mut planned = Vec::new();
        for (name, catalog) in catalogs {
            if wanted(&name) {
                let named = self.sink(&name)?;
                let plan = self
                    .plan_sink(named, &catalog, options, rolled_back)
                    .await?;
                planned.push((plan, named, catalog));
            }
        }
        Ok((planned, holders))
    }

    async fn plan_sink(
        &self,
        named: &NamedSink,
        catalog: &Catalog,
        options: &PruneOptions,
        rolled_back: Option<&Finding>,
    ) -> Result<PrunePlan> {
        let now = self.0.clock.now();
        let mut objects = self.objects_by_id(&named.sink).await?;
        let plan = self.decide(named, catalog, options, rolled_back, &objects, now);
        if !named.sink.capabilities().lock {
            return Ok(plan);
        }
        // A listing of S3 does not tell locks: what would go is asked one by one.
        let going = plan.plan.entries.iter();
        let going = going.filter(|planned| matches!(planned.verdict, Verdict::Delete(_)));
        let going: Vec<&Id> = going.map(|p| &p.id).chain(&plan.leftovers).collect();
        locks::learn(&*named.sink, &mut objects, &going).await?;
        Ok(self.decide(named, catalog, options, rolled_back, &objects, now))
    }

    fn decide(
        &self,
        named: &NamedSink,
        catalog: &Catalog,
        options: &PruneOptions,
        rolled_back: Option<&Finding>,
        objects: &BTreeMap<Id, Vec<Object>>,
        now: SystemTime,
    ) -> PrunePlan {
        let entries = catalog
            .backups
            .iter()
            .map(|(id, listed)| entry(id, listed, locks::until(objects, id)));
        let mut entries: Vec<Entry> = entries.collect();
        entries.extend(catalog.orphans.iter().cloned().map(Entry::incomplete));

        let mut limits = Limits::default()
            .last_prune(catalog.prunes.iter().map(|record| record.time.into()).max())
            .period(self.0.expires_after.map(|expires| expires / 2))
            .skew(skew(objects, now))
            .incrementals(self.0.incremental)
            .max_run(self.0.max_run);
        if let Some(count) = options.max_deletes {
            limits = limits.max_deletes(count);
        }
        if let Some(finding) = rolled_back {
            limits = limits.doubt(finding.to_string());
        }
        if let Some((id, _)) = catalog.damaged.iter().next() {
            limits = limits.doubt(format!("the manifest of {id} cannot be trusted"));
        }
        // It may be a hold.
        if let Some(error) = catalog.problems.first() {
            limits = limits.doubt(error.to_string());
        }
        // Leftovers may be all that is left of a backup, or what others are built on.
        let is_doubtful = rolled_back.is_some() || !catalog.damaged.is_empty();
        let needed: BTreeSet<Id> = entries
            .iter()
            .flat_map(|entry| entry.needed().cloned())
            .collect();
        let policy = named.retention.as_ref().or(self.0.retention.as_ref());
        let plan = match policy {
            Some(policy) => decide(policy, &entries, now, &limits),
            None => decide(&Forever, &entries, now, &limits),
        };
        let age = options.sweep_older_than.unwrap_or(self.0.max_run);
        let may_go = |id: &&Id| {
            let written = objects.get(*id).into_iter().flatten();
            let written = written.filter_map(|o| o.modified).max();
            let since = now.duration_since(written.unwrap_or_else(|| id.time()));
            // From the future: no telling how old, unless everything is to go.
            let old = since.map_or(age.is_zero(), |since| since >= age);
            let free = locks::until(objects, id).is_none_or(|until| until <= now);
            old && free && !is_doubtful && !needed.contains(*id)
        };
        PrunePlan {
            sink: named.name.clone(),
            plan,
            leftovers: catalog.orphans.iter().filter(may_go).cloned().collect(),
        }
    }

    /// Every version of every object of the job's backups.
    async fn objects_by_id(&self, sink: &Arc<dyn Sink>) -> Result<BTreeMap<Id, Vec<Object>>> {
        let capabilities = sink.capabilities();
        let folder = layout::job(self.name())?;
        let mut objects: BTreeMap<Id, Vec<Object>> = BTreeMap::new();
        let names: Vec<String> = sink.children(Some(&folder)).try_collect().await?;
        for id in names.iter().filter_map(|name| name.parse::<Id>().ok()) {
            let under = layout::backup(self.name(), &id)?;
            let found = match capabilities.lock || capabilities.versions {
                true => sink.versions(Some(&under)).try_collect().await?,
                false => sink.list(Some(&under)).try_collect().await?,
            };
            objects.insert(id, found);
        }
        Ok(objects)
    }

    async fn prune_sink(
        &self,
        plan: PrunePlan,
        named: &NamedSink,
        catalog: &Catalog,
        options: &PruneOptions,
        holders: &mut Holders,
    ) -> Result<PruneReport> {
        let going: Vec<Id> = plan
            .plan
            .deletable()?
            .into_iter()
            .map(|p| p.id.clone())
            .collect();
        let mut report = PruneReport {
            plan,
            deleted: Vec::new(),
            kept: Vec::new(),
            swept: Swept::default(),
        };
        self.record_prune(named, &going, catalog).await?;
        for id in going {
            let delete = async {
                let listed = catalog.backups.get(&id);
                if let Some(receipt) = listed.and_then(|it| it.manifest.receipt.as_ref()) {
                    self.forget(&id, receipt, holders).await?;
                }
                self.delete_backup(&named.sink, &id).await
            };
            match delete.await {
                Ok(_) => {
                    holders.lost(&id);
                    self.0.observer.event(&Event::Deleted {
                        sink: &named.name,
                        id: &id,
                    });
                    report.deleted.push(id);
                }
                Err(error) => report.kept.push((id, error)),
            }
        }
        for id in report.plan.leftovers.clone() {
            match self.delete_backup(&named.sink, &id).await {
                Ok(swept) => report.swept += swept,
                Err(error) => report.kept.push((id, error)),
            }
        }
        let age = options.sweep_older_than.unwrap_or(self.0.max_run);
        report.swept += named.sink.sweep(age).await?;
        Ok(report)
    }

    async fn record_prune(&self, named: &NamedSink, going: &[Id], catalog: &Catalog) -> Result<()> {
        if going.is_empty() {
            return Ok(());
        }
        let pruned = going
            .iter()
            .filter_map(|id| catalog.backups.get(id))
            .map(|listed| Pruned {
                id: listed.manifest.id.clone(),
                sequence: listed.manifest.sequence,
                manifest: listed.digest,
            });
        let record = PruneRecord::new(self.0.clock.now(), pruned.collect(), &catalog.prunes);
        let signer = self.0.pipeline.signer.as_deref();
        if signer.is_none() && self.0.pipeline.verifier.is_some() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a prune record without signature would be ignored where keys are trusted: a signing key is needed",
            ));
        }
        record.store(&*named.sink, self.name(), signer).await
    }

    /// Deletes everything under `id`, every version, the manifest first.
    async fn delete_backup(&self, sink: &Arc<dyn Sink>, id: &Id) -> Result<Swept> {
        let under = layout::backup(self.name(), id)?;
        let manifest = layout::object(self.name(), id, layout::MANIFEST)?;
        let mut objects: Vec<Object> = sink.versions(Some(&under)).try_collect().await?;
        objects.sort_by_key(|object| (object.key != manifest, object.key.clone()));
        let attested = layout::attestations(self.name(), id)?;
        let attestations: Vec<Object> = sink.versions(Some(&attested)).try_collect().await?;
        objects.extend(attestations);
        let mut swept = Swept::default();
        for object in objects {
            match sink.delete(&object.locator()).await {
                Ok(()) => {}
                // It was made later and is locked for longer, and says nothing without its backup.
                Err(error)
                    if error.kind() == ErrorKind::Locked && object.key.is_under(&attested) =>
                {
                    tracing::info!(key = %object.key, "a record stays: {}", error.chain());
                    continue;
                }
                Err(error) => return Err(error.context(format!("delete `{}`", object.key))),
            }
            swept += Swept {
                objects: 1,
                bytes: object.len,
            };
        }
        Ok(swept)
    }
}

fn entry(id: &Id, listed: &Listed, locked_until: Option<SystemTime>) -> Entry {
    let manifest = &listed.manifest;
    // Objects of ancestors are named by full key: whoever owns them is needed too.
    let foreign: BTreeSet<Id> = manifest
        .parts
        .iter()
        .flat_map(|part| &part.objects)
        .filter(|object| !manifest.owns(object))
        .filter_map(|object| owner(&object.key))
        .collect();
    let time = |kind| listed.attested(kind).map(|a| SystemTime::from(a.time));
    let hold = listed.hold();
    Entry::new(id.clone(), manifest.sequence, manifest.started.into())
        .finished(manifest.finished.into())
        .parent(manifest.parent.clone())
        .needs(foreign)
        .verified(time(crate::AttestationKind::Verified))
        .proven(time(crate::AttestationKind::Proven))
        .held(hold.map(|hold| hold.reason.clone().unwrap_or_default()))
        .locked_until(locked_until)
        .bytes(manifest.stored_bytes())
}

fn owner(key: &Key) -> Option<Id> {
    key.as_str().split('/').nth(1)?.parse().ok()
}

/// How far the sink's clock is ahead of ours, as far as it shows: something was written later
/// than now.
fn skew(objects: &BTreeMap<Id, Vec<Object>>, now: SystemTime) -> Option<Duration> {
    let newest = objects
        .values()
        .flatten()
        .filter_map(|object| object.modified)
        .max()?;
    newest.duration_since(now).ok()
}
