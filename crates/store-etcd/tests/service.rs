//! What a snapshot is worth, next to etcd's own tools.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::{
    ErrorKind, Facts, Id, Job, MemorySink, Pipeline, RestoreRequest, Result, RunOptions, Source,
};
use serde_json::{Value, json};
use store_etcd::{Etcd, EtcdDataDir, EtcdServer};
use support::{Kind, PASSWORD, Server};

fn job(source: impl Source, sink: &MemorySink) -> Job {
    let job = Job::builder("job")
        .source(source)
        .sink("memory", sink.clone());
    job.pipeline(Pipeline::unencrypted()).build().unwrap()
}

async fn back_up(source: impl Source, sink: &MemorySink) -> Result<(Id, Facts)> {
    let job = job(source, sink);
    let id = job.run(RunOptions::default()).await?.id;
    let facts = job.find(id.as_str()).await?.manifest.facts.clone();
    Ok((id, facts))
}

/// The numbers of `etcdutl snapshot status`, of the same moment.
#[tokio::test]
async fn facts_are_what_etcds_own_tool_says() {
    for it in Kind::all() {
        let server = it.start(&[]);
        server.seed();
        for compacted in [false, true] {
            if compacted {
                let at = (server.revision() - 5).to_string();
                server.ask(&["compact", &at, "--physical"]);
            }
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("snapshot.db");
            let (_, facts) = back_up(server.source(), &MemorySink::new()).await.unwrap();
            server.ask(&["snapshot", "save", file.to_str().unwrap()]);
            let program = match it.kind {
                Kind::Etcd => it.tool("etcdutl"),
                Kind::Etcd34 => it.tool("etcdctl"),
            };
            let mut status = Command::new(program);
            status.args(["snapshot", "status", file.to_str().unwrap(), "-w", "json"]);
            let said = status.env("ETCDCTL_API", "3").output().unwrap();
            let said: Value = serde_json::from_slice(&said.stdout).unwrap();
            let hash = format!("{:x}", said["hash"].as_u64().unwrap());
            assert_eq!(
                facts.get("hash"),
                Some(&json!(hash)),
                "{it:?} {said} {facts:?}"
            );
            assert_eq!(facts.get("revision"), Some(&said["revision"]), "{it:?}");
            assert_eq!(facts.get("revision"), Some(&json!(server.revision())));
            assert_eq!(
                facts.get("compared"),
                Some(&json!(true)),
                "{it:?} {facts:?}"
            );
            let keys = server.ask(&["get", "", "--prefix", "--keys-only"]);
            let keys = keys.lines().filter(|line| !line.is_empty()).count();
            assert_eq!(facts.get("keys"), Some(&json!(keys)), "{it:?}");
            assert_eq!(facts.get("compacted").is_some(), compacted, "{it:?}");
        }
    }
}

/// So few keys that they lie in the root, and a deletion of which versions differ whether it stays.
#[tokio::test]
async fn a_small_store_that_was_compacted_at_a_deletion_is_backed_up() {
    for it in Kind::all() {
        let server = it.start(&[]);
        for key in ["a", "b"] {
            server.ask(&["put", key, "x"]);
        }
        server.ask(&["del", "a"]);
        server.ask(&["compact", "4", "--physical"]);
        let (_, facts) = back_up(server.source(), &MemorySink::new()).await.unwrap();
        assert_eq!(facts.get("revision"), Some(&json!(4)), "{it:?} {facts:?}");
        server.ask(&["put", "b", "y"]);
        server.ask(&["compact", "5", "--physical"]);
        // 3.4 does not say what it has at the revision of a compaction. What was superseded since,
        // `b` of 5, stays in the file, and no server counts it.
        server.ask(&["put", "b", "z"]);
        let (_, facts) = back_up(server.source(), &MemorySink::new()).await.unwrap();
        assert_eq!(
            facts.get("compared"),
            Some(&json!(true)),
            "{it:?} {facts:?}"
        );
        assert_eq!(facts.get("entries"), Some(&json!(2)), "{it:?} {facts:?}");
        assert_eq!(facts.get("keys"), Some(&json!(1)), "{it:?} {facts:?}");
    }
}

