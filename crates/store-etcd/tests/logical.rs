//! Keys that go back into a cluster that runs.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use backup_core::{
    ErrorKind, Id, Job, MemorySink, Pipeline, RestoreRequest, Result, RunOptions, Target,
};
use store_etcd::{Conflict, EtcdServer, Leases};
use support::{Kind, PASSWORD, Programs, Server};

/// A backup, and an empty server of the same version.
struct Backup {
    job: Job,
    id: Id,
    to: Server,
}

impl Backup {
    async fn of(it: &Programs, from: &Server) -> Self {
        let job = Job::builder("job")
            .source(from.source())
            .sink("memory", MemorySink::new())
            .pipeline(Pipeline::unencrypted())
            .build()
            .unwrap();
        let id = job.run(RunOptions::default()).await.unwrap().id;
        Self {
            job,
            id,
            to: it.start(&[]),
        }
    }

    fn target(&self) -> EtcdServer {
        EtcdServer::from_url(self.to.endpoint()).unwrap()
    }

    async fn restore(&self, target: &EtcdServer) -> Result<()> {
        let restored = self
            .job
            .restore(&self.id, target, RestoreRequest::default());
        restored.await.map(drop)
    }

    async fn replace(&self, target: &EtcdServer) -> Result<()> {
        let request = RestoreRequest::default().overwrite(target.to_string());
        self.job.restore(&self.id, target, request).await.map(drop)
    }

    fn get(&self, key: &str) -> String {
        let said = self.to.ask(&["get", key, "--print-value-only"]);
        said.trim_end().to_owned()
    }
}

fn put(server: &Server, keys: &[(&str, &str)]) {
    for (key, value) in keys {
        server.ask(&["put", key, value]);
    }
}

/// Compacted or not, with keys that were made again and keys that are gone, inline or in many pages.
#[tokio::test]
async fn each_key_comes_back_as_it_was_last() {
    for it in Kind::all() {
        for megabytes in [0, 2] {
            let server = it.start(&[]);
            put(&server, &[("a", "1"), ("b", "1"), ("c", "1"), ("a", "2")]);
            server.ask(&["del", "b"]);
            server.ask(&["del", "c"]);
            put(&server, &[("c", "2")]);
            server.fill(megabytes);
            // History below a prefix that is rewritten often.
            for n in 0..30 {
                put(&server, &[("often", &n.to_string())]);
            }
            server.ask(&[
                "compact",
                &(server.revision() - 7).to_string(),
                "--physical",
            ]);
            let backup = Backup::of(&it, &server).await;
            backup.restore(&backup.target()).await.unwrap();
            assert_eq!(backup.to.contents(), server.contents(), "{it:?}");
            assert_eq!(backup.get("often"), "29");
            assert_eq!(backup.get("b"), "");
        }
    }
}

#[tokio::test]
async fn a_prefix_brings_back_its_keys_and_touches_no_other() {
    for it in Kind::all() {
        let server = it.start(&[]);
        put(
            &server,
            &[
                ("/app/a", "1"),
                ("/app/b", "2"),
                ("/apple", "3"),
                ("/z", "4"),
            ],
        );
        let backup = Backup::of(&it, &server).await;
        put(&backup.to, &[("/z", "mine"), ("/apple", "mine")]);
        let target = backup.target().prefix("/app/");
        backup.restore(&target).await.unwrap();
        assert_eq!(
            (backup.get("/app/a"), backup.get("/app/b")),
            ("1".into(), "2".into())
        );
        assert_eq!(
            (backup.get("/apple"), backup.get("/z")),
            ("mine".into(), "mine".into())
        );
        // What is there below the prefix goes, for who agrees; what is beside it stays.
        put(&backup.to, &[("/app/a", "newer"), ("/app/new", "newer")]);
        let error = backup.restore(&target).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(error.chain().contains("3 keys"), "{error:?}");
        backup.replace(&target).await.unwrap();
        assert_eq!(
            (backup.get("/app/a"), backup.get("/app/new")),
            ("1".into(), String::new())
        );
        assert_eq!(backup.get("/z"), "mine");
    }
}

