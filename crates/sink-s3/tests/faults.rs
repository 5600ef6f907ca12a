//! The sink on the strict server: every promise of a sink, and what it makes of each failure.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use std::sync::Arc;
use std::time::Duration;

use backup_core::testing::noise;
use backup_core::testing::sink::SinkFixture;
use backup_core::{ByteStream, ErrorKind, Key, Object, PutOptions, Result, Sink};
use bytes::Bytes;
use fake::faults::Effect;
use fake::wire::Op;
use fake::{ELSEWHERE, Fake, LOCKED, PLAIN};
use futures::TryStreamExt;
use sink_s3::{Checksum, Lock, S3Options, S3Sink};

mod fake;

/// Three parts of the smallest size.
const LARGE: usize = 11 << 20;

fn options(fake: &Fake, bucket: &str) -> S3Options {
    let keys = fake.keys();
    S3Options::new(format!("s3://{bucket}/some/where"))
        .endpoint(&fake.endpoint)
        .credentials(keys.access, keys.secret)
        .part_size(5 << 20)
        .retries(2)
}

async fn fixture(build: impl Fn(&Fake) -> S3Options) -> SinkFixture {
    let fake = Arc::new(Fake::start().await);
    let sink = build(&fake).build().unwrap();
    let counted = fake.clone();
    SinkFixture::new(sink)
        .secret(fake.keys().secret)
        .leftovers(move || counted.uploads())
        .keep(fake)
}

backup_core::testing::sink!(strict, fixture(|fake| options(fake, PLAIN)));
backup_core::testing::sink!(
    strict_locked,
    fixture(|fake| {
        // Pages end in the middle of everything.
        fake.set_page(7);
        options(fake, LOCKED).object_lock(true)
    })
);
backup_core::testing::sink!(
    strict_crc64,
    fixture(|fake| options(fake, LOCKED)
        .object_lock(true)
        .checksum(Checksum::Crc64Nvme))
);
backup_core::testing::sink!(
    strict_and_busy,
    fixture(|fake| {
        for op in [
            Op::PutObject,
            Op::UploadPart,
            Op::GetObject,
            Op::HeadObject,
            Op::ListObjectsV2,
        ] {
            fake.slow_down(op, 20);
        }
        options(fake, PLAIN).retries(9)
    })
);

fn key() -> Key {
    Key::parse("orders/1").unwrap()
}

async fn put(sink: &S3Sink, bytes: Bytes) -> Result<Object> {
    let data = ByteStream::from_bytes(bytes);
    sink.put(&key(), data, &PutOptions::default()).await
}

async fn get(sink: &S3Sink) -> Result<Bytes> {
    sink.get(&(&key()).into(), None).await?.collect(LARGE).await
}

/// Nothing is to be seen and no upload is left; and then a put succeeds.
async fn assert_recovers(fake: &Fake, sink: &S3Sink, what: &str) {
    let listed: Vec<Object> = sink.list(None).try_collect().await.unwrap();
    assert_eq!(listed, [], "{what}: visible");
    sink.sweep(Duration::ZERO).await.unwrap();
    assert_eq!(fake.uploads(), 0, "{what}: an upload is left");
    let bytes = noise(LARGE, 9);
    put(sink, bytes.clone()).await.unwrap();
    assert!(get(sink).await.unwrap() == bytes, "{what}: other bytes");
}

#[tokio::test]
async fn a_put_that_fails_shows_nothing_and_the_next_succeeds() {
    let faults: &[(Op, Effect, ErrorKind)] = &[
        (
            Op::CreateMultipartUpload,
            Effect::Refuse(403, "AccessDenied"),
            ErrorKind::Denied,
        ),
        (
            Op::UploadPart,
            Effect::Refuse(403, "AccessDenied"),
            ErrorKind::Denied,
        ),
        (
            Op::UploadPart,
            Effect::Refuse(400, "ExpiredToken"),
            ErrorKind::Denied,
        ),
        (
            Op::CompleteMultipartUpload,
            Effect::Refuse(403, "AccessDenied"),
            ErrorKind::Denied,
        ),
        (
            Op::CompleteMultipartUpload,
            Effect::Refuse(400, "InvalidPart"),
            ErrorKind::Sink,
        ),
    ];
    for (op, effect, kind) in faults {
        let what = format!("{op:?} {effect:?}");
        let fake = Fake::start().await;
        let sink = options(&fake, PLAIN).build().unwrap();
        let fired = fake.fault(*op, "", 0, effect.clone());
        let error = put(&sink, noise(LARGE, 1)).await.unwrap_err();
        assert_eq!(fired.count(), 1, "{what}: did not happen");
        assert_eq!(error.kind(), *kind, "{what}: {error:?}");
        assert!(error.chain().contains("orders/1"), "{what}: {error:?}");
        assert_recovers(&fake, &sink, &what).await;
    }
}

