//! Backups of what changed since the one before, and any revision that they lead to.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::{
    ErrorKind, Job, Manifest, MemorySink, Pipeline, RestoreOptions, RestoreRequest, Result,
    RunOptions, Sink, Target,
};
use futures::TryStreamExt;
use serde_json::{Value, json};
use store_etcd::{Etcd, EtcdServer, Leases};
use support::proxy::{Fault, Proxy};
use support::{Kind, Programs, Server};

/// One chain of backups of a server.
struct Chain {
    sink: MemorySink,
    state: tempfile::TempDir,
}

impl Chain {
    fn new() -> Self {
        Self {
            sink: MemorySink::new(),
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn job(&self, source: Etcd) -> Job {
        Job::builder("job")
            .source(source)
            .sink("memory", self.sink.clone())
            .pipeline(Pipeline::unencrypted())
            .incremental(true)
            .state_dir(self.state.path())
            .build()
            .unwrap()
    }

    async fn back_up(&self, source: Etcd) -> Result<Arc<Manifest>> {
        let job = self.job(source);
        let id = job.run(RunOptions::default()).await?.id;
        Ok(Arc::clone(&job.find(id.as_str()).await?.manifest))
    }

    async fn restore(
        &self,
        manifest: &Manifest,
        target: &dyn Target,
        revision: Option<i64>,
    ) -> Result<()> {
        let mut options = RestoreOptions::default();
        let revision = revision.map(|revision| ("revision".to_owned(), json!(revision)));
        options.extra.extend(revision);
        let request = RestoreRequest::default().options(options);
        // Nobody listens there: a restore asks no source.
        let job = self.job(Etcd::from_url("http://127.0.0.1:1").unwrap());
        job.restore(&manifest.id, target, request).await.map(drop)
    }

    /// A server on a data directory with this state.
    async fn server(&self, it: &Programs, manifest: &Manifest, revision: Option<i64>) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let target = it.target(folder.path()).bump_revision(0);
        self.restore(manifest, &target, revision).await.unwrap();
        it.start_on_copy(folder.path())
    }
}

/// All keys as they are, or were, with their revisions.
fn state(server: &Server, revision: Option<i64>) -> Value {
    let at = revision.map(|revision| format!("--rev={revision}"));
    let mut ask = vec!["get", "", "--prefix", "-w", "json"];
    ask.extend(at.as_deref());
    let mut said: Value = serde_json::from_str(&server.ask(&ask)).unwrap();
    said["kvs"].take()
}

fn hash_kv(server: &Server, revision: i64) -> Value {
    let revision = format!("--rev={revision}");
    let said = server.ask(&["endpoint", "hashkv", &revision, "-w", "json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    said[0]["HashKV"]["hash"].clone()
}

/// Everything that a revision may be.
fn change(server: &Server, round: usize) {
    let value = format!("value {round}");
    server.ask(&["put", "again", &value]);
    server.ask(&["put", &format!("new/{round}"), &value]);
    server.ask(&["put", "gone", "x"]);
    server.ask(&["del", "gone"]);
    server
        .ctl(&["put", "/a key/with ümläuts "], "\u{1}\u{7f}\n\u{2}\u{0}")
        .unwrap();
    let puts: String = (0..40)
        .map(|n| format!("put many/{round}/{n} {n}\n"))
        .collect();
    server
        .ctl(&["txn"], &format!("\n{puts}del new/\n\n\n"))
        .unwrap();
    let lease = server.ask(&["lease", "grant", "36000"]);
    let lease = lease.split_whitespace().nth(1).unwrap();
    server.ask(&["put", "leased", &value, "--lease", lease]);
    server.ask(&["del", &format!("many/{round}/1"), "--prefix"]);
    server.ask(&["lease", "revoke", lease]);
    server.ask(&["put", "last", &value]);
}

fn parts(manifest: &Manifest) -> usize {
    manifest.parts.len()
}

fn last(manifest: &Manifest) -> i64 {
    manifest
        .facts
        .get("revision")
        .and_then(Value::as_i64)
        .unwrap()
}

/// Inline in the root or in many pages; with nothing changed between two of them; every key with
/// its revisions, and what etcd itself says of all it keeps.
#[tokio::test]
async fn every_revision_comes_back_as_it_was() {
    for it in Kind::all() {
        for megabytes in [0, 2] {
            let server = it.start(&[]);
            server.ask(&["put", "first", "1"]);
            server.fill(megabytes);
            let chain = Chain::new();
            let full = chain.back_up(server.source()).await.unwrap();
            let mut newest = Arc::clone(&full);
            for round in 0..3 {
                change(&server, round);
                // What is larger than a page, and than a piece.
                server.fill(round.min(megabytes));
                let parent = newest;
                newest = chain.back_up(server.source()).await.unwrap();
                assert_eq!(newest.parent.as_ref(), Some(&parent.id), "{it:?}");
                assert_eq!(last(&newest), server.revision());
            }
            let same = chain.back_up(server.source()).await.unwrap();
            assert_eq!((parts(&full), parts(&newest), parts(&same)), (1, 4, 4));
            assert_eq!(same.parent.as_ref(), Some(&newest.id));

            let restored = chain.server(&it, &same, None).await;
            assert_eq!(state(&restored, None), state(&server, None), "{it:?}");
            for revision in [last(&full), last(&full) + 7, last(&same)] {
                let both = [&restored, &server].map(|it| hash_kv(it, revision));
                assert_eq!(both[0], both[1], "{it:?} at {revision}");
            }
            // It can be written to, compacted and read as before.
            restored.ask(&["put", "again", "after"]);
            assert_eq!(restored.revision(), last(&same) + 1);
            let at = (restored.revision() - 3).to_string();
            restored.ask(&["compact", &at, "--physical"]);
            restored.ask(&["defrag"]);
            assert_eq!(
                restored.ask(&["get", "again", "--print-value-only"]),
                "after\n"
            );

            for revision in (last(&full)..last(&same)).step_by(16) {
                let restored = chain.server(&it, &same, Some(revision)).await;
                assert_eq!(restored.revision(), revision);
                let was = state(&server, Some(revision));
                assert_eq!(state(&restored, None), was, "{it:?} at {revision}");
            }
        }
    }
}

/// bbolt ends a server that deletes rows below a branch with one child.
#[tokio::test]
async fn what_was_laid_upon_a_snapshot_can_be_compacted() {
    for it in Kind::all() {
        let server = it.start(&[]);
        // More leaves than one branch has room for.
        let value = "x".repeat(1900);
        for round in 0..4 {
            let puts: String = (0..100)
                .map(|n| format!("put page/{round}/{n} {value}\n"))
                .collect();
            server.ctl(&["txn"], &format!("\n{puts}\n\n")).unwrap();
        }
        let chain = Chain::new();
        chain.back_up(server.source()).await.unwrap();
        for n in 0..20 {
            server.ask(&["put", "hot", &n.to_string()]);
        }
        let newest = chain.back_up(server.source()).await.unwrap();
        assert_eq!(parts(&newest), 2);
        for bump in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let target = match bump {
                true => it.target(folder.path()),
                false => it.target(folder.path()).bump_revision(0),
            };
            chain.restore(&newest, &target, None).await.unwrap();
            let mut restored = it.start_on_copy(folder.path());
            restored.ask(&["put", "hot", "after"]);
            let at = restored.revision().to_string();
            restored.ask(&["compact", &at, "--physical"]);
            restored.ask(&["defrag"]);
            restored.kill();
            restored.run();
            let hot = restored.ask(&["get", "hot", "--print-value-only"]);
            assert_eq!(hot, "after\n");
            let keys = restored.ask(&["get", "page/", "--prefix", "--keys-only"]);
            assert_eq!(keys.split_whitespace().count(), 400, "{it:?}");
        }
    }
}

/// Users and roles are in no revision.
#[tokio::test]
async fn other_users_or_nothing_to_watch_make_a_full_backup() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    let chain = Chain::new();
    for _ in 0..2 {
        let empty = chain.back_up(server.source()).await.unwrap();
        assert_eq!((&empty.parent, parts(&empty)), (&None, 1));
    }
    server.ask(&["put", "a", "1"]);
    chain.back_up(server.source()).await.unwrap();
    server.ask(&["put", "a", "2"]);
    let built = chain.back_up(server.source()).await.unwrap();
    assert_eq!(parts(&built), 2);
    server.ask(&["user", "add", "mallory:pw"]);
    let full = chain.back_up(server.source()).await.unwrap();
    assert_eq!((&full.parent, parts(&full)), (&None, 1));
    server.ask(&["put", "a", "3"]);
    let built = chain.back_up(server.source()).await.unwrap();
    assert_eq!(built.parent.as_ref(), Some(&full.id));
}

#[tokio::test]
async fn keys_of_any_revision_come_back_into_a_cluster_that_runs() {
    for it in Kind::all() {
        let server = it.start(&[]);
        change(&server, 0);
        let chain = Chain::new();
        let full = chain.back_up(server.source()).await.unwrap();
        change(&server, 1);
        let newest = chain.back_up(server.source()).await.unwrap();
        let values = |of: &Value| -> Vec<(Value, Value)> {
            let rows = of.as_array().unwrap().iter();
            rows.map(|row| (row["key"].clone(), row["value"].clone()))
                .collect()
        };
        for revision in [None, Some(last(&full) - 4), Some(last(&full) + 6)] {
            let to = it.start(&[]);
            let target = EtcdServer::from_url(to.endpoint())
                .unwrap()
                .leases(Leases::Drop);
            chain.restore(&newest, &target, revision).await.unwrap();
            let (is, was) = (state(&to, None), state(&server, revision));
            assert_eq!(values(&is), values(&was), "{it:?} at {revision:?}");
        }
        let to = it.start(&[]);
        let target = EtcdServer::from_url(to.endpoint()).unwrap();
        let beyond = Some(last(&newest) + 1);
        let error = chain.restore(&newest, &target, beyond).await.unwrap_err();
        assert!(error.chain().contains("reaches from"), "{error:?}");
        assert_eq!(to.revision(), 1);
    }
}

/// A backup that would have a hole is a full one.
#[tokio::test]
async fn what_was_compacted_or_has_another_past_begins_anew() {
    for it in Kind::all() {
        let mut server = it.start(&[]);
        change(&server, 0);
        let chain = Chain::new();
        let first = chain.back_up(server.source()).await.unwrap();
        change(&server, 1);
        let second = chain.back_up(server.source()).await.unwrap();
        assert_eq!(second.parent.as_ref(), Some(&first.id));

        change(&server, 2);
        let at = (server.revision() - 1).to_string();
        server.ask(&["compact", &at, "--physical"]);
        let third = chain.back_up(server.source()).await.unwrap();
        assert_eq!((&third.parent, parts(&third)), (&None, 1), "{it:?}");

        // The state of the third again, as the same cluster, and another past from there on.
        change(&server, 3);
        let fourth = chain.back_up(server.source()).await.unwrap();
        assert_eq!(fourth.parent.as_ref(), Some(&third.id));
        let members = server.ask(&["member", "list", "-w", "json"]);
        let members: Value = serde_json::from_str(&members).unwrap();
        let peer = members["members"][0]["peerURLs"][0].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = it.target(folder.path()).bump_revision(0).name("default");
        let target = target
            .initial_cluster(format!("default={peer}"))
            .initial_advertise_peer_urls(peer);
        chain.restore(&third, &target, None).await.unwrap();
        server.kill();
        fs::remove_dir_all(&server.data).unwrap();
        fs::rename(folder.path(), &server.data).unwrap();
        server.run();
        assert!(server.revision() < last(&fourth));
        while server.revision() <= last(&fourth) {
            server.ask(&["put", "last", "value 3"]);
        }
        let again = server.ask(&["member", "list", "-w", "json"]);
        let again: Value = serde_json::from_str(&again).unwrap();
        assert_eq!(
            again["header"]["cluster_id"],
            members["header"]["cluster_id"]
        );
        let fifth = chain.back_up(server.source()).await.unwrap();
        assert_eq!((&fifth.parent, parts(&fifth)), (&None, 1), "{it:?}");
        let restored = chain.server(&it, &fifth, None).await;
        assert_eq!(state(&restored, None), state(&server, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_makes_no_backup_and_the_next_has_all() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    change(&server, 0);
    let chain = Chain::new();
    let mut parent = chain.back_up(server.source()).await.unwrap();
    let (mut full, mut built) = (0, 0);
    for n in 1..=20 {
        change(&server, n);
        server.fill(n / 10);
        // In the talk before the changes, and in the changes.
        let at = n as u64 * if n < 10 { 60 } else { 50_000 };
        let proxy = Proxy::to(server.port, Fault::Cut(at));
        let through = Etcd::from_url(format!("http://127.0.0.1:{}", proxy.port)).unwrap();
        let error = chain.back_up(through).await.unwrap_err();
        assert!(proxy.fired() > 0, "not cut at {at}");
        assert!(!error.chain().contains('\n'), "{error:?}");
        let kinds = [ErrorKind::Unavailable, ErrorKind::Source];
        assert!(kinds.contains(&error.kind()), "{at}: {error:?}");
        let next = chain.back_up(server.source()).await.unwrap();
        match &next.parent {
            None => full += 1,
            Some(id) => built += usize::from(*id == parent.id),
        }
        parent = next;
    }
    // Those that were cut before and those that were cut after their mark was taken.
    assert_eq!(full + built, 20);
    assert!(full > 0 && built > 0, "{full} {built}");
    let restored = chain.server(&it, &parent, None).await;
    assert_eq!(state(&restored, None), state(&server, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_somebody_writes_a_backup_ends_with_a_whole_revision() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    change(&server, 0);
    let chain = Chain::new();
    chain.back_up(server.source()).await.unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                let puts = format!("\nput both/a {n}\nput both/b {n}\n\n\n");
                server.ctl(&["txn"], &puts).unwrap();
                n += 1;
            }
        });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                for _ in 0..5 {
                    std::thread::sleep(std::time::Duration::from_millis(200));
                    let newest = chain.back_up(server.source()).await.unwrap();
                    assert!(newest.parent.is_some());
                    let restored = chain.server(&it, &newest, None).await;
                    let was = state(&server, Some(last(&newest)));
                    assert_eq!(state(&restored, None), was);
                    let get = |key| restored.ask(&["get", key, "--print-value-only"]);
                    assert_eq!(get("both/a"), get("both/b"));
                }
            });
        });
        over.store(true, Ordering::Relaxed);
    });
}

