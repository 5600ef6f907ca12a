//! Whom the sink believes to be the server.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod common;

use std::time::{Duration, Instant};

use backup_core::testing::noise;
use backup_core::{ByteStream, ErrorKind, Key, Object, PutOptions, Sink};
use common::VERSITYGW;
use futures::TryStreamExt;
use sink_s3::{S3Options, S3Sink};

async fn put(sink: &S3Sink) -> backup_core::Result<Object> {
    let data = ByteStream::from_bytes(noise(1000, 1));
    let key = Key::parse("orders/1").unwrap();
    sink.put(&key, data, &PutOptions::default()).await
}

#[tokio::test]
async fn a_server_with_the_wrong_certificate_gets_nothing() {
    let Some(server) = VERSITYGW.there() else {
        return;
    };
    let trusted = server.plain().build().unwrap();
    let stranger = S3Options::new(trusted.to_string())
        .endpoint(server.variable("ENDPOINT"))
        .credentials(server.variable("ACCESS_KEY"), server.variable("SECRET_KEY"));
    // It is for the address alone.
    let named = server
        .variable("ENDPOINT")
        .replace("127.0.0.1", "localhost");
    let elsewhere = stranger
        .clone()
        .endpoint(named)
        .ca_file(server.variable("CA"));
    for (options, says) in [(stranger, "ca_file"), (elsewhere, "another name")] {
        let begun = Instant::now();
        let error = put(&options.build().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(error.chain().contains(says), "{error:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "it was tried again"
        );
    }
    let seen: Vec<Object> = trusted.list(None).try_collect().await.unwrap();
    assert_eq!(seen, []);
    put(&trusted).await.unwrap();
}

#[test]
fn a_file_that_holds_no_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, says) in [
        (None, "cannot be read"),
        (Some("not a certificate"), "no PEM certificate"),
        (Some(damaged), "ca_file"),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let options = S3Options::new("s3://backups").credentials("id", "secret");
        let error = options.ca_file(&file).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(error.to_string().contains(says), "{error:?}");
    }
}