#[tokio::test]
async fn a_server_that_stays_broken_is_unavailable() {
    for op in [
        Op::CreateMultipartUpload,
        Op::UploadPart,
        Op::CompleteMultipartUpload,
    ] {
        for effect in [
            Effect::Refuse(500, "InternalError"),
            Effect::Refuse(503, "SlowDown"),
            Effect::HangUp,
        ] {
            let what = format!("{op:?} {effect:?}");
            let fake = Fake::start().await;
            let sink = options(&fake, PLAIN).retries(1).build().unwrap();
            let fired = fake.always(op, "", effect);
            let error = put(&sink, noise(LARGE, 1)).await.unwrap_err();
            assert!(fired.count() >= 2, "{what}: not repeated");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error:?}");
            let listed: Vec<Object> = sink.list(None).try_collect().await.unwrap();
            assert_eq!(listed, [], "{what}: visible");
            sink.sweep(Duration::ZERO).await.unwrap();
            assert_eq!(fake.uploads(), 0, "{what}: an upload is left");
        }
    }
}

#[tokio::test]
async fn one_failure_is_got_over() {
    for (op, effect) in [
        (Op::PutObject, Effect::Refuse(500, "InternalError")),
        (Op::PutObject, Effect::HangUp),
        (Op::CreateMultipartUpload, Effect::Refuse(503, "SlowDown")),
        (Op::UploadPart, Effect::Refuse(500, "InternalError")),
        (Op::UploadPart, Effect::DoneButRefused(500, "InternalError")),
        (Op::UploadPart, Effect::HangUp),
        (Op::UploadPart, Effect::Slow(Duration::from_millis(300))),
        (Op::CompleteMultipartUpload, Effect::Refuse(503, "SlowDown")),
        (
            Op::CompleteMultipartUpload,
            Effect::ErrorInBody("InternalError"),
        ),
    ] {
        let what = format!("{op:?} {effect:?}");
        let fake = Fake::start().await;
        let sink = options(&fake, PLAIN).build().unwrap();
        let fired = fake.fault(op, "", 0, effect);
        let len = if op == Op::PutObject { 1000 } else { LARGE };
        let bytes = noise(len, 1);
        let object = put(&sink, bytes.clone()).await;
        assert_eq!(fired.count(), 1, "{what}: did not happen");
        let object = object.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(object.len, len as u64, "{what}");
        assert!(get(&sink).await.unwrap() == bytes, "{what}: other bytes");
        assert_eq!(fake.uploads(), 0, "{what}: an upload is left");
    }
}

