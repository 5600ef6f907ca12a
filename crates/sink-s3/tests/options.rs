//! What configuration may say, and what is refused before a request is sent.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use backup_core::{Error, ErrorKind, Sink};
use sink_s3::{Lock, S3Options, S3Sink};

fn read(text: &str) -> Result<S3Options, toml::de::Error> {
    toml::from_str(text)
}

fn refused(options: S3Options) -> Error {
    let error = options.credentials("id", "secret").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    error
}

#[test]
fn every_field_can_be_configured() {
    let options = read(
        r#"
        url = "s3://backups/of/orders/"
        endpoint = "http://127.0.0.1:9000"
        region = "eu-central-1"
        access_key_id = "id"
        secret_access_key = "canary-secret"
        session_token = "canary-token"
        lock = { mode = "governance", days = 30 }
        versions = true
        object_lock = true
        sse = { kms = "arn:aws:kms:key" }
        storage_class = "STANDARD_IA"
        checksum = "crc64nvme"
        path_style = false
        part_size = 16777216
        retries = 2
        "#,
    )
    .unwrap();
    let shown = format!("{options:?}");
    let sink = options.build().unwrap();
    assert_eq!(sink.to_string(), "s3://backups/of/orders");
    let shown = format!("{shown} {sink:?}");
    assert!(!shown.contains("canary"), "a secret shows: {shown}");
    assert!(shown.contains("http://backups.127.0.0.1:9000"), "{shown}");
    let can = sink.capabilities();
    assert!(can.lock && can.versions && can.conditional_put);
    assert_eq!(can.put_memory, 3 * 16_777_216);
    assert!(read("url = \"s3://b\"\nsse = \"AES256\"").is_ok());
    assert!(read("url = \"s3://b\"\nsse = \"AES512\"").is_err());
    assert!(
        read("url = \"s3://b\"\nlocked = true").is_err(),
        "a misspelt field"
    );
}

#[test]
fn what_cannot_be_right_is_refused() {
    for url in [
        "backups",
        "https://x/y",
        "s3://",
        "s3://Ab/x",
        "s3://abc/a//b",
        "s3://abc/.x",
    ] {
        assert!(refused(S3Sink::builder(url)).to_string().contains("s3://"));
    }
    let sink = || S3Sink::builder("s3://backups");
    for endpoint in [
        "127.0.0.1",
        "ftp://x",
        "https://",
        "https://x/y",
        "https://a:b@x",
    ] {
        refused(sink().endpoint(endpoint));
    }
    refused(sink().part_size(1 << 20));
    refused(sink().lock(Lock::compliance(0)));
    refused(sink().lock(Lock::compliance(1)).versions(false));
    refused(sink().storage_class("a\nb"));
}

#[test]
fn plain_http_goes_to_this_machine_only() {
    let sink = |endpoint: &str| S3Sink::builder("s3://backups").endpoint(endpoint);
    for far in [
        "http://s3.example.com",
        "http://10.0.0.1:9000",
        "http://127.0.0.1.example.com",
    ] {
        let error = refused(sink(far));
        assert!(error.to_string().contains("allow_http"), "{error}");
        sink(far)
            .credentials("id", "secret")
            .allow_http(true)
            .build()
            .unwrap();
    }
    for near in [
        "http://localhost:9000",
        "http://127.0.0.1",
        "http://[::1]:9000/",
    ] {
        sink(near).credentials("id", "secret").build().unwrap();
    }
}
