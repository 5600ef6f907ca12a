//! What only real servers can show.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use backup_core::testing::noise;
use backup_core::{
    ByteStream, Clock, Error, ErrorKind, Health, Key, Object, PutOptions, Sink, Stamp, SystemClock,
};
use common::{MINIO, Server, VERSITYGW};
use futures::{StreamExt, TryStreamExt, future, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::MultipartStore;
use object_store::{Certificate, ClientOptions, ObjectStoreExt, path::Path};
use sink_s3::{Checksum, Lock, S3Sink};

const LARGE: usize = 17 * 1024 * 1024;

fn servers() -> impl Iterator<Item = Server> {
    [MINIO, VERSITYGW].into_iter().filter_map(Server::there)
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

async fn put(sink: &S3Sink, at: &str, bytes: bytes::Bytes) -> backup_core::Result<Object> {
    let data = ByteStream::from_bytes(bytes);
    sink.put(&key(at), data, &PutOptions::default()).await
}

/// What somebody else does to the bucket, with a client that is not ours.
fn other(server: Server, bucket: &str) -> AmazonS3 {
    let mut options = ClientOptions::new().with_allow_http(true);
    if let Some(file) = server.authority() {
        let pem = std::fs::read(file).unwrap();
        options = options.with_root_certificate(Certificate::from_pem(&pem).unwrap());
    }
    AmazonS3Builder::new()
        .with_endpoint(server.variable("ENDPOINT"))
        .with_bucket_name(server.variable(bucket))
        .with_access_key_id(server.variable("ACCESS_KEY"))
        .with_secret_access_key(server.variable("SECRET_KEY"))
        .with_client_options(options)
        .build()
        .unwrap()
}

fn path(sink: &S3Sink, at: &str) -> Path {
    let name = sink.to_string();
    let (_, prefix) = name.trim_start_matches("s3://").split_once('/').unwrap();
    Path::from(format!("{prefix}/{at}"))
}

#[tokio::test]
async fn a_locked_object_survives_delete_overwrite_and_a_delete_marker() {
    for server in servers() {
        let sink = server.locked().build().unwrap();
        let until = SystemClock.now() + Duration::from_secs(90);
        let options = PutOptions::default().retain_until(until);
        for (at, bytes) in [
            ("orders/1/small", noise(100, 1)),
            ("orders/2/large", noise(LARGE, 2)),
        ] {
            let data = ByteStream::from_bytes(bytes.clone());
            let object = sink.put(&key(at), data, &options).await.unwrap();
            assert!(object.lock_until.unwrap() >= until, "{object:?}");

            let error = sink.delete(&object.locator()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{server:?}: {error:?}");
            let date = Stamp::from(object.lock_until.unwrap()).to_string();
            assert!(error.chain().contains(&date), "no date: {error:?}");

            let thief = other(server, "LOCKED_BUCKET");
            thief.put(&path(&sink, at), "ransom".into()).await.unwrap();
            thief.delete(&path(&sink, at)).await.unwrap();

            let visible = sink.stat(&(&key(at)).into()).await.unwrap_err();
            assert_eq!(visible.kind(), ErrorKind::NotFound, "hidden by the thief");
            let back = sink.get(&object.locator(), None).await.unwrap();
            assert!(
                back.collect(LARGE).await.unwrap() == bytes,
                "{server:?}: other bytes"
            );
        }
        let versions: Vec<Object> = sink.versions(None).try_collect().await.unwrap();
        let lens: Vec<u64> = versions.iter().map(|v| v.len).collect();
        assert_eq!(
            lens,
            [6, 100, 6, LARGE as u64],
            "{server:?}: newest first, per key"
        );
        let listed: Vec<Object> = sink.list(None).try_collect().await.unwrap();
        assert_eq!(listed, [], "{server:?}");
        let mut ids: Vec<String> = sink
            .children(Some(&key("orders")))
            .try_collect()
            .await
            .unwrap();
        ids.sort();
        assert_eq!(ids, ["1", "2"], "{server:?}: ids behind delete markers");
    }
}

#[tokio::test]
async fn the_lock_of_the_sink_is_on_every_object() {
    for server in servers() {
        let sink = server.locked().lock(Lock::governance(1)).build().unwrap();
        let before = SystemClock.now();
        for bytes in [noise(10, 1), noise(LARGE, 1)] {
            let at = format!("orders/{}", bytes.len());
            let object = put(&sink, &at, bytes).await.unwrap();
            let day = Duration::from_secs(24 * 60 * 60);
            assert!(object.lock_until.unwrap() >= before + day, "{object:?}");
            assert!(object.lock_until.unwrap() <= SystemClock.now() + day + Duration::from_secs(1));
        }
    }
}

#[tokio::test]
async fn a_lock_that_the_bucket_cannot_keep_is_refused_and_leaves_nothing() {
    for server in servers() {
        let sink = server.plain().lock(Lock::compliance(1)).build().unwrap();
        for bytes in [noise(10, 1), noise(LARGE, 1)] {
            let at = format!("orders/{}", bytes.len());
            let error = put(&sink, &at, bytes).await.unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Unsupported,
                "{server:?}: {error:?}"
            );
            let gone = sink.stat(&(&key(&at)).into()).await.unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::NotFound, "{server:?}");
        }
    }
}

#[tokio::test]
async fn of_concurrent_uploads_one_wins_and_no_upload_is_left() {
    for server in servers() {
        for checksum in [Checksum::Sha256, Checksum::Crc64Nvme] {
            let sink = server.locked().checksum(checksum).build().unwrap();
            let puts = (0..3).map(|n| put(&sink, "orders/1", noise(LARGE + n, n as u64)));
            let outcomes = future::join_all(puts).await;
            let won = outcomes.iter().filter(|o| o.is_ok()).count();
            assert_eq!(won, 1, "{server:?}: {outcomes:?}");
            for error in outcomes.into_iter().filter_map(Result::err) {
                assert_eq!(
                    error.kind(),
                    ErrorKind::AlreadyExists,
                    "{server:?}: {error:?}"
                );
            }
            let versions: Vec<Object> = sink.versions(None).try_collect().await.unwrap();
            assert_eq!(versions.len(), 1, "{server:?}: {versions:?}");
            let swept = sink.sweep(Duration::ZERO).await.unwrap();
            assert_eq!(swept.objects, 0, "{server:?}: an upload was left");
        }
    }
}

#[tokio::test]
async fn a_failed_source_leaves_no_upload() {
    for server in servers() {
        let sink = server.plain().build().unwrap();
        let good = ByteStream::from_bytes(noise(LARGE, 1));
        let bad = stream::iter([Err(Error::new(ErrorKind::Source, "pg_dump exited 1"))]);
        let data = ByteStream::new(good.chain(bad));
        let outcome = sink.put(&key("a"), data, &PutOptions::default()).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Source);
        let swept = sink.sweep(Duration::ZERO).await.unwrap();
        assert_eq!(swept.objects, 0, "{server:?}: an upload was left");
    }
}