/// The answer to what was done got lost. Whatever the sink makes of it, it must not say Ok for
/// other bytes, and an error must not leave the key half written.
#[tokio::test]
async fn a_lost_answer_to_a_commit_is_not_taken_for_anothers_object() {
    for (op, len) in [(Op::PutObject, 1000), (Op::CompleteMultipartUpload, LARGE)] {
        let fake = Fake::start().await;
        let sink = options(&fake, LOCKED).object_lock(true).build().unwrap();
        let effect = Effect::DoneButRefused(500, "InternalError");
        let fired = fake.fault(op, "", 0, effect);
        let bytes = noise(len, 1);
        let outcome = put(&sink, bytes.clone()).await;
        assert_eq!(fired.count(), 1, "{op:?}: did not happen");
        match outcome {
            Ok(object) => assert_eq!(object.len, len as u64, "{op:?}"),
            Err(error) => panic!("{op:?}: {error:?}"),
        }
        assert!(get(&sink).await.unwrap() == bytes, "{op:?}: other bytes");
        let versions: Vec<Object> = sink.versions(None).try_collect().await.unwrap();
        assert_eq!(versions.len(), 1, "{op:?}: {versions:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_fetched_to_its_end_or_an_error() {
    // A short body of a whole object whose length agrees is whole to HTTP: the hash in the manifest
    // shows it. Of a range we know how much was asked for.
    let range = 0..LARGE as u64;
    for (cut, range) in [
        (Effect::CutBody(1 << 20), None),
        (Effect::CutBody(1 << 20), Some(range.clone())),
        (Effect::ShortBody(1 << 20), Some(range)),
    ] {
        for stays in [false, true] {
            let what = format!("{cut:?}, stays broken: {stays}");
            let fake = Fake::start().await;
            let sink = options(&fake, PLAIN).retries(1).build().unwrap();
            let bytes = noise(LARGE, 1);
            put(&sink, bytes.clone()).await.unwrap();
            let fired = fake.fault(Op::GetObject, "", 0, cut.clone());
            if stays {
                fake.always(Op::GetObject, "", Effect::Refuse(500, "InternalError"));
            }
            let found = match sink.get(&(&key()).into(), range.clone()).await {
                Ok(body) => body.collect(LARGE).await,
                Err(error) => Err(error),
            };
            assert_eq!(fired.count(), 1, "{what}: did not happen");
            match found {
                Ok(found) => assert!(!stays && found == bytes, "{what}: other bytes"),
                Err(error) => {
                    let kinds = [ErrorKind::Sink, ErrorKind::Unavailable, ErrorKind::Corrupt];
                    assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_object_that_is_not_what_was_sent_is_an_error() {
    for (op, len) in [(Op::PutObject, 1000), (Op::CompleteMultipartUpload, LARGE)] {
        let fake = Fake::start().await;
        let sink = options(&fake, PLAIN).build().unwrap();
        let fired = fake.always(Op::HeadObject, "", Effect::WrongChecksum);
        let outcome = put(&sink, noise(len, 1)).await;
        assert!(fired.count() >= 1, "{op:?}: did not happen");
        let error = outcome.unwrap_err();
        assert!(error.chain().contains("orders/1"), "{op:?}: {error:?}");
    }
}

#[tokio::test]
async fn tokens_clocks_and_regions_are_named() {
    let says = async |fake: &Fake, bucket: &str, words: &str| {
        let sink = options(fake, bucket).build().unwrap();
        for bytes in [noise(10, 1), noise(LARGE, 1)] {
            let error = put(&sink, bytes).await.unwrap_err();
            let text = error.chain();
            assert!(text.contains(words), "{words}: {text}");
            assert!(!text.contains(&fake.keys().secret), "{text}");
        }
        assert_eq!(fake.uploads(), 0);
    };
    let fake = Fake::start().await;
    says(&fake, ELSEWHERE, "eu-central-1").await;
    fake.set_ahead(3600);
    says(&fake, PLAIN, "clock").await;
    fake.set_ahead(0);
    fake.expire();
    says(&fake, PLAIN, "expired").await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_to_another_host() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    let place = format!("{}/{PLAIN}/some/where/orders/1", other.endpoint);
    let fired = fake.always(Op::PutObject, "", Effect::Redirect(place));
    let sink = options(&fake, PLAIN).build().unwrap();
    let error = put(&sink, noise(10, 1)).await.unwrap_err();
    assert!(fired.count() >= 1);
    assert!(error.chain().contains("elsewhere"), "{error:?}");
    assert_eq!(other.count(Op::PutObject), 0);
}

#[tokio::test]
async fn locks_are_asked_for_with_what_aws_demands() {
    for checksum in [Checksum::Sha256, Checksum::Crc64Nvme] {
        let fake = Fake::start().await;
        let sink = options(&fake, LOCKED)
            .lock(Lock::compliance(1))
            .checksum(checksum)
            .build()
            .unwrap();
        for (at, len) in [("a", 1000), ("b", LARGE)] {
            // The bucket's own lock demands as much of a put that asks for none.
            fake.set_default_lock("GOVERNANCE", 1);
            let plain = options(&fake, LOCKED).object_lock(true).build().unwrap();
            let data = ByteStream::from_bytes(noise(len, 1));
            let under = Key::parse(at).unwrap().join("default").unwrap();
            let object = plain
                .put(&under, data, &PutOptions::default())
                .await
                .unwrap();
            assert!(object.lock_until.is_some(), "{object:?}");

            let data = ByteStream::from_bytes(noise(len, 1));
            let at = Key::parse(at).unwrap();
            let object = sink.put(&at, data, &PutOptions::default()).await.unwrap();
            assert!(object.lock_until.is_some(), "{object:?}");
            let error = sink.delete(&object.locator()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
        }
    }
}
