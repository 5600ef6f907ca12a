//! Backups whose data the store keeps itself, and hands out a receipt for.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use backup_core::retention::KeepLast;
use backup_core::testing::faults::{Call, Fault, FaultySink};
use backup_core::{
    Clock, Delegated, Error, ErrorKind, Facts, Job, JobBuilder, MemorySink, Occupancy, PartReader,
    PartWriter, Pipeline, PruneOptions, Request, RestoreOptions, RestoreRequest, Result,
    RunOptions, Source, Target, async_trait,
};
use serde_json::{Value, json};

/// A store that keeps a copy of what it holds under the name of each backup.
#[derive(Clone, Debug, Default)]
struct Keeper(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    holds: String,
    kept: BTreeMap<String, String>,
    /// It cannot be reached.
    away: bool,
}

impl Keeper {
    fn holding(text: &str) -> Self {
        let keeper = Self::default();
        keeper.0.lock().unwrap().holds = text.to_owned();
        keeper
    }

    fn kept(&self) -> Vec<String> {
        self.0.lock().unwrap().kept.keys().cloned().collect()
    }

    fn look<T>(&self, at: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.0.lock().unwrap();
        match state.away {
            true => Err(Error::new(ErrorKind::Unavailable, "the store is away")),
            false => at(&mut state),
        }
    }
}

fn name(receipt: &Value) -> String {
    receipt["kept"].as_str().unwrap().to_owned()
}

#[async_trait]
impl Source for Keeper {
    fn kind(&self) -> &str {
        "keeper"
    }

    async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
        let id = request.id.to_string();
        self.look(|state| {
            state.kept.insert(id.clone(), state.holds.clone());
            Ok(())
        })?;
        out.receipt(json!({ "kept": id }));
        Ok(Facts::new())
    }

    fn delegated(&self) -> Option<&dyn Delegated> {
        Some(self)
    }
}

#[async_trait]
impl Delegated for Keeper {
    async fn check(&self, receipt: &Value) -> Result<()> {
        self.look(|state| match state.kept.contains_key(&name(receipt)) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::NotFound, "it is gone")),
        })
    }

    async fn forget(&self, receipt: &Value) -> Result<()> {
        self.look(|state| {
            state.kept.remove(&name(receipt));
            Ok(())
        })
    }
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keeper")
    }
}

#[async_trait]
impl Target for Keeper {
    fn kind(&self) -> &str {
        "keeper"
    }

    async fn occupancy(&self) -> Result<Occupancy> {
        self.look(|state| match state.holds.as_str() {
            "" => Ok(Occupancy::Empty),
            text => Ok(Occupancy::Holds(text.to_owned())),
        })
    }

    fn publishes_atomically(&self) -> bool {
        true
    }

    fn takes_receipts(&self) -> bool {
        true
    }

    async fn restore(&self, parts: &PartReader, _options: &RestoreOptions) -> Result<()> {
        let receipt = parts.manifest().receipt.clone().unwrap();
        self.look(|state| {
            let kept = state.kept.get(&name(&receipt)).cloned();
            state.holds = kept.ok_or_else(|| Error::new(ErrorKind::NotFound, "it is gone"))?;
            Ok(())
        })
    }
}

/// Each look at it is a minute later: backups of the same second have no order.
#[derive(Debug, Default)]
struct Minutes(AtomicU64);

impl Clock for Minutes {
    fn now(&self) -> SystemTime {
        let minutes = self.0.fetch_add(1, Ordering::SeqCst);
        SystemTime::UNIX_EPOCH + Duration::from_secs(60 * (30_000_000 + minutes))
    }
}

fn job(keeper: &Keeper) -> JobBuilder {
    Job::builder("job")
        .source(keeper.clone())
        .clock(Minutes::default())
        .pipeline(Pipeline::unencrypted())
}

#[tokio::test]
async fn a_receipt_is_verified_by_asking_the_store() {
    let keeper = Keeper::holding("one");
    let job = job(&keeper).sink("a", MemorySink::new()).build().unwrap();
    let id = job.run(RunOptions::default()).await.unwrap().id;
    let found = job.verify(&id, None).await.unwrap();
    assert!(found[0].problems.is_empty(), "{found:?}");

    keeper.0.lock().unwrap().away = true;
    let error = job.verify(&id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    keeper.0.lock().unwrap().away = false;

    keeper.0.lock().unwrap().kept.clear();
    let found = job.verify(&id, None).await.unwrap();
    let problem = &found[0].problems[0];
    assert_eq!(problem.key.name(), "manifest.json");
    assert!(
        problem.error.chain().contains("it is gone"),
        "{:?}",
        problem.error
    );
}

#[tokio::test]
async fn whoever_cannot_ask_the_store_verifies_nothing() {
    let (keeper, sink) = (Keeper::holding("one"), MemorySink::new());
    let writer = job(&keeper).sink("a", sink.clone()).build().unwrap();
    let id = writer.run(RunOptions::default()).await.unwrap().id;
    let reader = Job::builder("job")
        .sink("a", sink)
        .pipeline(Pipeline::unencrypted())
        .build()
        .unwrap();
    let error = reader.verify(&id, None).await.unwrap_err();
    let said = error.chain();
    assert!(said.contains("no source that could ask it"), "{said}");
}

#[tokio::test]
async fn what_a_store_keeps_goes_with_the_last_receipt() {
    let keeper = Keeper::holding("one");
    let job = job(&keeper)
        .sink("a", MemorySink::new())
        .sink("b", MemorySink::new())
        .retention_for("a", KeepLast::new(1).unwrap())
        .retention_for("b", KeepLast::new(2).unwrap())
        .build()
        .unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(job.run(RunOptions::default()).await.unwrap().id.to_string());
    }
    let prune = || PruneOptions::default().max_deletes(9);
    // The second is in `b` still.
    job.prune(&prune()).await.unwrap();
    assert_eq!(keeper.kept(), ids[1..]);
    // A store that does not answer keeps its data, and we the receipt.
    let next = job.run(RunOptions::default()).await.unwrap().id.to_string();
    keeper.0.lock().unwrap().away = true;
    let reports = job.prune(&prune()).await.unwrap();
    let (_, why) = &reports[1].kept[0];
    assert_eq!(why.kind(), ErrorKind::Unavailable, "{why:?}");
    keeper.0.lock().unwrap().away = false;
    job.prune(&prune()).await.unwrap();
    assert_eq!(keeper.kept(), [ids[2].clone(), next]);
}