/// What `RESTORE.md` says of them, with `curl`.
#[tokio::test]
async fn changes_are_transactions_that_curl_brings_back() {
    const REPLAY: &str = "while IFS= read -r txn; do printf %s \"$txn\" | curl -sSf -o /dev/null \
                          --data-binary @- \"$ENDPOINT/v3/kv/txn\" || exit 1; done";
    for it in Kind::all() {
        let server = it.start(&[]);
        change(&server, 0);
        let chain = Chain::new();
        let full = chain.back_up(server.source()).await.unwrap();
        change(&server, 1);
        chain.back_up(server.source()).await.unwrap();
        change(&server, 2);
        let newest = chain.back_up(server.source()).await.unwrap();
        let job = chain.job(server.source());
        let folder = tempfile::tempdir().unwrap();
        job.fetch(&newest.id, folder.path(), true, None)
            .await
            .unwrap();
        let changes: Vec<PathBuf> = newest.parts[1..]
            .iter()
            .map(|part| folder.path().join(&part.name))
            .collect();
        let all: String = changes
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        assert_eq!(all.lines().count() as i64, last(&newest) - last(&full));

        let restored = chain.server(&it, &full, None).await;
        replay(REPLAY, &restored, folder.path(), &all);
        // All but the leases, which curl cannot grant.
        let plain = |server: &Server| {
            let mut rows = state(server, None);
            for row in rows.as_array_mut().unwrap() {
                row.as_object_mut().unwrap().remove("lease");
            }
            rows
        };
        assert_eq!(plain(&restored), plain(&server), "{it:?}");
        assert_eq!(restored.revision(), server.revision());
    }
}

