//! Snapshots and restores that are cut off, and servers that change meanwhile.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backup_core::testing::eventually;
use backup_core::{
    ByteStream, ErrorKind, Event, Id, Job, Key, Locator, MemorySink, Observer, Pipeline,
    PutOptions, RestoreRequest, Result, RunOptions, Sink, Source, Target,
};
use futures::TryStreamExt;
use store_redis::{Redis, RedisServer};
use support::proxy::{Fault, Proxy};
use support::{Kind, PASSWORD, Server};

/// The first that is at hand: what is tested here is ours, and the same for all.
fn any() -> Option<support::Programs> {
    Kind::all().next()
}

fn job(source: impl Source, sink: &MemorySink) -> Job {
    let job = Job::builder("job")
        .source(source)
        .sink("memory", sink.clone());
    job.pipeline(Pipeline::unencrypted()).build().unwrap()
}

/// Backs up. After a failure there must be no manifest, and the error is one line.
async fn back_up(source: impl Source, sink: &MemorySink) -> Result<Id> {
    let outcome = job(source, sink).run(RunOptions::default()).await;
    if let Err(error) = &outcome {
        let left: Vec<_> = sink.list(None).try_collect().await.unwrap();
        assert!(
            left.iter()
                .all(|object| object.key.name() != "manifest.json")
        );
        let line = error.chain();
        assert!(!line.contains('\n') && !line.contains("canary"), "{line}");
        assert_ne!(error.kind(), ErrorKind::Sink, "{line}");
    }
    outcome.map(|report| report.id)
}

async fn restore(server: &Server, sink: &MemorySink, id: &Id, target: &dyn Target) -> Result<()> {
    let request = RestoreRequest::default();
    let restored = job(server.source(), sink)
        .restore(id, target, request)
        .await;
    restored.map(drop)
}

fn through(proxy: &Proxy) -> Redis {
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    Redis::from_url(url).unwrap().password(PASSWORD)
}