#[tokio::test]
async fn a_receipt_that_cannot_be_deleted_keeps_its_data() {
    let keeper = Keeper::holding("one");
    let denied = Fault::Fail(ErrorKind::Denied);
    let stuck = FaultySink::new(MemorySink::new()).from(Call::Delete, 1, denied);
    let job = job(&keeper)
        .sink("stuck", stuck.clone())
        .sink("b", MemorySink::new())
        .retention(KeepLast::new(1).unwrap())
        .build()
        .unwrap();
    for _ in 0..2 {
        job.run(RunOptions::default()).await.unwrap();
    }
    let reports = job.prune(&PruneOptions::default()).await.unwrap();
    assert!(stuck.fired() > 0);
    assert_eq!((reports[0].deleted.len(), reports[1].deleted.len()), (0, 1));
    assert_eq!(keeper.kept().len(), 2);
}

#[tokio::test]
async fn a_receipt_that_no_sink_has_is_given_back() {
    let keeper = Keeper::holding("one");
    // The manifest is what makes it visible.
    for nth in 1.. {
        let sink = FaultySink::new(MemorySink::new()).at(
            Call::Put,
            nth,
            Fault::Fail(ErrorKind::Unavailable),
        );
        let job = job(&keeper).sink("a", sink.clone()).build().unwrap();
        let outcome = job.run(RunOptions::default()).await;
        if sink.fired() == 0 {
            outcome.unwrap();
            assert!(nth > 1, "nothing was put");
            break;
        }
        outcome.unwrap_err();
        assert_eq!(keeper.kept(), [""; 0], "put {nth} failed");
    }
    assert_eq!(keeper.kept().len(), 1);
}

#[tokio::test]
async fn a_receipt_that_a_sink_may_have_keeps_its_data() {
    let keeper = Keeper::holding("one");
    let (away, denied) = (
        Fault::Fail(ErrorKind::Unavailable),
        Fault::Fail(ErrorKind::Denied),
    );
    // The manifest is there, cannot be read back, and cannot be taken away.
    let sink = FaultySink::new(MemorySink::new())
        .from(Call::Get, 1, away)
        .from(Call::Delete, 1, denied);
    let job = job(&keeper).sink("a", sink.clone()).build().unwrap();
    job.run(RunOptions::default()).await.unwrap_err();
    assert!(sink.fired() >= 2);
    assert_eq!(keeper.kept().len(), 1);
}

#[tokio::test]
async fn a_prune_that_cannot_be_recorded_keeps_the_data() {
    let (keeper, sink) = (Keeper::holding("one"), MemorySink::new());
    let full = FaultySink::new(sink.clone()).from(Call::Put, 1, Fault::Fail(ErrorKind::Denied));
    let clock = Minutes::default();
    let writer = job(&keeper).clock(clock).sink("a", sink).build().unwrap();
    for _ in 0..2 {
        writer.run(RunOptions::default()).await.unwrap();
    }
    let pruner = job(&keeper).sink("a", full.clone());
    let pruner = pruner.retention(KeepLast::new(1).unwrap()).build().unwrap();
    pruner.prune(&PruneOptions::default()).await.unwrap_err();
    assert!(full.fired() > 0);
    assert_eq!(keeper.kept().len(), 2);
}

#[tokio::test]
async fn a_receipt_is_restored_by_a_target_that_takes_it_and_by_no_other() {
    let (keeper, sink) = (Keeper::holding("one"), MemorySink::new());
    let job = job(&keeper).sink("a", sink).build().unwrap();
    let id = job.run(RunOptions::default()).await.unwrap().id;
    keeper.0.lock().unwrap().holds = "two".to_owned();
    let refused = job.restore(&id, &keeper, RestoreRequest::default()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
    let agreed = RestoreRequest::default().overwrite("keeper");
    job.restore(&id, &keeper, agreed).await.unwrap();
    assert_eq!(keeper.0.lock().unwrap().holds, "one");

    #[derive(Debug)]
    struct Deaf;
    impl fmt::Display for Deaf {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("deaf")
        }
    }
    #[async_trait]
    impl Target for Deaf {
        fn kind(&self) -> &str {
            "keeper"
        }
        async fn occupancy(&self) -> Result<Occupancy> {
            Ok(Occupancy::Empty)
        }
        fn publishes_atomically(&self) -> bool {
            true
        }
        async fn restore(&self, _: &PartReader, _: &RestoreOptions) -> Result<()> {
            panic!("asked to restore what it does not take")
        }
    }
    let error = job
        .restore(&id, &Deaf, RestoreRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.chain().contains("takes none"), "{error:?}");
}