fn replay(command: &str, server: &Server, folder: &Path, changes: &str) {
    let file = folder.join("changes.jsonl");
    fs::write(&file, changes).unwrap();
    let mut sh = Command::new("sh");
    sh.args(["-c", command]).env("ENDPOINT", server.endpoint());
    let said = sh.stdin(fs::File::open(file).unwrap()).output().unwrap();
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
}

#[tokio::test]
async fn a_mark_is_used_once() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    change(&server, 0);
    let chain = Chain::new();
    let full = chain.back_up(server.source()).await.unwrap();
    let mark = chain.state.path().join("job/last-change.json");
    let of_full = fs::read(&mark).unwrap();
    change(&server, 1);
    let second = chain.back_up(server.source()).await.unwrap();
    assert_eq!(second.parent.as_ref(), Some(&full.id));
    // One of an older backup, and none.
    fs::write(&mark, of_full).unwrap();
    assert_eq!(chain.back_up(server.source()).await.unwrap().parent, None);
    fs::remove_file(&mark).unwrap();
    assert_eq!(chain.back_up(server.source()).await.unwrap().parent, None);
    let objects: Vec<_> = chain.sink.list(None).try_collect().await.unwrap();
    let manifests = objects
        .iter()
        .filter(|object| object.key.name() == "manifest.json");
    assert_eq!(manifests.count(), 4);
}
