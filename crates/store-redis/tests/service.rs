//! What only real servers can show.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::time::Duration;

use backup_core::{
    ErrorKind, Id, Job, MemorySink, Pipeline, RestoreRequest, Result, RunOptions, Source, Target,
};
use serde_json::{Value, json};
use store_redis::{Check, RdbFile, Redis, RedisServer};
use support::{Kind, PASSWORD, Server};

fn job(source: impl Source, sink: &MemorySink) -> Job {
    let job = Job::builder("job")
        .source(source)
        .sink("memory", sink.clone());
    job.pipeline(Pipeline::unencrypted()).build().unwrap()
}

struct Backup {
    job: Job,
    id: Id,
}

impl Backup {
    async fn of(source: impl Source) -> Self {
        Self::try_of(source).await.unwrap()
    }

    async fn try_of(source: impl Source) -> Result<Self> {
        let job = job(source, &MemorySink::new());
        let id = job.run(RunOptions::default()).await?.id;
        Ok(Self { job, id })
    }

    async fn restore(&self, target: &dyn Target) -> Result<()> {
        let request = RestoreRequest::default();
        self.job.restore(&self.id, target, request).await.map(drop)
    }

    async fn replace(&self, target: &dyn Target) -> Result<()> {
        let request = RestoreRequest::default().overwrite(target.to_string());
        self.job.restore(&self.id, target, request).await.map(drop)
    }

    async fn fact(&self, name: &str) -> Value {
        let found = self.job.find(self.id.as_str()).await.unwrap();
        found.manifest.facts.get(name).cloned().unwrap_or_default()
    }