/// Somewhere in a snapshot of `len` bytes, the same places in each run.
fn places(count: u64, len: u64) -> impl Iterator<Item = u64> {
    let step = len / count;
    (0..count).map(move |n| n * step + (n * 7919) % step)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_anywhere_makes_no_backup() {
    for it in Kind::all() {
        let server = it.start(&[]);
        server.fill(300);
        for diskless in ["yes", "no"] {
            server.ask(&["CONFIG", "SET", "repl-diskless-sync", diskless]);
            let len = server.saved();
            for at in (0..20).chain(places(35, len)) {
                let proxy = Proxy::to(server.port, Fault::Cut(at));
                let error = back_up(through(&proxy), &MemorySink::new())
                    .await
                    .unwrap_err();
                assert!(proxy.fired() > 0, "not cut at {at}");
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{at}: {error:?}");
            }
        }
        let sink = MemorySink::new();
        let proxy = Proxy::to(server.port, Fault::Cut(100_000));
        back_up(through(&proxy), &sink).await.unwrap_err();
        assert_eq!(proxy.fired(), 1);
        proxy.mend();
        back_up(through(&proxy), &sink).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_waited_for_and_no_longer() {
    let Some(it) = any() else { return };
    let server = it.start(&[]);
    server.fill(300);
    for at in [0, 5, 80, 100_000] {
        let proxy = Proxy::to(server.port, Fault::Stall(at));
        let source = through(&proxy).timeout(Duration::from_millis(300));
        let error = back_up(source, &MemorySink::new()).await.unwrap_err();
        assert_eq!(proxy.fired(), 1);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(
            error.chain().contains("said nothing for 300ms"),
            "{error:?}"
        );
    }
    // One that only takes its time, and says so, is not silent.
    server.ask(&["CONFIG", "SET", "repl-diskless-sync-delay", "3"]);
    let patient = server.source().timeout(Duration::from_millis(2500));
    back_up(patient, &MemorySink::new()).await.unwrap();
}

/// Tells when bytes begin to come, and kills the server then.
#[derive(Debug)]
struct Killer {
    pid: u32,
    killed: AtomicBool,
}

impl Observer for Killer {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::Progress { .. }) && !self.killed.swap(true, Ordering::SeqCst) {
            let pid = self.pid.to_string();
            let kill = std::process::Command::new("kill")
                .args(["-KILL", &pid])
                .status();
            assert!(kill.unwrap().success());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_midway_makes_no_backup() {
    for it in Kind::all() {
        let mut server = it.start(&[]);
        server.fill(40_000);
        server.saved();
        let killer = Arc::new(Killer {
            pid: server.pid(),
            killed: AtomicBool::new(false),
        });
        let sink = MemorySink::new();
        // It takes seconds, and is more than sockets hold, so that it is midway that it dies.
        let slowly = Pipeline::unencrypted().rate_limit(3_000_000);
        let broken = Job::builder("job")
            .source(server.source())
            .sink("memory", sink.clone())
            .pipeline(slowly)
            .observer(vec![Arc::clone(&killer) as Arc<dyn Observer>])
            .build()
            .unwrap();
        let error = broken.run(RunOptions::default()).await.unwrap_err();
        assert!(killer.killed.load(Ordering::SeqCst));
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        server.kill();
        server.run();
        assert_eq!(server.keys(), 40_000);
        back_up(server.source(), &sink).await.unwrap();
    }
}

/// Two keys are always changed together, and a third counts how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_motion_comes_back_as_one_moment() {
    const CHANGE: &str = "local n = redis.call('incr', 'count') for i = 1, 50 do \
        redis.call('set', 'left:' .. i, n) redis.call('rpush', 'right:' .. i, n) end";
    for it in Kind::all() {
        let (from, to) = (Arc::new(it.start(&[])), it.start(&[]));
        from.fill(5_000);
        let (going, changes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let writer = {
            let (from, going, changes) =
                (Arc::clone(&from), Arc::clone(&going), Arc::clone(&changes));
            std::thread::spawn(move || {
                while going.load(Ordering::SeqCst) {
                    from.ask(&["EVAL", CHANGE, "0"]);
                    changes.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        eventually("it moves", async || changes.load(Ordering::SeqCst) > 20).await;
        for diskless in ["yes", "no", "yes"] {
            from.ask(&["CONFIG", "SET", "repl-diskless-sync", diskless]);
            let (sink, before) = (MemorySink::new(), changes.load(Ordering::SeqCst));
            let id = back_up(from.source(), &sink).await.unwrap();
            assert!(
                changes.load(Ordering::SeqCst) > before,
                "it moved all the time"
            );
            to.wipe();
            restore(&from, &sink, &id, &to.target()).await.unwrap();
            let count: u64 = to.ask(&["GET", "count"]).parse().unwrap();
            assert!(count >= before);
            for i in 1..=50 {
                assert_eq!(to.ask(&["GET", &format!("left:{i}")]), count.to_string());
                assert_eq!(
                    to.ask(&["LINDEX", &format!("right:{i}"), "-1"]),
                    count.to_string()
                );
                assert_eq!(
                    to.ask(&["LLEN", &format!("right:{i}")]),
                    format!(":{count}")
                );
            }
        }
        going.store(false, Ordering::SeqCst);
        writer.join().unwrap();
    }
}

/// Ignores the signal, so that a write that goes too far is an error, as on a full disk.
const SMALL_DISK: &str = "trap '' XFSZ; ulimit -f 200;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_makes_no_backup_and_says_so_after_a_restore() {
    for it in Kind::all() {
        let server = it.start_behind(SMALL_DISK, &["repl-diskless-sync no"]);
        server.fill(2000);
        let error = back_up(server.source(), &MemorySink::new())
            .await
            .unwrap_err();
        assert!(server.log().contains("rror"), "{}", server.log());
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        server.ask(&["CONFIG", "SET", "repl-diskless-sync", "yes"]);
        let sink = MemorySink::new();
        let id = back_up(server.source(), &sink).await.unwrap();

        let full = it.start_behind(SMALL_DISK, &["repl-diskless-load disabled"]);
        full.ask(&["SET", "mine", "kept"]);
        let request = RestoreRequest::default().overwrite(full.url());
        let outcome = job(server.source(), &sink)
            .restore(&id, &full.target(), request)
            .await;
        let error = outcome.unwrap_err();
        assert!(
            full.log().contains("Write error or short write"),
            "{}",
            full.log()
        );
        assert!(
            error.chain().contains("takes writes again and holds 1 key"),
            "{error:?}"
        );
        assert_eq!(full.ask(&["GET", "mine"]), "kept");
        full.wipe();
        full.ask(&["CONFIG", "SET", "repl-diskless-load", "swapdb"]);
        restore(&server, &sink, &id, &full.target()).await.unwrap();
        assert_eq!(full.keys(), 2000);

        // It loads, and cannot keep.
        let keeps = it.start_behind(SMALL_DISK, &["repl-diskless-load swapdb", "appendonly yes"]);
        let error = restore(&server, &sink, &id, &keeps.target())
            .await
            .unwrap_err();
        assert!(
            error.chain().contains("cannot write its append-only file"),
            "{error:?}"
        );
    }
}

fn advertised(server: &Server, fault: Fault) -> (RedisServer, Proxy) {
    let port = support::free_port();
    let proxy = Proxy::to(port, fault);
    let target = server.target().listen(([127, 0, 0, 1], port).into());
    (target.advertise("127.0.0.1", proxy.port), proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_cut_leaves_what_was_there_and_a_primary() {
    for it in Kind::all() {
        let from = it.start(&[]);
        from.fill(300);
        let sink = MemorySink::new();
        let id = back_up(from.source(), &sink).await.unwrap();
        let len = job(from.source(), &sink).find(id.as_str()).await.unwrap();
        let len = len.manifest.parts[0].plain.len;
        for load in ["disabled", "swapdb"] {
            let to = it.start(&[&format!("repl-diskless-load {load}")]);
            to.ask(&["SET", "mine", "kept"]);
            for at in [0, 3, 60].into_iter().chain(places(8, len)) {
                let (target, proxy) = advertised(&to, Fault::Cut(at));
                let request = RestoreRequest::default().overwrite(to.url());
                let target = target.timeout(Duration::from_secs(2));
                let outcome = job(from.source(), &sink)
                    .restore(&id, &target, request)
                    .await;
                let error = outcome.unwrap_err();
                assert!(proxy.fired() > 0, "not cut at {at}");
                assert!(
                    error.chain().contains("takes writes again and holds 1 key"),
                    "{error:?}"
                );
                assert_eq!(to.info("role"), "master");
                assert_eq!(to.ask(&["GET", "mine"]), "kept", "{load}, {at}");
            }
            to.wipe();
            restore(&from, &sink, &id, &to.target()).await.unwrap();
            assert_eq!(to.keys(), 300);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_reach_us_or_dies_is_a_clear_failure() {
    let Some(it) = any() else { return };
    let (from, mut to) = (it.start(&[]), it.start(&[]));
    from.fill(300);
    let sink = MemorySink::new();
    let id = back_up(from.source(), &sink).await.unwrap();
    let nowhere = to.target().advertise("127.0.0.1", support::free_port());
    let nowhere = nowhere.timeout(Duration::from_secs(1));
    let error = restore(&from, &sink, &id, &nowhere).await.unwrap_err();
    assert!(error.chain().contains("must reach this host"), "{error:?}");
    assert_eq!(to.leftovers(), [""; 0]);

    let (stalled, proxy) = advertised(&to, Fault::Stall(100_000));
    let (job, wanted) = (job(from.source(), &sink), id.clone());
    let stalled = stalled.timeout(Duration::from_secs(20));
    let running = tokio::spawn(async move {
        job.restore(&wanted, &stalled, RestoreRequest::default())
            .await
    });
    eventually("it is on its way", async || proxy.fired() > 0).await;
    to.kill();
    let error = running.await.unwrap().unwrap_err();
    assert!(
        error.chain().contains("may still be a replica"),
        "{error:?}"
    );
    to.run();
    restore(&from, &sink, &id, &to.target()).await.unwrap();
    assert_eq!(to.keys(), 300);
}

/// A restore that is given up on while it gives up itself: the server is a primary nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_dropped_while_it_gives_up_leaves_a_primary() {
    let Some(it) = any() else { return };
    let (from, to) = (it.start(&[]), it.start(&[]));
    from.fill(20);
    let sink = MemorySink::new();
    let id = back_up(from.source(), &sink).await.unwrap();
    // It gives up on the server after three seconds, and on giving up after three more.
    let nowhere = to.target().advertise("127.0.0.1", support::free_port());
    let nowhere = nowhere.timeout(Duration::from_secs(3));
    let job = job(from.source(), &sink);
    let running =
        tokio::spawn(async move { job.restore(&id, &nowhere, RestoreRequest::default()).await });
    eventually("it is a replica", async || to.info("role") == "slave").await;
    let signal = |name: &str| {
        let pid = to.pid().to_string();
        let kill = std::process::Command::new("kill")
            .args([name, &pid])
            .status();
        assert!(kill.unwrap().success());
    };
    signal("-STOP");
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert!(!running.is_finished());
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    signal("-CONT");
    eventually("it is a primary", async || to.info("role") == "master").await;
}

/// An object that is damaged in the sink: the server is not even asked to be a replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_before_the_server_is_touched() {
    let Some(it) = any() else { return };
    let (from, to) = (it.start(&[]), it.start(&[]));
    from.fill(20);
    let sink = MemorySink::new();
    let id = back_up(from.source(), &sink).await.unwrap();
    let key = Key::parse(format!("job/{id}/dump.rdb")).unwrap();
    let whole = sink.get(&Locator::from(&key), None).await.unwrap();
    let whole = whole.collect(usize::MAX).await.unwrap();
    let history = to.info("master_replid");
    let cuts = places(60, whole.len() as u64).map(|at| whole.slice(..at as usize).to_vec());
    let flips = places(200, whole.len() as u64).map(|at| {
        let mut bytes = whole.to_vec();
        bytes[at as usize] ^= 1 << (at % 8);
        bytes
    });
    for bytes in cuts.chain(flips) {
        sink.delete(&Locator::from(&key)).await.unwrap();
        let damaged = ByteStream::from_bytes(bytes);
        sink.put(&key, damaged, &PutOptions::default())
            .await
            .unwrap();
        let error = restore(&from, &sink, &id, &to.target()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert_eq!(to.info("master_replid"), history);
    }
}