/// Every transaction writes the same value to two keys far apart: no copy has half of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_somebody_writes_a_snapshot_is_one_moment() {
    for it in Kind::all() {
        let server = it.start(&[]);
        server.fill(4);
        let go_on = AtomicBool::new(true);
        let sink = MemorySink::new();
        let folder = tempfile::tempdir().unwrap();
        let begun = server.revision();
        let (id, facts) = std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0.. {
                    if !go_on.load(Ordering::Relaxed) {
                        return;
                    }
                    let puts = format!("\nput a {n}\nput z {n}\n\n\n");
                    server.ctl(&["txn"], &puts).unwrap();
                }
            });
            while server.revision() < begun + 20 {}
            let handle = tokio::runtime::Handle::current();
            let done =
                tokio::task::block_in_place(|| handle.block_on(back_up(server.source(), &sink)));
            go_on.store(false, Ordering::Relaxed);
            done.unwrap()
        });
        let at = facts.get("revision").and_then(Value::as_i64).unwrap();
        assert!(at >= begun + 20, "{at} {begun}");
        let path = folder.path().join("data");
        job(server.source(), &sink)
            .restore(&id, &it.target(&path), RestoreRequest::default())
            .await
            .unwrap();
        let restored = it.start_on_copy(&path);
        let value = |key: &str| restored.ask(&["get", key, "--print-value-only"]);
        assert_eq!(value("a"), value("z"));
        let then = at.to_string();
        assert_eq!(
            value("a"),
            server.ask(&["get", "a", "--print-value-only", "--rev", &then])
        );
    }
}

/// Whoever remembers a revision of the old cluster must not take the new one's past for its present.
#[tokio::test]
async fn the_revision_is_raised_and_the_past_is_compacted() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    server.seed();
    let sink = MemorySink::new();
    let (id, _) = back_up(server.source(), &sink).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let target = it.target(&path).name("default");
    job(server.source(), &sink)
        .restore(&id, &target, RestoreRequest::default())
        .await
        .unwrap();
    let restored = it.start_on_copy(&path);
    assert!(restored.revision() > server.revision() + 999_999_999);
    let old = server.revision().to_string();
    let error = restored
        .ctl(&["get", "history", "--rev", &old], "")
        .unwrap_err();
    assert!(error.contains("compacted"), "{error}");
    assert_eq!(restored.fingerprint(), server.fingerprint());

    // It can be backed up again, although a row without a value has raised the revision.
    for wrote in [false, true] {
        if wrote {
            restored.ask(&["put", "history", "after"]);
        }
        let (id, facts) = back_up(restored.source(), &sink).await.unwrap();
        assert_eq!(facts.get("compared"), Some(&json!(true)), "{facts:?}");
        let keys = restored.ask(&["get", "", "--prefix", "--count-only", "-w", "fields"]);
        let counted = format!("\"Count\" : {}\n", facts.get("keys").unwrap());
        assert!(keys.contains(&counted), "{keys} {facts:?}");
        let job = job(restored.source(), &sink);
        let to = it.start(&[]);
        let cluster = EtcdServer::from_url(to.endpoint()).unwrap();
        job.restore(&id, &cluster, RestoreRequest::default())
            .await
            .unwrap();
        assert_eq!(to.contents(), restored.contents());
        let folder = tempfile::tempdir().unwrap();
        let target = it.target(folder.path());
        job.restore(&id, &target, RestoreRequest::default())
            .await
            .unwrap();
        let again = it.start_on_copy(folder.path());
        assert_eq!(again.contents(), restored.contents());
    }
}

