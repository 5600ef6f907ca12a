//! The policies that ship, proven on a real server: what each may, and above all may not.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use std::time::Duration;

use backup_core::testing::{noise, service};
use backup_core::{ByteStream, Clock, ErrorKind, Key, Object, PutOptions, Sink, SystemClock};
use fake::client::{Answer, Call, Client};
use futures::TryStreamExt;
use place::forbidden::{self, assert_refused, refused};
use place::{Place, days, with_body};
use sink_s3::S3Options;

mod fake;
mod place;

#[tokio::test]
async fn a_writer_cannot_undo_what_was_written() {
    let Some(place) = Place::make().await else {
        return;
    };
    let before = place.state().await;
    let calls = forbidden::calls(&place);
    let count = calls.len();
    assert!(count >= 30, "{count}");
    let mut wrong = Vec::new();
    for (name, call) in calls {
        let answer = place.writer.send(call).await;
        if !refused(&answer) {
            wrong.push(format!("{name}: {} {}", answer.status, answer.text()));
        }
        let after = place.state().await;
        if let Some((was, is)) = before.iter().zip(&after).find(|(was, is)| was != is) {
            panic!("{name} ({}) changed\n{was}\nto\n{is}", answer.status);
        }
    }
    assert!(wrong.is_empty(), "not refused:\n{}", wrong.join("\n"));
    println!("{count} forbidden calls, {count} refused");
}

/// `text` as `client`, which must be answered with one of `expected`.
async fn expect(client: &Client, place: &Place, text: &str, expected: &[u16]) -> Answer {
    let answer = client.send(place.call(text)).await;
    assert!(
        expected.contains(&answer.status),
        "{text}: {} {}",
        answer.status,
        answer.text()
    );
    answer
}

/// What each of the three may read.
const READING: [&str; 8] = [
    "GET /{B}?list-type=2",
    "GET /{B}?versions",
    "GET /{B}?versioning",
    "GET /{B}?object-lock",
    "GET /{B}/kept",
    "HEAD /{B}/kept",
    "GET /{B}/kept?versionId={K}",
    "GET /{B}/kept?retention&versionId={K}",
];

#[tokio::test]
async fn a_writer_can_write_lock_lengthen_and_read() {
    let Some(place) = Place::make().await else {
        return;
    };
    let writer = &place.writer;
    for text in READING {
        expect(writer, &place, text, &[200]).await;
    }
    // There is none, and it may know that.
    let none = expect(writer, &place, "GET /{B}?lifecycle", &[404]).await;
    assert_eq!(none.code(), "NoSuchLifecycleConfiguration");
    let put = with_body(place.call("PUT /{B}/new"), "new")
        .header("x-amz-object-lock-mode", "COMPLIANCE")
        .header("x-amz-object-lock-retain-until-date", &days(1));
    let put = writer.send(put).await;
    assert_eq!(put.status, 200, "{}", put.text());
    let longer = with_body(
        place.call("PUT /{B}/new?retention"),
        &format!(
            "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>",
            days(2)
        ),
    );
    let longer = writer.send(longer).await;
    assert_eq!(longer.status, 200, "{}", longer.text());
    let upload = expect(writer, &place, "POST /{B}/large?uploads", &[200]).await;
    let upload = upload.all("UploadId").pop().unwrap();
    let part = format!("PUT /{{B}}/large?partNumber=1&uploadId={upload}");
    expect(writer, &place, &part, &[200]).await;
    let parts = format!("GET /{{B}}/large?uploadId={upload}");
    expect(writer, &place, &parts, &[200]).await;
    expect(writer, &place, "GET /{B}?uploads", &[200]).await;
    let abort = format!("DELETE /{{B}}/large?uploadId={upload}");
    expect(writer, &place, &abort, &[204]).await;
}

#[tokio::test]
async fn a_reader_can_only_read() {
    let Some(place) = Place::make().await else {
        return;
    };
    let upload = expect(&place.owner, &place, "POST /{B}/large?uploads", &[200]).await;
    let upload = upload.all("UploadId").pop().unwrap();
    for text in READING {
        expect(&place.reader, &place, text, &[200]).await;
    }
    let mut calls = forbidden::calls(&place);
    for text in [
        "PUT /{B}/new".to_owned(),
        "POST /{B}/new?uploads".to_owned(),
        format!("PUT /{{B}}/large?partNumber=1&uploadId={upload}"),
        format!("DELETE /{{B}}/large?uploadId={upload}"),
    ] {
        calls.push(("write", place.call(&text)));
    }
    assert_refused(&place, &place.reader, calls).await;
}

#[tokio::test]
async fn a_pruner_deletes_what_is_not_locked_and_writes_nothing() {
    let Some(place) = Place::make().await else {
        return;
    };
    let pruner = &place.pruner;
    for text in READING {
        expect(pruner, &place, text, &[200]).await;
    }
    expect(pruner, &place, "DELETE /{B}/free?versionId={F}", &[204]).await;
    expect(&place.owner, &place, "GET /{B}/free?versionId={F}", &[404]).await;
    let bypass = |call: Call| call.header("x-amz-bypass-governance-retention", "true");
    let mut calls = Vec::new();
    for text in [
        "DELETE /{B}/kept?versionId={K}",
        "DELETE /{B}/governed?versionId={G}",
        "DELETE /{B}/held?versionId={H}",
        "PUT /{B}/new",
        "PUT /{B}/kept",
    ] {
        calls.push((text, place.call(text)));
        calls.push((text, bypass(place.call(text))));
    }
    assert_refused(&place, pruner, calls).await;
}