    async fn parts(&self) -> Vec<String> {
        let found = self.job.find(self.id.as_str()).await.unwrap();
        found
            .manifest
            .parts
            .iter()
            .map(|part| part.name.clone())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_back_however_it_is_sent_and_loaded() {
    for it in Kind::all() {
        let (from, to) = it.pair();
        let before = from.fingerprint();
        for diskless in ["yes", "no"] {
            from.ask(&["CONFIG", "SET", "repl-diskless-sync", diskless]);
            let backup = Backup::of(from.source()).await;
            for load in ["disabled", "on-empty-db", "swapdb"] {
                to.ask(&["CONFIG", "SET", "repl-diskless-load", load]);
                to.wipe();
                backup.restore(&to.target()).await.unwrap();
                let how = format!("{:?}, {diskless}, {load}", it.kind);
                assert_eq!(to.fingerprint(), before, "{how}");
                assert_eq!(to.leftovers(), [""; 0], "{how}");
                to.ask(&["SET", "written", "after"]);
            }
            // What was there is gone.
            backup.replace(&to.target()).await.unwrap();
            assert_eq!(to.fingerprint(), before);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_say_what_was_backed_up() {
    for it in Kind::all() {
        let server = it.start(&[]);
        server.seed();
        let backup = Backup::of(server.source()).await;
        let (magic, version, name) = match it.kind {
            Kind::Redis => ("REDIS", 10, "redis"),
            Kind::Redis8 => ("REDIS", 12, "redis"),
            Kind::Valkey => ("VALKEY", 80, "valkey"),
        };
        let more = if it.kind == Kind::Redis { 0 } else { 2 };
        let keys = json!({ "0": 4033 + more, "1": 2, "9": 50, "15": 1 });
        let facts = [
            ("magic", json!(magic)),
            ("rdb_version", json!(version)),
            ("server", json!(name)),
            ("keys", keys),
            ("expires", json!(52)),
            ("functions", json!(2)),
            ("crc", json!("checked")),
            ("structure", json!("checked")),
            ("system_id", json!(server.info("run_id"))),
        ];
        for (fact, expected) in facts {
            assert_eq!(backup.fact(fact).await, expected, "{fact} of {:?}", it.kind);
        }
        for fact in ["offset", "server_version", "bytes", "created"] {
            assert!(!backup.fact(fact).await.is_null(), "{fact}");
        }
        // Who knows this id is taken for the server when one is restored; a manifest is in the clear.
        let found = backup.job.find(backup.id.as_str()).await.unwrap();
        let told = serde_json::to_string(&*found.manifest).unwrap();
        assert!(!told.contains(&server.info("master_replid")), "{told}");
    }
}

/// A copied dump.rdb is not read with `appendonly yes`: the server came up empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_what_a_server_starts_from() {
    for it in Kind::all() {
        let (from, mut to) = it.pair();
        let before = from.fingerprint();
        let backup = Backup::of(from.source()).await;
        to.kill();
        let file = || RdbFile::new(to.dump());
        backup.restore(&file()).await.unwrap();
        let error = backup.restore(&file()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "it is there: {error:?}");
        backup.replace(&file()).await.unwrap();
        to.run();
        assert_eq!(to.fingerprint(), before);

        // The one that it has is replaced, whatever it is set to later.
        let mut append = it.start(&["appendonly yes"]);
        append.ask(&["SET", "old", "value"]);
        append.stop();
        assert!(append.folder.path().join("appendonlydir").exists());
        let file = RdbFile::new(append.dump());
        let error = backup.restore(&file).await.unwrap_err();
        assert!(
            error.chain().contains("holds an append-only file"),
            "{error:?}"
        );
        backup.replace(&file).await.unwrap();
        append.run();
        assert_eq!(append.fingerprint(), before, "with the one that it had");
        append.ask(&["SET", "new", "value"]);
        append.kill();
        append.run();
        assert_eq!(
            append.ask(&["GET", "new"]),
            "value",
            "it goes on from there"
        );

        // And one is made for a server that has none.
        let mut fresh = it.start(&["appendonly yes"]);
        fresh.kill();
        fs::remove_dir_all(fresh.folder.path().join("appendonlydir")).unwrap();
        let file = RdbFile::new(fresh.dump()).append_only(true);
        backup.restore(&file).await.unwrap();
        fresh.run();
        assert_eq!(fresh.fingerprint(), before, "with a new one");
    }
}

/// Redis saves when it is told to stop, over what was put there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_not_put_under_a_server_that_runs() {
    for it in Kind::all() {
        let (from, mut to) = it.pair();
        let backup = Backup::of(from.source()).await;
        let file = RdbFile::new(to.dump());
        let error = backup.restore(&file).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(
            error.chain().contains(&format!("(process {})", to.pid())),
            "{error:?}"
        );
        assert!(!to.dump().exists());
        to.stop();
        fs::write(to.folder.path().join("appendonly.aof"), "").unwrap();
        let error = backup.restore(&file).await.unwrap_err();
        assert!(error.chain().contains("appendonly.aof"), "{error:?}");
        fs::remove_file(to.folder.path().join("appendonly.aof")).unwrap();
        backup.restore(&file).await.unwrap();
    }
}

/// `Ok` means that a crash of the server takes nothing back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_restored_outlives_the_server() {
    for it in Kind::all() {
        let from = it.start(&[]);
        from.seed();
        let before = from.fingerprint();
        let backup = Backup::of(from.source()).await;
        for settings in [
            ["appendonly yes", "repl-diskless-load disabled"],
            ["appendonly yes", "repl-diskless-load swapdb"],
            ["save 3600 1", "repl-diskless-load disabled"],
            ["save 3600 1", "repl-diskless-load swapdb"],
        ] {
            let mut to = it.start(&settings);
            backup.restore(&to.target()).await.unwrap();
            to.kill();
            to.run();
            assert_eq!(to.fingerprint(), before, "{settings:?} of {:?}", it.kind);
        }
    }
}

/// A snapshot for a replica is called a save in progress too, and is kept nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_restored_is_saved_while_a_replica_is_served() {
    for it in Kind::all() {
        let from = it.start(&[]);
        from.fill(300);
        let backup = Backup::of(from.source()).await;
        // A key takes five milliseconds to write down, and what is loaded is put into no file.
        let mut to = it.start(&[
            "save 3600 1",
            "rdb-key-save-delay 5000",
            "repl-diskless-load swapdb",
        ]);
        let replica = it.start(&[
            &format!("replicaof 127.0.0.1 {}", to.port),
            &format!("masterauth \"{PASSWORD}\""),
        ]);
        let up = async || replica.info("master_link_status") == "up";
        backup_core::testing::eventually("there is a replica", up).await;
        // It comes again while the server is compared, and its turn is next.
        backup.restore(&to.target()).await.unwrap();
        to.kill();
        to.run();
        assert_eq!(to.keys(), 300, "{:?}", it.kind);
    }
}

/// A replica heeds no `maxmemory`: what was restored would be thrown away once it is a primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_no_room_is_a_clear_failure() {
    for it in Kind::all() {
        let from = it.start(&[]);
        from.fill(8_000);
        let backup = Backup::of(from.source()).await;
        let to = it.start(&["maxmemory 6mb", "maxmemory-policy allkeys-lru"]);
        let error = backup.restore(&to.target()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(error.chain().contains("raise maxmemory"), "{error:?}");
        assert!(error.chain().contains("takes writes again"), "{error:?}");
        to.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        backup.replace(&to.target()).await.unwrap();
        assert_eq!(to.keys(), 8_000);
        to.ask(&["CONFIG", "SET", "maxmemory", "100mb"]);
        to.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        backup.replace(&to.target()).await.unwrap();
        assert_eq!(to.keys(), 8_000);
    }
}

/// Every Redis 8 has the module of the vectors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_module_wrote_comes_back_where_it_is() {
    let Some(it) = Kind::Redis8.at_hand() else {
        return;
    };
    let (from, to) = (it.start(&[]), it.start(&[]));
    from.ask(&["VADD", "vectors", "VALUES", "2", "1", "2", "element"]);
    let backup = Backup::of(from.source()).await;
    assert_eq!(backup.fact("modules").await, json!(["vectorset"]));
    backup.restore(&to.target()).await.unwrap();
    assert_eq!(to.ask(&["VCARD", "vectors"]), ":1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_load_it_is_not_touched() {
    let servers: Vec<_> = Kind::all().collect();
    for from in &servers {
        let source = from.start(&[]);
        source.ask(&["SET", "key", "value"]);
        let backup = Backup::of(source.source()).await;
        for into in &servers {
            let target = into.start(&[]);
            target.ask(&["SET", "mine", "untouched"]);
            let history = target.info("master_replid");
            let outcome = backup.replace(&target.target()).await;
            let loads = from.kind == into.kind || from.kind == Kind::Redis;
            assert_eq!(
                outcome.is_ok(),
                loads,
                "{:?} into {:?}: {outcome:?}",
                from.kind,
                into.kind
            );
            if let Err(error) = outcome {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
                assert!(
                    error.chain().contains("restore into a newer server"),
                    "{error:?}"
                );
                assert_eq!(target.ask(&["GET", "mine"]), "untouched");
                assert_eq!(target.info("master_replid"), history);
            } else {
                assert_eq!(target.ask(&["GET", "key"]), "value");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_must_not_be_a_replica_is_not_touched() {
    let Some(it) = Kind::Redis.at_hand() else {
        return;
    };
    let from = it.start(&["databases 32"]);
    from.feed("SELECT 20\nSET key value\n");
    let backup = Backup::of(from.source()).await;
    let small = it.start(&[]);
    let primary = it.start(&["databases 32"]);
    let replica = it.start(&[
        "databases 32",
        &format!("replicaof 127.0.0.1 {}", primary.port),
        &format!("masterauth \"{PASSWORD}\""),
    ]);
    let node = it.start(&["cluster-enabled yes"]);
    for (server, why) in [
        (&small, "has too few databases"),
        (&replica, "is a replica"),
        (&node, "is a node of a cluster"),
    ] {
        let error = backup.restore(&server.target()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(error.chain().contains(why), "{error:?}");
    }
    assert_eq!(replica.info("master_port"), primary.port.to_string());
    backup.restore(&primary.target()).await.unwrap();
    let follows = async || replica.keys() == 1;
    backup_core::testing::eventually("its replica follows", follows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_file_is_backed_up_unless_it_is_old() {
    for it in Kind::all() {
        let (from, to) = it.pair();
        from.ask(&["SAVE"]);
        let file = || Redis::from_file(from.dump());
        let backup = Backup::of(file().max_age(Duration::from_secs(3600))).await;
        backup.restore(&to.target()).await.unwrap();
        assert_eq!(to.fingerprint(), from.fingerprint());
        assert_eq!(
            backup.fact("server").await,
            if it.kind == Kind::Valkey {
                "valkey"
            } else {
                "redis"
            }
        );
        std::thread::sleep(Duration::from_secs(2));
        let old = Backup::try_of(file().max_age(Duration::ZERO)).await;
        let error = old.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_makes_no_checksums_is_refused_unless_allowed() {
    for it in Kind::all() {
        let from = it.start(&["rdbchecksum no"]);
        from.ask(&["SET", "key", "value"]);
        let error = Backup::try_of(from.source()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        let backup = Backup::of(from.source().allow_unchecked(true)).await;
        assert_eq!(backup.fact("crc").await, "disabled");
        let to = it.start(&[]);
        backup.restore(&to.target()).await.unwrap();
        assert_eq!(to.ask(&["GET", "key"]), "value");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_are_named_suffice_and_others_are_asked_for() {
    for it in Kind::all() {
        let (from, to) = it.pair();
        let users = [
            ("least", "+psync +replconf +ping"),
            ("backup", "+psync +replconf +ping +info"),
            ("lacks", "+replconf +ping +info"),
        ];
        for (user, rights) in users {
            let words = ["ACL", "SETUSER", user, "on", ">pw canary", "resetkeys"];
            let rights: Vec<&str> = rights.split(' ').collect();
            from.ask(&[&words[..], &rights].concat());
        }
        let source = |user: &str, password: &str| {
            let source = Redis::from_url(from.url()).unwrap();
            source.user(user).password(password)
        };
        let backup = Backup::of(source("backup", "pw canary")).await;
        let least = Backup::of(source("least", "pw canary")).await;
        assert_eq!(
            least.fact("server_version").await,
            backup.fact("server_version").await
        );
        let none = Redis::from_url(from.url()).unwrap();
        for denied in [
            source("lacks", "pw canary"),
            source("backup", "wrong canary"),
            none,
        ] {
            let error = Backup::try_of(denied).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            assert!(!error.chain().contains("canary"), "{error:?}");
        }
        let rights = "+replicaof +info +config|get +select +function|dump +module|list +bgsave \
            +psync +replconf +ping";
        let words = ["ACL", "SETUSER", "admin", "on", ">pw canary", "resetkeys"];
        to.ask(&[&words[..], &rights.split(' ').collect::<Vec<_>>()].concat());
        let admin = RedisServer::from_url(to.url()).unwrap().user("admin");
        let admin = admin.password("pw canary");
        to.ask(&["ACL", "SETUSER", "admin", "-function|dump"]);
        let error = backup.restore(&admin).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(error.chain().contains("needs +function|dump"), "{error:?}");
        to.ask(&["ACL", "SETUSER", "admin", "+function|dump"]);
        backup.restore(&admin).await.unwrap();
        assert_eq!(to.fingerprint(), from.fingerprint());
    }
}

/// Somebody else may find the port on which the backup waits for its server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_server_gets_the_backup() {
    let Some(it) = Kind::Redis.at_hand() else {
        return;
    };
    let (from, to) = it.pair();
    let backup = Backup::of(from.source()).await;
    let port = support::free_port();
    let stranger = it.start(&[&format!("replicaof 127.0.0.1 {port}"), "repl-timeout 60"]);
    // It tries once a second, and comes first; the server to restore finds a late port.
    let target = to.target().listen(([127, 0, 0, 1], port).into());
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        backup.restore(&target).await
    };
    late.await.unwrap();
    assert_eq!(to.fingerprint(), from.fingerprint());
    assert_eq!(stranger.keys(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_enough_for_who_says_so() {
    let Some(it) = Kind::Redis.at_hand() else {
        return;
    };
    let (from, to) = it.pair();
    let backup = Backup::of(from.source()).await;
    let snapshots = |server: &Server| server.info("sync_full");
    backup
        .restore(&to.target().check(Check::Counts))
        .await
        .unwrap();
    assert_eq!(snapshots(&to), "0");
    backup.replace(&to.target()).await.unwrap();
    assert_eq!(snapshots(&to), "1", "one to compare with");
    assert_eq!(to.fingerprint(), from.fingerprint());
    assert_eq!(backup.parts().await, ["dump.rdb"]);
}
