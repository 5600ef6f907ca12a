//! Nothing false is ever complete: whatever fails, at whatever call.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use backup_core::testing::faults::{Call, Crash, Fault, FaultySink, FaultySource};
use backup_core::testing::noise;
use backup_core::{
    ErrorKind, Finding, Id, Job, MemorySink, MemorySource, PruneOptions, Result, RunOptions, Sink,
    Source, Status,
};
use futures::TryStreamExt;
use lifebelt_tests::Keys;

fn source() -> MemorySource {
    MemorySource::new([
        ("rows.csv", noise(700_000, 1)),
        ("more.csv", noise(300_000, 2)),
    ])
}

/// A job over memory, quick to give up on a sink that stalls.
fn job(keys: &Keys, sinks: Vec<Arc<dyn Sink>>, source: impl Source) -> Job {
    let pipeline = keys.pipeline().stall_timeout(Duration::from_millis(300));
    let mut builder = Job::builder("orders")
        .source(source)
        .pipeline(pipeline)
        .min_copies(1);
    for (n, sink) in sinks.into_iter().enumerate() {
        builder = builder.sink(format!("sink-{n}"), sink);
    }
    builder.build().unwrap()
}

/// With healthy eyes: every backup that is listed verifies, `earlier` is among them, the next run
/// succeeds, and a sweep leaves nothing but complete backups.
async fn is_in_order(keys: &Keys, sinks: &[MemorySink], earlier: &Id, context: &str) {
    let shared = sinks
        .iter()
        .map(|sink| Arc::new(sink.clone()) as Arc<dyn Sink>)
        .collect();
    let healthy = job(keys, shared, source());
    let next = healthy.run(RunOptions::default()).await;
    let next = next.unwrap_or_else(|e| panic!("{context}: the next run failed: {e:?}"));
    assert!(
        next.copies.iter().all(|copy| copy.error.is_none()),
        "{context}: {next:?}"
    );
    let history = healthy.history().await.unwrap();
    // A sink that hid the newest backup from a writer made it fork, and that is reported.
    let fork = |finding: &&Finding| !matches!(finding, Finding::Fork { .. });
    let odd: Vec<&Finding> = history.findings.iter().filter(fork).collect();
    assert!(odd.is_empty(), "{context}: {odd:?}");
    let ids: Vec<Id> = history
        .backups
        .iter()
        .map(|b| b.manifest.id.clone())
        .collect();
    assert!(
        ids.contains(earlier) && ids.contains(&next.id),
        "{context}: {ids:?}"
    );
    healthy
        .prune(&PruneOptions::default().sweep_older_than(Duration::ZERO))
        .await
        .unwrap();
    for id in &ids {
        for verified in healthy.verify(id, None).await.unwrap() {
            let whole = verified.problems.is_empty();
            // A copy that was given up is gone; one that is listed is whole.
            assert!(
                whole,
                "{context}: {id} in {}: {:?}",
                verified.sink, verified.problems
            );
        }
    }
    for sink in sinks {
        let objects: Vec<_> = sink.list(None).try_collect().await.unwrap();
        for object in objects {
            let owner = object.key.as_str().split('/').nth(1).unwrap().parse::<Id>();
            let known = owner.is_err() || owner.is_ok_and(|id| ids.contains(&id));
            assert!(known, "{context}: {} was left behind", object.key);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sink_call_failing_in_turn_is_an_error_or_a_whole_backup() {
    let keys = Keys::new();
    let faults = [
        Fault::Fail(ErrorKind::Denied),
        Fault::FailAfter(100, ErrorKind::Unavailable),
        Fault::LoseReply(ErrorKind::Unavailable),
        Fault::Pretend,
        Fault::Cut(100),
        Fault::WrongLength,
        Fault::StallAfter(100),
    ];
    let (mut fired, mut refused) = (0, 0);
    for call in [Call::Put, Call::Get, Call::List, Call::Children] {
        for fault in faults {
            for nth in 1.. {
                let durable = MemorySink::new();
                let first = job(&keys, vec![Arc::new(durable.clone())], source());
                let earlier = first.run(RunOptions::default()).await.unwrap().id;
                let faulty = Arc::new(FaultySink::new(durable.clone()).at(call, nth, fault));
                let run = job(&keys, vec![faulty.clone()], source());
                let outcome =
                    tokio::time::timeout(Duration::from_secs(20), run.run(RunOptions::default()))
                        .await;
                let context = format!("{call:?} number {nth}: {fault:?}");
                let calls = faulty.calls(call);
                if faulty.fired() == 0 {
                    assert!(
                        calls < nth || !matches!(fault, Fault::Fail(_)),
                        "{context} did not fire"
                    );
                    if calls < nth {
                        break;
                    }
                    continue;
                }
                fired += 1;
                // A listing that never ends stops a run, and whoever waits gives up.
                if let Ok(outcome) = outcome {
                    refused += u64::from(outcome.is_err());
                    if let Ok(report) = outcome {
                        let verified = first.verify(&report.id, None).await.unwrap();
                        assert!(
                            verified[0].problems.is_empty(),
                            "{context}: {:?}",
                            verified[0].problems
                        );
                    }
                }
                is_in_order(&keys, &[durable], &earlier, &context).await;
            }
        }
    }
    println!("faults: {fired} fired, {refused} runs refused");
    assert!(
        fired >= 80 && refused >= 70,
        "{fired} fired, {refused} refused"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fails_costs_its_own_copy_only() {
    let keys = Keys::new();
    for fault in [
        Fault::Fail(ErrorKind::Denied),
        Fault::FailAfter(400_000, ErrorKind::Sink),
        Fault::StallAfter(1),
    ] {
        let sound = MemorySink::new();
        let bad = Arc::new(FaultySink::new(MemorySink::new()).at(Call::Put, 1, fault));
        let run = job(&keys, vec![Arc::new(sound.clone()), bad.clone()], source());
        let report = run.run(RunOptions::default()).await.unwrap();
        assert_eq!(bad.fired(), 1, "{fault:?}");
        assert_eq!(report.status(), Status::Complete);
        assert!(
            report.copies[0].error.is_none() && report.copies[1].error.is_some(),
            "{report:?}"
        );
        assert!(
            run.verify(&report.id, Some("sink-0")).await.unwrap()[0]
                .problems
                .is_empty()
        );
        let backups = run.history().await.unwrap().backups;
        assert_eq!(
            backups[0].copies.len(),
            1,
            "the failed sink shows no backup"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_moment_leaves_only_whole_backups() {
    let keys = Keys::new();
    let mut crashes = 0;
    for moment in 1.. {
        let durable = [MemorySink::new(), MemorySink::new()];
        let shared = |sink: &MemorySink| Arc::new(sink.clone()) as Arc<dyn Sink>;
        let first = job(&keys, durable.iter().map(shared).collect(), source());
        let earlier = first.run(RunOptions::default()).await.unwrap().id;
        let crash = Crash::at(moment);
        let dying = durable
            .iter()
            .map(|sink| Arc::new(crash.over(sink.clone())) as Arc<dyn Sink>);
        let pipeline = keys.pipeline().stall_timeout(Duration::from_secs(60));
        let mut builder = Job::builder("orders").source(source()).pipeline(pipeline);
        for (n, sink) in dying.enumerate() {
            builder = builder.sink(format!("sink-{n}"), sink);
        }
        let run = builder.build().unwrap();
        tokio::select! {
            report = run.run(RunOptions::default()) => {
                report.unwrap();
                break;
            }
            () = crash.happened() => {}
        }
        assert_eq!(crash.fired(), 1);
        crashes += 1;
        is_in_order(
            &keys,
            &durable,
            &earlier,
            &format!("crash at moment {moment}"),
        )
        .await;
    }
    println!("faults: {crashes} crashes");
    assert!(crashes > 30, "{crashes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_at_any_byte_commits_nothing() {
    let keys = Keys::new();
    for part in [1, 2] {
        for after in [0, 1, 65_536, 299_999, 300_000] {
            let durable = MemorySink::new();
            let first = job(&keys, vec![Arc::new(durable.clone())], source());
            let earlier = first.run(RunOptions::default()).await.unwrap().id;
            let fault = Fault::FailAfter(after, ErrorKind::Source);
            let failing = FaultySource::new(source()).at(part, fault);
            let run = job(&keys, vec![Arc::new(durable.clone())], failing.clone());
            let error = run.run(RunOptions::default()).await.unwrap_err();
            assert_eq!(failing.fired(), 1);
            assert_eq!(error.kind(), ErrorKind::Source, "{error:?}");
            assert_eq!(first.history().await.unwrap().backups.len(), 1);
            is_in_order(
                &keys,
                &[durable],
                &earlier,
                &format!("part {part} after {after}"),
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_commits_nothing_and_ends() {
    let keys = Keys::new();
    let durable = MemorySink::new();
    let first = job(&keys, vec![Arc::new(durable.clone())], source());
    let earlier = first.run(RunOptions::default()).await.unwrap().id;
    let stalled = FaultySource::new(source()).at(2, Fault::StallAfter(100_000));
    let run = job(&keys, vec![Arc::new(durable.clone())], stalled.clone());
    let mut handle = run.start(RunOptions::default());
    while handle.progress().plain < 600_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handle.cancel();
    assert_eq!(
        handle.wait().await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    is_in_order(&keys, &[durable], &earlier, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_writes_nothing_is_no_backup() -> Result<()> {
    let keys = Keys::new();
    let none: [(&str, &str); 0] = [];
    let run = job(
        &keys,
        vec![Arc::new(MemorySink::new())],
        MemorySource::new(none),
    );
    assert_eq!(
        run.run(RunOptions::default()).await.unwrap_err().kind(),
        ErrorKind::Source
    );
    Ok(())
}