#[tokio::test]
async fn a_conflict_ends_as_it_is_wanted() {
    for it in Kind::all() {
        let server = it.start(&[]);
        put(&server, &[("a", "old"), ("b", "old")]);
        let backup = Backup::of(&it, &server).await;
        put(&backup.to, &[("a", "new"), ("c", "new")]);
        let values = || ["a", "b", "c"].map(|key| backup.get(key));

        backup.restore(&backup.target()).await.unwrap_err();
        let overwrite = backup.target().conflict(Conflict::Overwrite);
        backup.restore(&overwrite).await.unwrap_err();
        assert_eq!(values(), ["new", "", "new"]);

        backup
            .restore(&backup.target().conflict(Conflict::Skip))
            .await
            .unwrap();
        assert_eq!(values(), ["new", "old", "new"]);
        backup.replace(&overwrite).await.unwrap();
        assert_eq!(values(), ["old", "old", "new"]);
        backup.replace(&backup.target()).await.unwrap();
        assert_eq!(values(), ["old", "old", ""]);
    }
}

#[tokio::test]
async fn a_lease_is_granted_anew_or_dropped() {
    for it in Kind::all() {
        let server = it.start(&[]);
        let lease = server.ask(&["lease", "grant", "500"]);
        let lease = lease.split_whitespace().nth(1).unwrap();
        for key in ["a", "b"] {
            server.ask(&["put", key, "x", "--lease", lease]);
        }
        put(&server, &[("c", "x")]);
        let backup = Backup::of(&it, &server).await;
        backup.restore(&backup.target()).await.unwrap();
        assert_eq!(backup.to.contents(), server.contents());
        let granted = backup.to.ask(&["lease", "list"]);
        let granted: Vec<_> = granted.lines().skip(1).collect();
        assert_eq!(granted.len(), 1, "{granted:?}");
        let left = backup
            .to
            .ask(&["lease", "timetolive", granted[0], "--keys"]);
        assert!(left.contains("granted with TTL(500s)"), "{left}");
        let both = ["[a b]", "[b a]"].iter().any(|keys| left.contains(keys));
        assert!(both, "{left}");

        backup
            .replace(&backup.target().leases(Leases::Drop))
            .await
            .unwrap();
        assert!(!backup.to.contents().contains("true"));
        assert_eq!(backup.to.contents().lines().count(), 3);
    }
}

#[tokio::test]
async fn keys_of_kubernetes_are_put_only_for_who_says_so() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    put(
        &server,
        &[("/registry/pods/default/web", "x"), ("/app", "y")],
    );
    let backup = Backup::of(&it, &server).await;
    let error = backup.restore(&backup.target()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.chain().contains("Kubernetes"), "{error:?}");
    assert_eq!(backup.to.contents(), "");
    backup
        .restore(&backup.target().prefix("/app"))
        .await
        .unwrap();
    assert_eq!(backup.to.contents().lines().count(), 1);
    let asked = backup.target().conflict(Conflict::Skip).kubernetes(true);
    backup.restore(&asked).await.unwrap();
    assert_eq!(backup.to.contents(), server.contents());
}

#[tokio::test]
async fn a_user_without_the_right_to_write_there_is_told() {
    let Some(it) = Kind::Etcd.at_hand() else {
        return;
    };
    let server = it.start(&[]);
    put(&server, &[("/app/a", "x"), ("/other", "y")]);
    let backup = Backup::of(&it, &server).await;
    for words in [
        &["user", "add", &format!("root:{PASSWORD}")][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "app"],
        &[
            "role",
            "grant-permission",
            "app",
            "--prefix=true",
            "readwrite",
            "/app/",
        ],
        &["user", "add", &format!("app:{PASSWORD}")],
        &["user", "grant-role", "app", "app"],
    ] {
        backup.to.ask(words);
    }
    backup.to.ask(&["auth", "enable"]);
    let target = backup.target().user("app", PASSWORD);
    let error = target.occupancy().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!error.chain().contains("canary"), "{error:?}");
    backup.restore(&target.prefix("/app/")).await.unwrap();
    let root = format!("root:{PASSWORD}");
    let said = backup
        .to
        .ask(&["get", "", "--prefix", "--keys-only", "--user", &root]);
    assert_eq!(said.trim(), "/app/a");
}
