//! A bucket on a real server, its three users, and all that must be refused to them.

pub(crate) mod forbidden;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use backup_core::testing::service;
use backup_core::{Clock, SystemClock};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use crate::fake;
use crate::fake::client::{Call, Client, call};

/// A bucket of its own with Object Lock, and the three users on it. Made by the server's owner.
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) owner: Client,
    pub(crate) writer: Client,
    pub(crate) reader: Client,
    pub(crate) pruner: Client,
    /// Versions of objects of these names: without a lock, locked for ten days in compliance and
    /// in governance mode, and under legal hold.
    free: String,
    kept: String,
    governed: String,
    held: String,
}

fn random() -> String {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).unwrap();
    fake::sign::hex(&bytes)
}

pub(crate) fn days(count: u64) -> String {
    let time: SystemTime = SystemClock.now() + Duration::from_secs(count * 24 * 3600);
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `body` with the checksum that S3 wants on what configures.
pub(crate) fn with_body(call: Call, body: &str) -> Call {
    let sum = STANDARD.encode(Md5::digest(body));
    call.header("content-md5", &sum).body(body.to_owned())
}

impl Place {
    pub(crate) async fn make() -> Option<Self> {
        let endpoint = service("LIFEBELT_S3_ENDPOINT")?;
        let access = service("LIFEBELT_S3_ACCESS_KEY")?;
        let secret = service("LIFEBELT_S3_SECRET_KEY")?;
        let mc = service("LIFEBELT_MC")?;
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
    pub(crate) fn call(&self, text: &str) -> Call {
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
    pub(crate) async fn state(&self) -> Vec<String> {
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
