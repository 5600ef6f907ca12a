//! Real databases, there and back, and everything that goes wrong with them.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use backup_core::{ErrorKind, MemorySink, Occupancy, RestoreRequest, RunOptions, Target};
use support::jobs::{failure, job, there_and_back};
use support::{Database, SCHEMA, Server, assert_same};

/// A database with one of everything.
fn seeded(server: &Server) -> Database {
    let database = server.database("seeded");
    database.psql(SCHEMA);
    database
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_destroyed_comes_back_equal() {
    for server in Server::all() {
        let database = seeded(&server);
        let before = database.fingerprint().unwrap();
        assert!(before.contains("Größe; drop") && before.contains("4711"));
        let xml = server.major == 15; // the others are built without libxml
        assert_eq!(before.contains("<ü a=\"1\">&lt;"), xml);
        for shards in [1, 3] {
            let (sink, source) = (MemorySink::new(), database.source().shards(shards));
            let job = job(source, &sink);
            let id = job.run(RunOptions::default()).await.unwrap().id;
            let manifest = job.find(id.as_str()).await.unwrap().manifest.clone();
            let large_objects = manifest.part(store_postgres::LARGE_OBJECTS);
            assert_eq!(large_objects.is_some(), shards > 1, "a part of their own");
            database.destroy();
            assert_eq!(database.fingerprint(), None, "it was destroyed");
            let target = database.target();
            job.restore(&id, &target, RestoreRequest::default())
                .await
                .unwrap();
            let after = database.fingerprint().unwrap();
            let what = format!("PostgreSQL {} in {shards} parts", server.major);
            assert_same(&before, &after, &what);
            assert_eq!(database.leftovers(), [""; 0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_tell_what_was_backed_up() {
    for server in Server::all() {
        let database = seeded(&server);
        let (sink, source) = (MemorySink::new(), database.source());
        let job = job(source, &sink);
        let id = job.run(RunOptions::default()).await.unwrap().id;
        let facts = job.find(id.as_str()).await.unwrap().manifest.facts.clone();
        let text = |name: &str| facts.get(name).unwrap().as_str().unwrap().to_owned();
        assert!(text("server_version").starts_with(&server.major.to_string()));
        assert!(text("client_version").starts_with(&server.major.to_string()));
        assert_eq!(text("database"), database.name);
        let system = "select system_identifier from pg_control_system()";
        assert_eq!(text("system_id"), database.psql(system).trim());
        assert!(text("lsn").contains('/'));
        assert_eq!(facts.get("role_passwords").unwrap(), true);
        assert!(facts.get("size").unwrap().as_i64().unwrap() > 8_000_000);
        let rows = facts.get("rows").unwrap();
        assert_eq!(rows["shop.everything"], 3001);
        assert_eq!(
            rows["shop.secrets"], 2,
            "also where row security hides some"
        );
        assert_eq!(rows["shop.parent"], 1, "without the child's");
        assert_eq!(rows["\"Größe; drop\".\"Ünï \"\"quoted\"\" name $1\""], 500);
        assert_eq!(
            rows.get("shop.measures"),
            None,
            "its partitions have the rows"
        );
        assert_eq!(facts.get("rows_estimated").unwrap(), &serde_json::json!({}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_too_long_to_count_is_estimated_and_said_to_be() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let (from, to) = (server.database("uncounted"), server.name("estimated"));
    from.psql(
        "create table small as select 1 as a;
        create table large as select generate_series(1, 3000000) a; analyze",
    );
    for (milliseconds, exact) in [(0, 0), (40, 1)] {
        let source = from
            .source()
            .count_for(std::time::Duration::from_millis(milliseconds));
        let sink = MemorySink::new();
        let job = job(source, &sink);
        let id = job.run(RunOptions::default()).await.unwrap().id;
        let facts = job.find(id.as_str()).await.unwrap().manifest.facts.clone();
        assert_eq!(facts.get("rows").unwrap().as_object().unwrap().len(), exact);
        assert_eq!(
            facts.get("rows_estimated").unwrap()["public.large"],
            3_000_000
        );
        let request = RestoreRequest::default().overwrite(to.target().to_string());
        job.restore(&id, &to.target(), request).await.unwrap();
        assert_eq!(to.psql("select count(*) from large").trim(), "3000000");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_use_is_replaced_with_its_own_settings() {
    for server in Server::all() {
        let (from, to) = (seeded(&server), server.database("inuse"));
        let role = format!("owner_{}", to.name);
        to.psql(&format!(
            "create role {role}; create table old (a int); alter database {0} owner to {role};
            alter database {0} set search_path = \"a, b\", c; alter role {role} in database {0} set work_mem = '77MB';
            revoke all on database {0} from public; grant connect on database {0} to {role}",
            to.name
        ));
        let settings = || {
            server.psql("postgres", &format!(
                "select pg_get_userbyid(datdba), (select array_agg(setconfig order by setrole) from pg_db_role_setting
                where setdatabase = d.oid), (select array_agg(a::text order by a::text) from aclexplode(datacl) a)
                from pg_database d where datname = '{}'", to.name))
        };
        let before = settings();
        assert!(
            before.contains("77MB") && before.contains(&role),
            "{before}"
        );
        let url = server.url(&to.name);
        let mut user = std::process::Command::new(server.bin.join("psql"))
            .args(["-X", "-d", &url, "-c", "select 'connected', pg_sleep(600)"])
            .env("PGPASSWORD", server.password())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let connected = format!(
            "select count(*) from pg_stat_activity where datname = '{}' and query ~ 'pg_sleep'",
            to.name
        );
        while server.psql("postgres", &connected).trim() != "1" {
            tokio::task::yield_now().await;
        }
        let sink = MemorySink::new();
        let (job, target) = (job(from.source(), &sink), to.target());
        let id = job.run(RunOptions::default()).await.unwrap().id;
        match target.occupancy().await.unwrap() {
            Occupancy::Holds(what) => assert!(what.starts_with("1 table, "), "{what}"),
            Occupancy::Empty => panic!("a table is not nothing"),
        }
        let refused = job.restore(&id, &target, RestoreRequest::default()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
        assert!(user.try_wait().unwrap().is_none(), "nobody was disturbed");
        let request = RestoreRequest::default().overwrite(target.to_string());
        job.restore(&id, &target, request).await.unwrap();
        assert!(!user.wait().unwrap().success(), "the user was disconnected");
        assert_same(
            &from.fingerprint().unwrap(),
            &to.fingerprint().unwrap(),
            "in use",
        );
        assert_eq!(settings(), before);
        assert_eq!(to.leftovers(), [""; 0]);
        to.destroy();
        server.psql("postgres", &format!("drop role {role}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_no_superuser_backs_up_without_passwords() {
    for server in Server::all() {
        let database = server.database("plainrole");
        let role = format!("reader_{}", database.name);
        database.psql(&format!(
            "create table t as select generate_series(1, 10) a; create role {role} login password 'canary-word'"
        ));
        let source = || {
            let url = server
                .url(&database.name)
                .replace("postgres@", &format!("{role}@"));
            let source = store_postgres::Postgres::from_url(url).unwrap();
            source.bin(&server.bin).password("canary-word")
        };
        let error = failure(source()).await;
        assert!(
            error.chain().contains("permission denied for table t"),
            "{error:?}"
        );
        assert_eq!(error.kind(), ErrorKind::Denied);
        database.psql(&format!("grant pg_read_all_data to {role}"));
        let sink = MemorySink::new();
        let job = job(source(), &sink);
        let id = job.run(RunOptions::default()).await.unwrap().id;
        let facts = job.find(id.as_str()).await.unwrap().manifest.facts.clone();
        assert_eq!(facts.get("role_passwords").unwrap(), false);
        assert_eq!(facts.get("rows").unwrap()["public.t"], 10);
        let target = server.name("plainback");
        job.restore(&id, &target.target(), RestoreRequest::default())
            .await
            .unwrap();
        assert_eq!(target.psql("select count(*) from t").trim(), "10");
        database.destroy();
        server.psql("postgres", &format!("drop role {role}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_a_clear_failure() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let database = server.database("clear");
    let error = failure(database.source().password("canary")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.chain().contains("password") && !error.chain().contains("canary"));
    let error = failure(server.source("no_such_database")).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.chain().contains("no_such_database"));
    let nobody = store_postgres::Postgres::from_url("postgres://u@127.0.0.1:1/d").unwrap();
    assert_eq!(failure(nobody).await.kind(), ErrorKind::Unavailable);
    let url = server.url_with_password(&database.name);
    for words in ["sslmode=require", "sslmode=verify-full&sslrootcert=system"] {
        // The server has no TLS: nobody goes on without it.
        let source = store_postgres::Postgres::from_url(format!("{url}?{words}")).unwrap();
        let error = failure(source).await;
        assert!(
            error.chain().contains("server does not support TLS"),
            "{error:?}"
        );
    }
    let error = failure(database.source().bin("/no/such/folder")).await;
    assert!(
        error.chain().contains("say where they are with `bin`"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_pg_dump_is_refused_before_it_dumps() {
    let (Some(old), Some(new)) = (Server::at_hand(15), Server::at_hand(18)) else {
        return;
    };
    let error = failure(new.source("postgres").bin(&old.bin)).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.chain().contains("is older than the server, 18"),
        "{error:?}"
    );
    // A newer one will do.
    let (from, to) = (old.database("older"), new.name("newer"));
    from.psql("create table t as select generate_series(1, 10) a");
    there_and_back(from.source().bin(&new.bin), &to.target())
        .await
        .unwrap();
    assert_eq!(to.psql("select count(*) from t").trim(), "10");
}

/// Behind a prefix the programs get no address: the server is at home there. Here the prefix
/// brings one, as a container would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_run_behind_a_prefix() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let (from, to) = (server.database("inside"), server.name("outside"));
    from.psql("create table t as select generate_series(1, 10) a");
    let (host, port) = server.place.split_once(':').unwrap();
    let prefix = [
        "env".to_owned(),
        format!("PGHOST={host}"),
        format!("PGPORT={port}"),
    ];
    let target = to.target().prefix(prefix.clone());
    there_and_back(from.source().prefix(prefix), &target)
        .await
        .unwrap();
    assert_eq!(to.psql("select count(*) from t").trim(), "10");
    let nowhere = from
        .source()
        .prefix(["env", "PGHOST=127.0.0.1", "PGPORT=1"]);
    assert_eq!(failure(nowhere).await.kind(), ErrorKind::Source);
}
