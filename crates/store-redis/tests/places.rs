//! Servers behind TLS, sentinels, and clusters.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use backup_core::testing::eventually;
use backup_core::{
    ErrorKind, Id, Job, MemorySink, Pipeline, RestoreRequest, Result, RunOptions, Source, Target,
};
use serde_json::Value;
use store_redis::{RdbFile, Redis, RedisServer};
use support::{Kind, PASSWORD, Server, free_port, run};

fn job(source: impl Source) -> Job {
    let job = Job::builder("job")
        .source(source)
        .sink("memory", MemorySink::new());
    job.pipeline(Pipeline::unencrypted()).build().unwrap()
}

async fn back_up(source: impl Source) -> Result<(Job, Id)> {
    let job = job(source);
    let id = job.run(RunOptions::default()).await?.id;
    Ok((job, id))
}

async fn restore((job, id): &(Job, Id), target: &dyn Target) -> Result<()> {
    job.restore(id, target, RestoreRequest::default())
        .await
        .map(drop)
}

/// A CA, a server's certificate for 127.0.0.1 and a client's, by `openssl`.
fn certificates(folder: &Path) {
    let openssl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let output = Command::new("openssl")
            .args(words)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
    for ca in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={ca} -keyout {ca}.key -out {ca}.crt"
        ));
    }
    for name in ["server", "client"] {
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.crt"
        ));
    }
}

