//! Snapshots that are cut off, and files that are damaged.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    ByteStream, Error, ErrorKind, Facts, Job, MemorySink, PartWriter, Pipeline, Request,
    RestoreRequest, Result, RunOptions, Sink, Source, async_trait,
};
use bytes::Bytes;
use futures::TryStreamExt;
use store_etcd::{DB, Etcd};
use support::Kind;
use support::proxy::{Fault, Proxy};

fn job(source: impl Source, sink: &MemorySink) -> Job {
    let job = Job::builder("job")
        .source(source)
        .sink("memory", sink.clone());
    job.pipeline(Pipeline::unencrypted()).build().unwrap()
}

/// Backs up. After a failure there must be no manifest, and the error is one line.
async fn back_up(source: impl Source, sink: &MemorySink) -> Result<()> {
    let outcome = job(source, sink).run(RunOptions::default()).await;
    if let Err(error) = &outcome {
        let left: Vec<_> = sink.list(None).try_collect().await.unwrap();
        assert!(
            left.iter()
                .all(|object| object.key.name() != "manifest.json")
        );
        assert!(!error.chain().contains('\n'), "{error:?}");
        assert_ne!(error.kind(), ErrorKind::Sink, "{error:?}");
    }
    outcome.map(drop)
}

fn through(proxy: &Proxy) -> Etcd {
    Etcd::from_url(format!("http://127.0.0.1:{}", proxy.port)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_anywhere_makes_no_backup() {
    for it in Kind::all() {
        let server = it.start(&[]);
        server.fill(2);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("snapshot.db");
        server.ask(&["snapshot", "save", file.to_str().unwrap()]);
        let len = fs::metadata(&file).unwrap().len();
        for n in 0..100_u64 {
            // In the talk before it, and anywhere in the snapshot.
            let at = if n < 20 {
                n * 40
            } else {
                (n - 20) * (len / 81) + (n * 7919) % 997
            };
            let proxy = Proxy::to(server.port, Fault::Cut(at));
            let error = back_up(through(&proxy), &MemorySink::new())
                .await
                .unwrap_err();
            assert!(proxy.fired() > 0, "not cut at {at} of {len}");
            let kinds = [ErrorKind::Unavailable, ErrorKind::Source];
            assert!(kinds.contains(&error.kind()), "{at}: {error:?}");
        }
        let sink = MemorySink::new();
        let proxy = Proxy::to(server.port, Fault::Cut(100_000));
        back_up(through(&proxy), &sink).await.unwrap_err();
        assert!(proxy.fired() > 0);
        proxy.mend();
        back_up(through(&proxy), &sink).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_waited_for_and_no_longer() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    server.fill(2);
    for at in [0, 50, 100_000] {
        let proxy = Proxy::to(server.port, Fault::Stall(at));
        let source = through(&proxy).timeout(Duration::from_millis(300));
        let error = back_up(source, &MemorySink::new()).await.unwrap_err();
        assert_eq!(proxy.fired(), 1);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(
            error.chain().contains("said nothing for 0.3 s"),
            "{error:?}"
        );
    }
    let proxy = Proxy::to(server.port, Fault::Stall(100_000));
    let source = through(&proxy).deadline(Duration::from_millis(300));
    let error = back_up(source, &MemorySink::new()).await.unwrap_err();
    assert!(error.chain().contains("`deadline` of 0.3 s"), "{error:?}");
    assert_eq!(proxy.fired(), 1);
}

#[tokio::test]
async fn a_server_that_is_killed_makes_no_backup_and_the_next_run_succeeds() {
    for it in Kind::all() {
        let mut server = it.start(&[]);
        server.fill(2);
        let sink = MemorySink::new();
        let proxy = Proxy::to(server.port, Fault::Stall(500_000));
        let running = tokio::spawn({
            let (source, sink) = (
                through(&proxy).timeout(Duration::from_secs(2)),
                sink.clone(),
            );
            async move { back_up(source, &sink).await }
        });
        while proxy.fired() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.kill();
        let error = running.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        server.run();
        back_up(server.source(), &sink).await.unwrap();
    }
}

/// A snapshot as it might lie somewhere, in a backup of its own: nobody has looked at it.
#[derive(Debug)]
struct Given(Bytes);

#[async_trait]
impl Source for Given {
    fn kind(&self) -> &str {
        "etcd"
    }

    async fn backup(&self, _request: &Request, out: &PartWriter) -> Result<Facts> {
        out.write(DB, ByteStream::from_bytes(self.0.clone()))
            .await?;
        Ok(Facts::new())
    }
}

/// Truncated, or with a byte changed: refused before anything is at the place.
#[tokio::test]
async fn a_damaged_snapshot_is_refused_before_the_target_is_touched() {
    for it in Kind::all() {
        let server = it.start(&[]);
        server.fill(1);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("snapshot.db");
        server.ask(&["snapshot", "save", file.to_str().unwrap()]);
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let target = Arc::new(it.target(&folder.path().join("data")));
        let restore = async |bytes: Vec<u8>| -> Result<()> {
            let (sink, given) = (MemorySink::new(), Bytes::from(bytes));
            let job = job(Given(given), &sink);
            let id = job.run(RunOptions::default()).await?.id;
            job.restore(&id, &*target, RestoreRequest::default())
                .await
                .map(drop)
        };
        let refused = async |bytes: Vec<u8>, what: String| {
            let error: Error = restore(bytes).await.expect_err(&what);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{what}");
        };
        let len = whole.len();
        for end in (0..40)
            .chain((1..40).map(|n| n * len / 40))
            .chain([len - 33, len - 32, len - 1])
        {
            refused(whole[..end].to_vec(), format!("cut at {end}")).await;
        }
        for n in 0..150 {
            let at = if n < 50 { n * 3 } else { (n * 7_368_787) % len };
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (n % 8);
            refused(flipped, format!("byte {at} changed")).await;
        }
        restore(whole).await.unwrap();
    }
}