#[tokio::test]
async fn what_must_not_be_replaced_is_not() {
    for it in Kind::all() {
        let server = it.start(&[]);
        server.fill(1);
        let sink = MemorySink::new();
        let (id, _) = back_up(server.source(), &sink).await.unwrap();
        let before = server.fingerprint();
        let restore = async |target: &EtcdDataDir, request: RestoreRequest| {
            let job = job(server.source(), &sink);
            job.restore(&id, target, request).await.map(drop)
        };
        // Of a server that runs, also for who insists.
        let running = it.target(&server.data);
        let agreed = RestoreRequest::default().overwrite(running.to_string());
        let error = restore(&running, agreed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(error.chain().contains("stop it first"), "{error:?}");
        assert_eq!(server.fingerprint(), before);
        // By a program of another version, or by none.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let other = match it.kind {
            Kind::Etcd => Kind::Etcd34.at_hand(),
            Kind::Etcd34 => Kind::Etcd.at_hand(),
        };
        let other = other.unwrap().target(&path);
        let error = restore(&other, RestoreRequest::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        let none = EtcdDataDir::new(&path).etcdutl("/nowhere/etcdutl");
        let error = restore(&none, RestoreRequest::default()).await.unwrap_err();
        assert!(error.chain().contains("`etcdutl`"), "{error:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

fn with_auth(server: &Server) {
    server.ask(&["user", "add", &format!("root:{PASSWORD}")]);
    server.ask(&["user", "grant-role", "root", "root"]);
    server.ask(&["role", "add", "reader"]);
    server.ask(&[
        "role",
        "grant-permission",
        "reader",
        "--prefix=true",
        "read",
        "",
    ]);
    server.ask(&["user", "add", &format!("reader:{PASSWORD}")]);
    server.ask(&["user", "grant-role", "reader", "reader"]);
    server.ask(&["auth", "enable"]);
}

#[tokio::test]
async fn with_auth_root_gets_a_snapshot_and_nobody_else() {
    for it in Kind::all() {
        let server = it.start(&[]);
        server.fill(1);
        with_auth(&server);
        let root = server.source().user("root", PASSWORD);
        let (_, facts) = back_up(root, &MemorySink::new()).await.unwrap();
        assert_eq!(facts.get("compared"), Some(&json!(true)), "{it:?}");
        for (source, says) in [
            (
                server.source().user("root", "wrong canary"),
                "authentication failed",
            ),
            (
                server.source().user("nobody", PASSWORD),
                "authentication failed",
            ),
            (
                server.source().user("reader", PASSWORD),
                "permission denied",
            ),
            (server.source(), "user name is empty"),
        ] {
            let sink = MemorySink::new();
            let error = back_up(source, &sink).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{it:?} {error:?}");
            let line = error.chain();
            assert!(line.contains(says), "{it:?} {line}");
            assert!(!line.contains("canary") && !line.contains('\n'), "{line}");
        }
    }
}

/// What a login gives ends after five minutes by default, here after one second.
#[tokio::test]
async fn a_backup_that_takes_longer_than_its_login_logs_in_again() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&["--auth-token-ttl=1", "--log-level=debug"]);
    server.fill(4);
    with_auth(&server);
    let job = Job::builder("job")
        .source(server.source().user("root", PASSWORD))
        .sink("memory", MemorySink::new())
        .pipeline(Pipeline::unencrypted().rate_limit(1 << 20))
        .build()
        .unwrap();
    let ended = || server.log().matches("deleted a simple token").count();
    let before = ended();
    let id = job.run(RunOptions::default()).await.unwrap().id;
    assert!(ended() > before, "no login ended meanwhile");
    let facts = job.find(id.as_str()).await.unwrap().manifest.facts.clone();
    assert_eq!(facts.get("compared"), Some(&json!(true)), "{facts:?}");
}

#[tokio::test]
async fn with_tls_both_sides_show_who_they_are() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let made = Command::new("sh")
        .current_dir(folder.path())
        .args(["-ec", CERTIFICATES])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let option = |name: &str, path: &str| format!("--{name}={}", file(path).display());
    let options = [
        option("cert-file", "server.pem"),
        option("key-file", "server.key"),
        option("trusted-ca-file", "ca.pem"),
        "--client-cert-auth".to_owned(),
    ];
    let server = it.start(&options.each_ref().map(String::as_str));
    let source =
        |address: &str| Etcd::from_url(format!("https://{address}:{}", server.port)).unwrap();
    let shown = |source: Etcd| source.certificate(file("client.pem"), file("client.key"));
    let good = shown(source("127.0.0.1").cacert(file("ca.pem")));
    back_up(good, &MemorySink::new()).await.unwrap();
    for (source, what) in [
        (source("127.0.0.1").cacert(file("ca.pem")), "shows none"),
        (
            shown(source("127.0.0.1").cacert(file("client.pem"))),
            "trusts another",
        ),
        (
            shown(source("localhost").cacert(file("ca.pem"))),
            "another host",
        ),
    ] {
        let error = back_up(source, &MemorySink::new()).await.unwrap_err();
        let kinds = [ErrorKind::Denied, ErrorKind::Unavailable];
        assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
        assert!(!error.chain().contains('\n'), "{what}: {error:?}");
    }
}

const CERTIFICATES: &str = "
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \"$@\"; }
new -x509 -days 3 -subj /CN=tests -keyout ca.key -out ca.pem
for name in server client; do
    new -subj \"/CN=$name\" -keyout $name.key -out $name.csr
    echo subjectAltName=IP:127.0.0.1 >ext
    openssl x509 -req -days 3 -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $name.pem -extfile ext
done";