#[tokio::test]
async fn sweep_takes_the_upload_of_a_killed_process_and_no_other() {
    for server in servers() {
        let sink = server.plain().build().unwrap();
        let neighbour = server.plain().build().unwrap();
        let killed = other(server, "BUCKET");
        killed.create_multipart(&path(&sink, "a/b")).await.unwrap();
        killed
            .create_multipart(&path(&neighbour, "a/b"))
            .await
            .unwrap();
        let hour = Duration::from_secs(3_600);
        assert_eq!(
            sink.sweep(hour).await.unwrap().objects,
            0,
            "{server:?}: too young"
        );
        assert_eq!(
            sink.sweep(Duration::ZERO).await.unwrap().objects,
            1,
            "{server:?}"
        );
        assert_eq!(
            sink.sweep(Duration::ZERO).await.unwrap().objects,
            0,
            "{server:?}"
        );
        assert_eq!(
            neighbour.sweep(Duration::ZERO).await.unwrap().objects,
            1,
            "{server:?}"
        );
    }
}

#[tokio::test]
async fn wrong_credentials_places_and_hosts_are_named() {
    for server in servers() {
        let wrong = "not the secret of this key";
        let id = server.variable("ACCESS_KEY");
        let sink = server.plain().credentials(&id, wrong).build().unwrap();
        let stranger = server
            .plain()
            .credentials("nobody-knows-it", wrong)
            .build()
            .unwrap();
        for (sink, says) in [(&sink, "secret key"), (&stranger, "access key")] {
            let listed: Result<Vec<Object>, Error> = sink.list(None).try_collect().await;
            let at = (&key("a")).into();
            let outcomes = [
                put(sink, "a", noise(10, 1)).await.map(drop),
                put(sink, "b", noise(LARGE, 1)).await.map(drop),
                sink.stat(&at).await.map(drop),
                sink.delete(&at).await,
                listed.map(drop),
            ];
            for (n, outcome) in outcomes.into_iter().enumerate() {
                let error = outcome.expect_err(&format!("{server:?}: request {n}"));
                assert_eq!(error.kind(), ErrorKind::Denied, "{server:?}: {error:?}");
                assert!(error.chain().contains(says), "{server:?}: {error:?}");
                assert!(!format!("{error:?}").contains(wrong));
            }
        }
        let nowhere = server.at("s3://no-such-bucket-here/x").build().unwrap();
        let at = (&key("a")).into();
        for outcome in [
            put(&nowhere, "a", noise(10, 1)).await.map(drop),
            nowhere.stat(&at).await.map(drop),
            nowhere.delete(&at).await,
        ] {
            let error = outcome.expect_err(&format!("{server:?}"));
            assert_eq!(error.kind(), ErrorKind::Invalid, "{server:?}: {error:?}");
            assert!(error.chain().contains("no such bucket"), "{error:?}");
        }
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let sink = S3Sink::builder("s3://bucket")
        .endpoint(format!("http://{closed}"))
        .credentials("id", "secret")
        .retries(1)
        .build()
        .unwrap();
    let error = put(&sink, "a", noise(10, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn what_is_no_key_is_named_at_the_end_of_a_listing() {
    for server in servers() {
        let sink = server.locked().build().unwrap();
        put(&sink, "orders/1", noise(10, 1)).await.unwrap();
        let stranger = other(server, "LOCKED_BUCKET");
        stranger
            .put(&path(&sink, "orders/.hidden"), "x".into())
            .await
            .unwrap();
        let mut listed = sink.list(None);
        assert_eq!(listed.next().await.unwrap().unwrap().key, key("orders/1"));
        let error = listed.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("orders/.hidden"), "{error}");
        assert!(listed.next().await.is_none());
        let ids: Vec<String> = sink
            .children(Some(&key("orders")))
            .try_collect()
            .await
            .unwrap();
        assert_eq!(ids, ["1"]);
    }
}

#[tokio::test]
async fn examine_tries_to_break_the_lock() {
    for server in servers() {
        let find = async |lock| {
            let sink: Arc<dyn Sink> = Arc::new(server.locked().lock(lock).build().unwrap());
            let found = sink.examine().await.unwrap();
            let lock = found.iter().find(|c| c.name == "lock").unwrap().clone();
            (found, lock)
        };
        let (found, lock) = find(Lock::compliance(1)).await;
        assert_eq!(lock.health, Health::Ok, "{server:?}: {found:#?}");
        assert!(
            lock.detail.contains("shorten it"),
            "{server:?}: not tried: {lock:?}"
        );
        for name in ["versioning", "object lock"] {
            let one = found.iter().find(|c| c.name == name).unwrap();
            assert_eq!(one.health, Health::Ok, "{server:?}: {one:?}");
        }
        // The owner of the server may bypass governance.
        let (found, lock) = find(Lock::governance(1)).await;
        assert_eq!(lock.health, Health::Fail, "{server:?}: {found:#?}");

        let sink = server.plain().lock(Lock::compliance(1)).build().unwrap();
        let found = sink.examine().await.unwrap();
        for name in ["versioning", "object lock", "lock"] {
            let one = found.iter().find(|c| c.name == name).unwrap();
            assert_eq!(one.health, Health::Fail, "{server:?}: {one:?}");
        }
    }
}
