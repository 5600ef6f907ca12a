//! etcd of a Talos cluster by the documented configuration, with a stand-in for `talosctl`.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use backup_core::{
    ErrorKind, Job, MemorySink, MemoryTarget, Pipeline, RestoreRequest, Result, RunOptions, Sink,
    Source,
};
use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use store_command::Command;
use tempfile::TempDir;

/// What the stand-in talks about, and where the snapshot lies meanwhile.
struct Cluster {
    folder: TempDir,
    temporary: TempDir,
}

impl Cluster {
    /// With a snapshot as etcd makes it: pages, and their hash.
    fn new() -> Self {
        let cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            temporary: tempfile::tempdir().unwrap(),
        };
        let mut bytes: Vec<u8> = (0..131_072_u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8)
            .collect();
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash[..]);
        fs::write(cluster.folder.path().join("db"), bytes).unwrap();
        cluster
    }

    fn db(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("db")).unwrap()
    }

    fn fault(&self, what: &str) {
        fs::write(self.folder.path().join("fault"), what).unwrap();
    }

    /// The folder of the stand-in first.
    fn path() -> String {
        let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/talos");
        format!("{}:{}", own.display(), std::env::var("PATH").unwrap())
    }

    fn source(&self) -> Command {
        let source: Command = toml::from_str(include_str!("../talos.toml")).unwrap();
        source
            .env("PATH", Self::path())
            .env("CLUSTER", self.folder.path().to_str().unwrap())
            .directory(self.temporary.path())
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.temporary.path()).unwrap().count()
    }

    /// Backs up and reads back. After a failure nothing may be in the sink; never anywhere else.
    async fn back_up(&self, source: Command) -> Result<Bytes> {
        let sink = MemorySink::new();
        let job = Job::builder("talos")
            .source(source)
            .pipeline(Pipeline::unencrypted())
            .sink("memory", sink.clone())
            .build()
            .unwrap();
        let outcome = job.run(RunOptions::default()).await;
        if let Err(error) = &outcome {
            let is_killed = error.chain().contains("`timeout`");
            assert!(is_killed || self.leftovers() == 0, "{error:?}");
            assert!(sink.list(None).collect::<Vec<_>>().await.is_empty());
            assert!(!error.chain().contains('\n'), "{error:?}");
        }
        assert!(outcome.is_err() || self.leftovers() == 0);
        let target = MemoryTarget::of_kind("command");
        job.restore(&outcome?.id, &target, RestoreRequest::default())
            .await?;
        Ok(target.parts()["db.snapshot"].clone())
    }
}

#[tokio::test]
async fn a_snapshot_comes_back_and_recovers_a_cluster_by_the_instructions() {
    let cluster = Cluster::new();
    let bytes = cluster.back_up(cluster.source()).await.unwrap();
    assert!(bytes == cluster.db());

    // `RESTORE.md` pipes the part into this.
    let steps = cluster.source().restore_steps();
    assert_eq!(steps[0].part, "db.snapshot");
    let line = steps[0].command.to_string();
    assert!(line.contains("bootstrap --recover-from="), "{line}");
    let work = tempfile::tempdir().unwrap();
    let mut shell = Process::new("sh");
    shell
        .args(["-c", &line])
        .current_dir(work.path())
        .env("PATH", Cluster::path())
        .env("CLUSTER", cluster.folder.path())
        .env("NODE", "10.0.0.2")
        .stdin(fs::File::open(cluster.folder.path().join("db")).unwrap())
        .stdout(Stdio::null());
    assert!(shell.status().unwrap().success());
    let recovered = fs::read(cluster.folder.path().join("recovered")).unwrap();
    assert!(recovered == bytes);
}

#[tokio::test]
async fn what_talosctl_refuses_or_cuts_off_is_no_backup() {
    for (fault, said) in [
        ("denied", "code = PermissionDenied"),
        ("cut", "sha256 checksum not found (size 20001)"),
    ] {
        let cluster = Cluster::new();
        cluster.fault(fault);
        let error = cluster.back_up(cluster.source()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.chain().contains(said), "{}", error.chain());
        cluster.fault("");
        cluster.back_up(cluster.source()).await.unwrap();
    }
}

/// Its own look at the size sees none of these.
#[tokio::test]
async fn a_snapshot_that_is_not_what_its_hash_says_is_no_backup() {
    let cluster = Cluster::new();
    let whole = cluster.db();
    let len = whole.len();
    let mut damaged: Vec<Vec<u8>> = (0..20)
        .map(|n| whole[..n * 5120 + 20_512].to_vec())
        .collect();
    for n in 0..40 {
        let mut flipped = whole.clone();
        flipped[if n < 8 { len - 1 - n * 4 } else { n * 3000 }] ^= 1 << (n % 8);
        damaged.push(flipped);
    }
    for bytes in damaged {
        fs::write(cluster.folder.path().join("db"), bytes).unwrap();
        let error = cluster.back_up(cluster.source()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.chain().contains("SHA-256"), "{}", error.chain());
    }
    fs::write(cluster.folder.path().join("db"), &whole[len - 32..]).unwrap();
    let error = cluster.back_up(cluster.source()).await.unwrap_err();
    assert!(
        error.chain().contains("at least 16384"),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn a_talosctl_that_hangs_is_stopped_and_the_next_run_cleans_up() {
    let cluster = Cluster::new();
    cluster.fault("hangs");
    let source = cluster.source().timeout(Duration::from_secs(1));
    let error = cluster.back_up(source).await.unwrap_err();
    assert!(cluster.folder.path().join("pid").exists());
    assert!(error.chain().contains("`timeout`"), "{}", error.chain());
    cluster.fault("");
    cluster.back_up(cluster.source()).await.unwrap();
}
