//! Backups that are cut off, and databases that change meanwhile.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use backup_core::{ErrorKind, MemorySink};
use support::cluster::Cluster;
use support::jobs::{back_up, restore, script};
use support::{Database, SCHEMA, Server};

/// A folder of programs in which `pg_dump` is a script; `$REAL` is the real one.
fn with_script(server: &Server, commands: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let real = |name: &str| server.bin.join(name).display().to_string();
    let dump = format!(
        "#!/bin/bash\nset -o pipefail\nREAL={0}\nPSQL={1}\nHERE={2}\ncase $1 in --version) exec $REAL --version; esac\n{commands}\n",
        real("pg_dump"),
        real("psql"),
        folder.path().display()
    );
    let all = format!("#!/bin/sh\nexec {} \"$@\"\n", real("pg_dumpall"));
    script(folder.path(), "pg_dump", &dump);
    script(folder.path(), "pg_dumpall", &all);
    folder
}

async fn appears(file: &Path) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(text) = fs::read_to_string(file)
            && text.ends_with('\n')
        {
            return text.trim().to_owned();
        }
        assert!(Instant::now() < deadline, "{} never came", file.display());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pg_dump_that_is_killed_at_any_moment_makes_no_backup() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let database = server.database("killed");
    database.psql(SCHEMA);
    let script = "rm -f $HERE/pid; echo $$ > $HERE/new; mv $HERE/new $HERE/pid; exec $REAL \"$@\"";
    let mut killed = 0;
    for moment in 0..50u64 {
        let folder = with_script(&server, script);
        let source = database.source().bin(folder.path());
        let sink = MemorySink::new();
        let running = tokio::spawn(async move { back_up(source, &sink).await });
        let pid = appears(&folder.path().join("pid")).await;
        std::thread::sleep(Duration::from_millis(moment * 8));
        // It may have ended by itself: then the backup is whole.
        let kill = Command::new("kill").args(["-KILL", &pid]).output().unwrap();
        match running.await.unwrap() {
            Ok(_) => {}
            Err(error) => {
                assert!(kill.status.success());
                assert_eq!(error.kind(), ErrorKind::Source, "{error:?}");
                assert!(
                    error.chain().contains("was killed by signal 9"),
                    "{error:?}"
                );
                killed += 1;
            }
        }
    }
    assert!(killed >= 20, "only {killed} of 50 were killed in time");
    back_up(database.source(), &MemorySink::new())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_ends_make_no_backup() {
    for server in Server::all() {
        let database = server.database("ended");
        database.psql(SCHEMA);
        let script = format!(
            "$REAL \"$@\" | {{ head -c 1000000; $PSQL -X -q -d {} -c \"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}' and pid <> pg_backend_pid()\" > $HERE/ended; cat; }}",
            server.url("postgres"),
            database.name
        );
        let folder = with_script(&server, &script);
        let sink = MemorySink::new();
        let error = back_up(database.source().bin(folder.path()), &sink)
            .await
            .unwrap_err();
        let ended = fs::read_to_string(folder.path().join("ended")).unwrap();
        assert!(ended.contains('t'), "nobody was there to be ended: {ended}");
        assert_ne!(error.kind(), ErrorKind::Sink, "{error:?}");
        back_up(database.source(), &sink).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_midway_makes_no_backup() {
    for like in Server::all() {
        let cluster = Cluster::start(&like, &[], |_| ());
        let database = cluster.server.database("crashed");
        database.psql(SCHEMA);
        let stop = cluster.stop_command().join(" ");
        let commands =
            format!("$REAL \"$@\" | {{ head -c 1000000; {stop}; echo $? >> $HERE/stopped; cat; }}");
        let folder = with_script(&cluster.server, &commands);
        for shards in [1, 3] {
            let source = database.source().bin(folder.path()).shards(shards);
            let sink = MemorySink::new();
            let error = back_up(source, &sink).await.unwrap_err();
            let stopped = fs::read_to_string(folder.path().join("stopped")).unwrap();
            assert!(stopped.contains('0'), "the server was stopped: {stopped}");
            fs::remove_file(folder.path().join("stopped")).unwrap();
            assert!(!error.chain().contains('\n'), "one line: {error:?}");
            cluster.start_again();
            back_up(database.source(), &sink).await.unwrap();
        }
    }
}

/// A snapshot does not hide that a table was truncated after it was taken: the dump would have
/// an empty table and be called complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_empties_a_table_between_the_snapshot_and_the_dump() {
    for server in Server::all() {
        for shards in [1, 2] {
            let (from, to) = (server.database("truncated"), server.name("whole"));
            from.psql("create table t as select generate_series(1, 1000) a");
            let script = format!(
                "$PSQL -X -q -d {} -c \"set lock_timeout = '300ms'\" -c 'truncate t' 2>> $HERE/said; exec $REAL \"$@\"",
                server.url(&from.name)
            );
            let folder = with_script(&server, &script);
            let sink = MemorySink::new();
            let source = from.source().bin(folder.path()).shards(shards);
            let id = back_up(source, &sink).await.unwrap();
            let said = fs::read_to_string(folder.path().join("said")).unwrap();
            assert!(
                said.contains("lock timeout"),
                "it was not even tried: {said}"
            );
            restore(&sink, &id, &to.target()).await.unwrap();
            assert_eq!(to.psql("select count(*) from t").trim(), "1000");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_is_changing_is_a_clear_failure() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let database = server.database("changing");
    database.psql("create table t (a int)");
    let url = server.url(&database.name);
    let mut changing = Command::new(server.bin.join("psql"))
        .args([
            "-X",
            "-q",
            "-d",
            &url,
            "-c",
            "begin; alter table t add b int; select pg_sleep(600)",
        ])
        .env("PGPASSWORD", server.password())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    while database.psql(sleeping).trim() != "1" {
        tokio::task::yield_now().await;
    }
    let source = || database.source().lock_timeout(Duration::from_millis(300));
    let error = back_up(source(), &MemorySink::new()).await.unwrap_err();
    assert!(
        error
            .chain()
            .contains("canceling statement due to lock timeout"),
        "{error:?}"
    );
    changing.kill().unwrap();
    changing.wait().unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    database.psql(end);
    back_up(source(), &MemorySink::new()).await.unwrap();
}

/// `pgbench` changes four tables in each transaction by the same amount.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_motion_comes_back_as_one_moment() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let from = server.database("bench");
    let url = server.url(&from.name);
    server
        .try_run("pgbench", &["-i", "-q", "-s", "3", &url])
        .unwrap();
    let mut bench = Command::new(server.bin.join("pgbench"))
        .args(["-c", "4", "-T", "60", &url])
        .env("PGPASSWORD", server.password())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let sums = |database: &Database| {
        database.psql(
            "select (select coalesce(sum(abalance), 0) from pgbench_accounts), (select coalesce(sum(tbalance), 0) from pgbench_tellers),
            (select coalesce(sum(bbalance), 0) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)",
        )
    };
    while from
        .psql("select count(*) from pgbench_history")
        .trim()
        .parse::<u64>()
        .unwrap()
        < 100
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for shards in [1, 4, 2] {
        let (sink, to) = (MemorySink::new(), server.name("still"));
        let id = back_up(from.source().shards(shards), &sink).await.unwrap();
        assert!(bench.try_wait().unwrap().is_none(), "it moved all the time");
        restore(&sink, &id, &to.target()).await.unwrap();
        let sums = sums(&to);
        let (first, rest) = sums.trim().split_once('|').unwrap();
        assert!(
            rest.split('|').all(|sum| sum == first),
            "{shards} shards: {sums}"
        );
        assert!(
            to.psql("select count(*) from pgbench_history")
                .trim()
                .parse::<u64>()
                .unwrap()
                >= 100
        );
    }
    bench.kill().unwrap();
    bench.wait().unwrap();
}