/// Why the lock of the sink is in compliance mode: MinIO looks for the right to bypass governance
/// only where the new mode is governance again. When this fails, the server has become better, and
/// `policies/README.md` may say so.
#[tokio::test]
async fn governance_holds_off_nobody_on_minio() {
    let Some(place) = Place::make().await else {
        return;
    };
    let end = with_body(
        place.call("PUT /{B}/governed?retention&versionId={G}"),
        "<Retention></Retention>",
    )
    .header("x-amz-bypass-governance-retention", "true");
    let ended = place.reader.send(end).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    let delete = "DELETE /{B}/governed?versionId={G}";
    expect(&place.pruner, &place, delete, &[204]).await;
}

/// The sink itself, with the keys of each.
#[tokio::test]
async fn the_sink_needs_no_more_than_the_policies_give() {
    let Some(place) = Place::make().await else {
        return;
    };
    let sink = |user: &Client| {
        S3Options::new(format!("s3://{}/backups", place.bucket))
            .endpoint(&user.endpoint)
            .credentials(&user.keys.access, &user.keys.secret)
            .object_lock(true)
            .part_size(5 << 20)
            .build()
            .unwrap()
    };
    let (writer, reader, pruner) = (
        sink(&place.writer),
        sink(&place.reader),
        sink(&place.pruner),
    );
    for (name, len) in [("small", 1000), ("large", 11 << 20)] {
        let bytes = noise(len, 1);
        for (key, until) in [("free", None), ("locked", Some(Duration::from_secs(3600)))] {
            let what = format!("{name}, {key}");
            let key = Key::parse(format!("{name}/{key}")).unwrap();
            let mut options = PutOptions::default();
            if let Some(time) = until {
                options = options.retain_until(SystemClock.now() + time);
            }
            let data = || ByteStream::from_bytes(bytes.clone());
            let object = writer.put(&key, data(), &options).await.unwrap();
            let again = writer.put(&key, data(), &options).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{what}: {again:?}");

            for user in [&reader, &pruner, &writer] {
                let seen = user.stat(&(&key).into()).await.unwrap();
                assert_eq!(seen, object, "{what}");
                let back = user.get(&object.locator(), None).await.unwrap();
                assert!(
                    back.collect(len).await.unwrap() == bytes,
                    "{what}: other bytes"
                );
            }
            let other = Key::parse("other").unwrap();
            for user in [&reader, &pruner] {
                let error = user.put(&other, data(), &options).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error:?}");
            }
            for user in [&reader, &writer] {
                let error = user.delete(&object.locator()).await.unwrap_err();
                let kinds = [ErrorKind::Denied, ErrorKind::Locked];
                assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
            }
            let pruned = pruner.delete(&object.locator()).await;
            match until {
                None => pruned.unwrap(),
                Some(_) => assert_eq!(pruned.unwrap_err().kind(), ErrorKind::Locked, "{what}"),
            }
        }
    }
    let left: Vec<Object> = reader.versions(None).try_collect().await.unwrap();
    let left: Vec<&str> = left.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(left, ["large/locked", "small/locked"]);
}

const LEN: usize = 3_000_000;

/// MinIO keeps a large object in files of its own; what one bit of them does to a reader.
#[tokio::test]
async fn a_bit_that_flipped_on_the_servers_disk_is_found() {
    let Some(place) = Place::make().await else {
        return;
    };
    let Some(disk) = service("LIFEBELT_S3_DATA") else {
        return;
    };
    let owner = &place.owner;
    let sink = S3Options::new(format!("s3://{}/backups", place.bucket))
        .endpoint(&owner.endpoint)
        .credentials(&owner.keys.access, &owner.keys.secret)
        .object_lock(true)
        .retries(1)
        .build()
        .unwrap();
    let key = Key::parse("orders/1").unwrap();
    let data = ByteStream::from_bytes(noise(LEN, 1));
    let object = sink.put(&key, data, &PutOptions::default()).await.unwrap();

    let folder = std::path::Path::new(&disk).join(&place.bucket);
    let folder = folder.join("backups/orders/1");
    let inner = std::fs::read_dir(&folder).unwrap();
    let file = inner
        .map(|entry| entry.unwrap().path().join("part.1"))
        .find(|path| path.exists())
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[LEN / 2] ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let read = match sink.get(&object.locator(), None).await {
        Ok(body) => body.collect(LEN).await,
        Err(error) => Err(error),
    };
    let error = read.unwrap_err();
    assert!(error.chain().contains("orders/1"), "{error:?}");
    // What it says of itself is as before: only reading it shows the damage.
    assert_eq!(sink.stat(&object.locator()).await.unwrap(), object);
}
