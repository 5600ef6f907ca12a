//! Encryption by the server and storage classes: what was asked for is there, or nothing is.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod common;

use std::path::Path;

use backup_core::testing::noise;
use backup_core::{ByteStream, Error, ErrorKind, Key, Object, PutOptions, Sink};
use bytes::Bytes;
use common::{MINIO, Server, VERSITYGW};
use futures::TryStreamExt;
use sink_s3::{Encryption, S3Options, S3Sink};

/// One request, and an upload in parts.
const SIZES: [usize; 2] = [1000, 9 << 20];

fn key() -> Key {
    Key::parse("orders/1").unwrap()
}

async fn put(options: S3Options, bytes: Bytes) -> (S3Sink, Result<Object, Error>) {
    let sink = options.build().unwrap();
    let data = ByteStream::from_bytes(bytes);
    let outcome = sink.put(&key(), data, &PutOptions::default()).await;
    (sink, outcome)
}

/// Whether the bytes lie in a file of the server. It puts checksums between them.
fn lies_on_disk(server: Server, sink: &S3Sink, bytes: &[u8]) -> bool {
    fn search(folder: &Path, bytes: &[u8]) -> bool {
        std::fs::read_dir(folder).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => search(&path, bytes),
                false => std::fs::read(&path)
                    .unwrap()
                    .windows(bytes.len())
                    .any(|window| window == bytes),
            }
        })
    }
    let name = sink.to_string();
    let folder = Path::new(&server.variable("DATA")).join(name.trim_start_matches("s3://"));
    search(&folder, &bytes[..64])
}

/// The put failed for this reason and left nothing.
async fn refused(options: S3Options, len: usize, kind: ErrorKind, says: &str) {
    let (sink, outcome) = put(options, noise(len, 1)).await;
    let error = outcome.expect_err(says);
    assert_eq!(error.kind(), kind, "{error:?}");
    let text = error.chain();
    assert!(text.contains(says) && text.contains("orders/1"), "{text}");
    let left: Vec<Object> = sink.versions(None).try_collect().await.unwrap();
    assert_eq!(left, [], "{says}");
    let swept = sink.sweep(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(swept.objects, 0, "{says}: an upload was left");
}

#[tokio::test]
async fn what_the_server_encrypts_does_not_lie_on_its_disk_in_plain() {
    let Some(server) = MINIO.there() else { return };
    let kms = server.variable("KMS_KEY");
    for encryption in [
        None,
        Some(Encryption::Aes256),
        Some(Encryption::Kms(kms.clone())),
        Some(Encryption::Kms(format!("arn:aws:kms:{kms}"))),
    ] {
        for len in SIZES {
            let bytes = noise(len, 7);
            let options = match encryption.clone() {
                Some(encryption) => server.locked().encryption(encryption),
                None => server.locked(),
            };
            let (sink, outcome) = put(options, bytes.clone()).await;
            let object = outcome.unwrap();
            assert_eq!(object.len, len as u64);
            let plain = lies_on_disk(server, &sink, &bytes);
            assert_eq!(plain, encryption.is_none(), "{encryption:?} {len}");
            let back = sink.get(&object.locator(), None).await.unwrap();
            assert!(back.collect(len).await.unwrap() == bytes, "{encryption:?}");
        }
    }
}

#[tokio::test]
async fn a_key_that_the_server_has_not_is_an_error() {
    let Some(server) = MINIO.there() else { return };
    let encryption = Encryption::Kms("no-such-key".to_owned());
    for len in SIZES {
        let options = server.plain().encryption(encryption.clone());
        refused(options, len, ErrorKind::Invalid, "sse.kms").await;
    }
}

#[tokio::test]
async fn the_storage_class_is_what_was_asked_for() {
    let Some(server) = MINIO.there() else { return };
    for len in SIZES {
        for class in ["STANDARD", "REDUCED_REDUNDANCY"] {
            let (_, outcome) = put(server.plain().storage_class(class), noise(len, 1)).await;
            outcome.unwrap();
        }
        let options = server.plain().storage_class("NO_SUCH_CLASS");
        refused(options, len, ErrorKind::Invalid, "storage_class").await;
    }
}

#[tokio::test]
async fn a_server_that_neither_encrypts_nor_has_classes_is_refused() {
    let Some(server) = VERSITYGW.there() else {
        return;
    };
    for len in SIZES {
        let kms = Encryption::Kms("backups".to_owned());
        for (encryption, says) in [(Encryption::Aes256, "AES256"), (kms, "aws:kms")] {
            let options = server.plain().encryption(encryption);
            refused(options, len, ErrorKind::Unsupported, says).await;
        }
        let options = server.plain().storage_class("REDUCED_REDUNDANCY");
        refused(options, len, ErrorKind::Unsupported, "REDUCED_REDUNDANCY").await;
        let (_, outcome) = put(server.plain().storage_class("STANDARD"), noise(len, 1)).await;
        outcome.unwrap();
    }
}