fn from_toml(text: &str) -> Redis {
    toml::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_tls_is_backed_up_and_restored() {
    let Some(it) = Kind::Redis.at_hand() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let tls = free_port();
    let from = it.start(&[
        &format!("tls-port {tls}"),
        &format!("tls-ca-cert-file {}", at("ca.crt")),
        &format!("tls-cert-file {}", at("server.crt")),
        &format!("tls-key-file {}", at("server.key")),
    ]);
    from.seed();
    let place = format!("url = 'rediss://127.0.0.1:{tls}'\npassword = '{PASSWORD}'\n");
    let own = format!(
        "cert = '{}'\nkey = '{}'\n",
        at("client.crt"),
        at("client.key")
    );
    let trust = |ca: &str| format!("cacert = '{}'\n", at(ca));
    let whole = format!("{place}{own}{}", trust("ca.crt"));
    let backup = back_up(from_toml(&whole)).await.unwrap();

    let wrong = from_toml(&format!("{place}{own}{}", trust("other.crt")));
    let error = back_up(wrong).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    // Redis asks for a certificate of ours by default.
    let nobody = from_toml(&format!("{place}{}", trust("ca.crt")));
    assert!(back_up(nobody).await.is_err());
    let lost = from_toml(&format!("{place}{own}{}", trust("missing.crt")));
    let error = back_up(lost).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    // A name that is not in the certificate.
    let other = whole.replace("rediss://127.0.0.1", "rediss://localhost");
    let error = back_up(from_toml(&other)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");

    let before = from.fingerprint();
    from.wipe();
    let target: RedisServer = toml::from_str(&whole).unwrap();
    restore(&backup, &target).await.unwrap();
    assert_eq!(from.fingerprint(), before);
    from.wipe();
    from.ask(&["CONFIG", "SET", "tls-replication", "yes"]);
    let error = restore(&backup, &target).await.unwrap_err();
    assert!(error.chain().contains("tls-replication no"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_say_who_is_master() {
    for it in Kind::all() {
        let master = it.start(&[]);
        master.ask(&["SET", "key", "value"]);
        let sentinel = it.start(&[
            &format!("sentinel monitor cache 127.0.0.1 {} 1", master.port),
            &format!("sentinel auth-pass cache \"{PASSWORD}\""),
        ]);
        let nobody = format!("127.0.0.1:{}", free_port());
        let address = format!(":canary@127.0.0.1:{}", sentinel.port)
            .replace("canary", "p%40ss%3Aw%2Frd%20canary");
        let nodes = [nobody.clone(), format!("redis://{address}")];
        let source = || {
            Redis::from_sentinel("cache", &nodes)
                .unwrap()
                .password(PASSWORD)
        };
        assert!(!format!("{:?}", source()).contains("canary"));
        back_up(source()).await.unwrap();
        let text = format!(
            "sentinel = {{ master = 'cache', nodes = ['redis://{address}'] }}\npassword = '{PASSWORD}'"
        );
        back_up(from_toml(&text)).await.unwrap();
        let unknown = Redis::from_sentinel("other", &nodes).unwrap();
        let error = back_up(unknown).await.err().unwrap();
        assert!(
            error.chain().contains("knows no master `other`"),
            "{error:?}"
        );
        let lost = Redis::from_sentinel("cache", [nobody]).unwrap();
        let error = back_up(lost).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");

        // A sentinel may be late: who is a replica by now is not taken for the master.
        let other = it.start(&[]);
        master.ask(&["CONFIG", "SET", "masterauth", PASSWORD]);
        master.ask(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
        let error = back_up(source()).await.err().unwrap();
        assert!(
            error.chain().contains("named as master, and is none"),
            "{error:?}"
        );
    }
}

/// Three nodes with all slots, and two keys in each hundred.
async fn cluster(it: &support::Programs) -> Vec<Server> {
    let nodes: Vec<Server> = (0..3)
        .map(|_| it.start(&["cluster-enabled yes", "cluster-node-timeout 2000"]))
        .collect();
    let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (node, (first, last)) in nodes.iter().zip(ranges) {
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
    }
    for node in &nodes[1..] {
        nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string()]);
    }
    eventually("the cluster is one", async || {
        let ready = |node: &Server| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        nodes.iter().all(ready)
    })
    .await;
    for n in 0..300 {
        let key = format!("key {n}");
        let set = |node: &Server| node.try_ask(&["SET", &key, "value"]).unwrap() == "+OK";
        assert!(nodes.iter().any(set));
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_backed_up_shard_by_shard() {
    for it in Kind::all() {
        let nodes = cluster(&it).await;
        let one = back_up(nodes[1].source()).await.err().unwrap();
        assert_eq!(one.kind(), ErrorKind::Refused, "{one:?}");
        assert!(one.chain().contains("cluster = true"), "{one:?}");

        let backup = back_up(nodes[1].source().cluster(true)).await.unwrap();
        let found = backup.0.find(backup.1.as_str()).await.unwrap();
        let parts: BTreeSet<_> = found
            .manifest
            .parts
            .iter()
            .map(|part| part.name.as_str())
            .collect();
        let expected = ["shard-1.rdb", "shard-2.rdb", "shard-3.rdb", "topology.json"];
        assert_eq!(parts, BTreeSet::from(expected));
        assert_eq!(found.manifest.facts.get("entries"), Some(&300.into()));
        let shards = found
            .manifest
            .facts
            .get("shards")
            .and_then(Value::as_array)
            .unwrap();
        assert_eq!(shards[1]["slots"], serde_json::json!([[5461, 10922]]));

        // Each shard comes back as a file for a node, or into a server of its own.
        let alone = it.start(&[]);
        let error = restore(&backup, &alone.target()).await.unwrap_err();
        assert!(error.chain().contains("which `part`"), "{error:?}");
        restore(&backup, &alone.target().part("shard-2.rdb"))
            .await
            .unwrap();
        assert_eq!(alone.keys(), nodes[1].keys());
        let error = restore(&backup, &nodes[0].target().part("shard-1.rdb"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        let mut restored = 0;
        for (part, node) in expected.iter().zip(&nodes) {
            let mut fresh = it.start(&["cluster-enabled yes"]);
            fresh.kill();
            fs::remove_file(fresh.folder.path().join("nodes.conf")).unwrap();
            restore(&backup, &RdbFile::new(fresh.dump()).part(*part))
                .await
                .unwrap();
            fresh.run();
            assert_eq!(fresh.keys(), node.keys(), "{part}");
            restored += fresh.keys();
        }
        assert_eq!(restored, 300);

        // A slot on its way, as either side knows it.
        let slot = |node: usize, state: &[&str]| {
            nodes[node].ask(&[&["CLUSTER", "SETSLOT", "100"], state].concat());
        };
        let ids = [&nodes[0], &nodes[1]].map(|node| node.ask(&["CLUSTER", "MYID"]));
        for (node, state, other) in [(0, "MIGRATING", &ids[1]), (1, "IMPORTING", &ids[0])] {
            slot(node, &[state, other]);
            let source = nodes[2].source().cluster(true);
            let error = back_up(source).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(
                error.chain().contains("slot 100 is on its way"),
                "{error:?}"
            );
            assert!(error.chain().contains("--cluster fix"), "{error:?}");
            slot(node, &["STABLE"]);
            back_up(nodes[2].source().cluster(true)).await.unwrap();
        }

        nodes[0].ask(&["CLUSTER", "DELSLOTSRANGE", "100", "200"]);
        let error = back_up(nodes[0].source().cluster(true))
            .await
            .err()
            .unwrap();
        assert!(error.chain().contains("has slot 100"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_s_own_checker_agrees() {
    let Some(it) = Kind::Redis.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    server.seed();
    let (job, id) = back_up(server.source()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = job.fetch(&id, folder.path(), true, None).await.unwrap();
    let checker = it.cli.with_file_name("redis-check-rdb");
    let said = run(&checker, &[files[0].to_str().unwrap()]);
    assert!(said.contains("RDB looks OK"), "{said}");
    assert!(said.contains("4086 keys read"), "{said}");
}
