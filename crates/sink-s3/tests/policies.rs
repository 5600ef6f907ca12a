//! The policies that ship, proven on a real server: what each may, and above all may not.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use backup_core::testing::noise;
use backup_core::{ByteStream, Clock, ErrorKind, Key, Object, PutOptions, Sink, SystemClock};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fake::client::{Answer, Call, Client, call};
use futures::TryStreamExt;
use md5::{Digest, Md5};
use sink_s3::S3Options;

mod fake;

/// A bucket of its own with Object Lock, and the three users on it. Made by the server's owner.
struct Place {
    bucket: String,
    owner: Client,
    writer: Client,
    reader: Client,
    pruner: Client,
    /// Versions of objects of these names: without a lock, locked for ten days in compliance and
    /// in governance mode, and under legal hold.
    free: String,
    kept: String,
    governed: String,
    held: String,
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    assert!(
        value.is_some() || std::env::var_os("LIFEBELT_REQUIRE_SERVICES").is_none(),
        "{name} is missing: eval \"$(scripts/services env)\" sets it"
    );
    if value.is_none() {
        eprintln!("not run: needs {name} (scripts/test sets it)");
    }
    value
}

fn random() -> String {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).unwrap();
    fake::sign::hex(&bytes)
}

fn days(count: u64) -> String {
    let time: SystemTime = SystemClock.now() + Duration::from_secs(count * 24 * 3600);
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `body` with the checksum that S3 wants on what configures.
fn with_body(call: Call, body: &str) -> Call {
    let sum = STANDARD.encode(Md5::digest(body));
    call.header("content-md5", &sum).body(body.to_owned())
}

impl Place {
    async fn make() -> Option<Self> {
        let endpoint = variable("LIFEBELT_S3_ENDPOINT")?;
        let access = variable("LIFEBELT_S3_ACCESS_KEY")?;
        let secret = variable("LIFEBELT_S3_SECRET_KEY")?;
        let mc = variable("LIFEBELT_MC")?;
        let owner = Client::new(&endpoint, &access, &secret);
        let bucket = format!("policies-{}", random());
        let made = owner
            .send(
                call(&format!("PUT /{bucket}")).header("x-amz-bucket-object-lock-enabled", "true"),
            )
            .await;
        assert_eq!(made.status, 200, "{}", made.text());
        let put = async |name: &str, lock: &[(&'static str, &str)]| {
            let mut put = with_body(call(&format!("PUT /{bucket}/{name}")), name);
            for (header, value) in lock {
                put = put.header(header, value);
            }
            let answer = owner.send(put).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.header("x-amz-version-id").unwrap().to_owned()
        };
        let until = days(10);
        let lock = |mode| {
            [
                ("x-amz-object-lock-mode", mode),
                ("x-amz-object-lock-retain-until-date", until.as_str()),
            ]
        };
        let free = put("free", &[]).await;
        let kept = put("kept", &lock("COMPLIANCE")).await;
        let governed = put("governed", &lock("GOVERNANCE")).await;
        let held = put("held", &[("x-amz-object-lock-legal-hold", "ON")]).await;

        let home = tempfile::tempdir().unwrap();
        let host = endpoint.strip_prefix("http://").unwrap();
        let admin = |arguments: &[&str], input: &str| {
            let mut child = Command::new(&mc)
                .arg("--config-dir")
                .arg(home.path())
                .arg("admin")
                .args(arguments)
                .env("MC_HOST_server", format!("http://{access}:{secret}@{host}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(input.as_bytes())
                .unwrap();
            assert!(child.wait().unwrap().success(), "mc admin {arguments:?}");
        };
        let user = |policy: &str| {
            let name = format!("{policy}-{}", random());
            let secret = random();
            let file = home.path().join(policy);
            let text = std::fs::read_to_string(format!("policies/{policy}.json")).unwrap();
            std::fs::write(&file, text.replace("BUCKET", &bucket)).unwrap();
            admin(&["user", "add", "server"], &format!("{name}\n{secret}\n"));
            let file = file.to_str().unwrap();
            admin(&["policy", "create", "server", &name, file], "");
            admin(&["policy", "attach", "server", &name, "--user", &name], "");
            Client::new(&endpoint, &name, &secret)
        };
        let (writer, reader, pruner) = (user("writer"), user("reader"), user("pruner"));
        Some(Self {
            bucket,
            owner,
            writer,
            reader,
            pruner,
            free,
            kept,
            governed,
            held,
        })
    }

    /// `text` with the names of the bucket (`{B}`) and of the four versions.
    fn call(&self, text: &str) -> Call {
        call(
            &text
                .replace("{B}", &self.bucket)
                .replace("{F}", &self.free)
                .replace("{K}", &self.kept)
                .replace("{G}", &self.governed)
                .replace("{H}", &self.held),
        )
    }

    /// Everything that a forbidden call could change, as the owner sees it.
    async fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        for look in [
            "GET /",
            "GET /{B}?versions",
            "GET /{B}?uploads",
            "GET /{B}?versioning",
            "GET /{B}?object-lock",
            "GET /{B}?lifecycle",
            "GET /{B}?policy",
            "GET /{B}?replication",
            "GET /{B}?encryption",
            "GET /{B}?tagging",
            "GET /{B}?notification",
            "GET /{B}/free?tagging",
            "GET /{B}/kept?retention&versionId={K}",
            "GET /{B}/governed?retention&versionId={G}",
            "GET /{B}/held?legal-hold&versionId={H}",
        ] {
            let answer = self.owner.send(self.call(look)).await;
            // What a request is called differs each time.
            let text = answer.text();
            let text = text.split("<RequestId>").next().unwrap();
            // Other tests make buckets of their own.
            let ours = if look == "GET /" {
                answer.all("Name").contains(&self.bucket).to_string()
            } else {
                text.to_owned()
            };
            state.push(format!("{look}: {} {ours}", answer.status));
        }
        state
    }
}

/// Refused for want of the right, and not for another reason.
fn refused(answer: &Answer) -> bool {
    let text = answer.text();
    let denied = !answer.all("Code").is_empty()
        && answer.all("Code").iter().all(|code| code == "AccessDenied");
    match answer.status {
        403 => denied || text.contains(r#""Code":"AccessDenied""#),
        // Deleting several: the verdict is per object.
        200 => answer.all("Deleted").is_empty() && denied,
        // What the lock itself refuses, whoever asks, has this answer on MinIO.
        400 => text.contains("WORM protected"),
        _ => false,
    }
}

/// Every way we know to lose, shorten, hide or expose backups, or to get at the server.
fn forbidden(place: &Place) -> Vec<(&'static str, Call)> {
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let several = |version: &str| {
        format!(
            "<Delete><Object><Key>kept</Key>{version}</Object><Object><Key>free</Key></Object></Delete>"
        )
    };
    let version = format!("<VersionId>{}</VersionId>", place.kept);
    let retention = |mode: &str, until: &str| {
        format!(
            "<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
        )
    };
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":["*"]}},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::{}/*"]}}]}}"#,
        place.bucket
    );
    let expiry = "<LifecycleConfiguration><Rule><ID>x</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
    let replication = "<ReplicationConfiguration><Role></Role><Rule><ID>x</ID><Status>Enabled</Status><Priority>1</Priority><DeleteMarkerReplication><Status>Disabled</Status></DeleteMarkerReplication><Filter><Prefix></Prefix></Filter><Destination><Bucket>arn:aws:s3:::lifebelt</Bucket></Destination></Rule></ReplicationConfiguration>";
    let encryption = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
    let bypass = |call: Call| call.header("x-amz-bypass-governance-retention", "true");
    let plain = |text: &'static str| (text, place.call(text));
    let body = |text: &'static str, body: &str| (text, with_body(place.call(text), body));
    vec![
        plain("DELETE /{B}/free"),
        plain("DELETE /{B}/kept"),
        plain("DELETE /{B}/absent"),
        plain("DELETE /{B}/free?versionId={F}"),
        plain("DELETE /{B}/kept?versionId={K}"),
        plain("DELETE /{B}/governed?versionId={G}"),
        plain("DELETE /{B}/held?versionId={H}"),
        (
            "delete under compliance, bypassed",
            bypass(place.call("DELETE /{B}/kept?versionId={K}")),
        ),
        (
            "delete under governance, bypassed",
            bypass(place.call("DELETE /{B}/governed?versionId={G}")),
        ),
        body("POST /{B}?delete", &several("")),
        body("POST /{B}?delete&versions", &several(&version)),
        (
            "delete several, bypassed",
            bypass(with_body(
                place.call("POST /{B}?delete"),
                &several(&version),
            )),
        ),
        body(
            "PUT /{B}/kept?retention&versionId={K}",
            &retention("COMPLIANCE", &days(1)),
        ),
        (
            "from compliance to governance, bypassed",
            bypass(
                body(
                    "PUT /{B}/kept?retention&versionId={K}",
                    &retention("GOVERNANCE", &days(10)),
                )
                .1,
            ),
        ),
        body(
            "PUT /{B}/governed?retention&versionId={G}",
            &retention("GOVERNANCE", &days(1)),
        ),
        (
            "shorten governance, bypassed",
            bypass(
                body(
                    "PUT /{B}/governed?retention&versionId={G}",
                    &retention("GOVERNANCE", &days(1)),
                )
                .1,
            ),
        ),
        (
            "end compliance, bypassed",
            bypass(
                body(
                    "PUT /{B}/kept?retention&versionId={K}",
                    "<Retention></Retention>",
                )
                .1,
            ),
        ),
        body(
            "PUT /{B}/held?legal-hold&versionId={H}",
            "<LegalHold><Status>OFF</Status></LegalHold>",
        ),
        body(
            "PUT /{B}/free?legal-hold",
            "<LegalHold><Status>ON</Status></LegalHold>",
        ),
        body(
            "PUT /{B}?versioning",
            "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
        ),
        body("PUT /{B}?lifecycle", expiry),
        plain("DELETE /{B}?lifecycle"),
        body("PUT /{B}?policy", &policy),
        plain("DELETE /{B}?policy"),
        body(
            "PUT /{B}?object-lock",
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
        ),
        body("PUT /{B}?replication", replication),
        plain("DELETE /{B}?replication"),
        body("PUT /{B}?encryption", encryption),
        plain("DELETE /{B}?encryption"),
        body("PUT /{B}?tagging", tags),
        plain("DELETE /{B}?tagging"),
        body(
            "PUT /{B}?notification",
            "<NotificationConfiguration></NotificationConfiguration>",
        ),
        body("PUT /{B}/free?tagging", tags),
        plain("DELETE /{B}/free?tagging"),
        (
            "put under legal hold",
            with_body(place.call("PUT /{B}/new"), "x").header("x-amz-object-lock-legal-hold", "ON"),
        ),
        (
            "copy from another bucket",
            place
                .call("PUT /{B}/new")
                .header("x-amz-copy-source", "/lifebelt/x"),
        ),
        plain("DELETE /{B}"),
        (
            "delete bucket by force",
            place
                .call("DELETE /{B}")
                .header("x-minio-force-delete", "true"),
        ),
        plain("PUT /{B}-more"),
        body("PUT /lifebelt/x", "x"),
        plain("GET /lifebelt?list-type=2"),
        plain("GET /minio/admin/v3/info"),
        plain("GET /minio/admin/v3/list-users"),
        plain("GET /minio/admin/v3/list-canned-policies"),
        plain("PUT /minio/admin/v3/set-user-status?accessKey=x&status=disabled"),
        plain("DELETE /minio/admin/v3/remove-canned-policy?name=writer"),
        plain("GET /minio/admin/v3/config"),
        plain("POST /minio/admin/v3/service?action=stop"),
    ]
}

#[tokio::test]
async fn a_writer_cannot_undo_what_was_written() {
    let Some(place) = Place::make().await else {
        return;
    };
    let before = place.state().await;
    let calls = forbidden(&place);
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
    let before = place.state().await;
    let mut calls = forbidden(&place);
    for text in [
        "PUT /{B}/new".to_owned(),
        "POST /{B}/new?uploads".to_owned(),
        format!("PUT /{{B}}/large?partNumber=1&uploadId={upload}"),
        format!("DELETE /{{B}}/large?uploadId={upload}"),
    ] {
        calls.push(("write", place.call(&text)));
    }
    for (name, call) in calls {
        let answer = place.reader.send(call).await;
        assert!(
            refused(&answer),
            "{name}: {} {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(place.state().await, before);
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
    let before = place.state().await;
    let bypass = |text| {
        place
            .call(text)
            .header("x-amz-bypass-governance-retention", "true")
    };
    for call in [
        place.call("DELETE /{B}/kept?versionId={K}"),
        place.call("DELETE /{B}/governed?versionId={G}"),
        place.call("DELETE /{B}/held?versionId={H}"),
        bypass("DELETE /{B}/kept?versionId={K}"),
        bypass("DELETE /{B}/governed?versionId={G}"),
        place.call("PUT /{B}/new"),
        place.call("PUT /{B}/kept"),
    ] {
        let name = format!("{} {}", call.method, call.path);
        let answer = pruner.send(call).await;
        assert!(
            refused(&answer),
            "{name}: {} {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(place.state().await, before);
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
    let Some(disk) = variable("LIFEBELT_S3_DATA") else {
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
