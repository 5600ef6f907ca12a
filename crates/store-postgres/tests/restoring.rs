//! Restores that want something in particular, and restores that go wrong.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use backup_core::{
    ErrorKind, MemorySink, RestoreOptions, RestoreRequest, RunOptions, Target, free_space,
};
use support::Server;
use support::cluster::Cluster;
use support::jobs::{back_up, job, script, there_and_back};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_and_in_parts() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let (from, to) = (server.database("placed"), server.database("place"));
    from.psql(
        "create schema shop; create table shop.parent (a int primary key);
        create table shop.child (a int references shop.parent);
        create table shop.bulk as select generate_series(1, 60000) n",
    );
    to.psql("create table mine as select 1 as a");
    let sink = MemorySink::new();
    let job = job(from.source(), &sink);
    let id = job.run(RunOptions::default()).await.unwrap().id;
    let target = to.target().in_place(true);
    assert!(!target.publishes_atomically());
    for round in 0..2 {
        let request = RestoreRequest::default().overwrite(target.to_string());
        job.restore(&id, &target, request).await.unwrap();
        assert_eq!(to.psql("select a from mine").trim(), "1", "round {round}");
        to.psql("delete from shop.bulk; drop table shop.child");
    }
    let part = server.name("part");
    let target = part.target().schemas(["shop"]).tables(["bulk", "parent"]);
    job.restore(&id, &target, RestoreRequest::default())
        .await
        .unwrap();
    assert_eq!(part.psql("select count(*) from shop.bulk").trim(), "60000");
    let others = "select count(*) from pg_tables where schemaname = 'shop'";
    assert_eq!(part.psql(others).trim(), "2");
    let request = RestoreRequest::default().overwrite(target.to_string());
    let refused = job.restore(&id, &target, request).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_and_privileges_come_back_for_who_asks() {
    for server in Server::all() {
        let (from, to) = (server.database("owned"), server.name("owner"));
        let (owner, reader) = (
            format!("{}_owner", from.name),
            format!("{}_reader", from.name),
        );
        from.psql(&format!(
            "create role {owner}; create role {reader}; create table t (a int);
            alter table t owner to {owner}; grant select on t to {reader};
            create table bulk as select generate_series(1, 10) a"
        ));
        let rights = |database: &support::Database| {
            database.psql("select tableowner, (select relacl::text from pg_class where relname = 't') from pg_tables where tablename = 't'")
        };
        let before = rights(&from);
        assert!(
            before.contains(&owner) && before.contains(&reader),
            "{before}"
        );
        for shards in [1, 2] {
            let sink = MemorySink::new();
            let source = from.source().shards(shards);
            let id = back_up(source, &sink).await.unwrap();
            let job = job(from.source(), &sink);
            let mut options = RestoreOptions::default();
            for with_owners in [false, true] {
                options
                    .extra
                    .insert("with_owners".into(), with_owners.into());
                let request = RestoreRequest::default().options(options.clone());
                job.restore(&id, &to.target(), request).await.unwrap();
                match with_owners {
                    true => assert_eq!(rights(&to), before),
                    false => assert_eq!(rights(&to).trim(), "postgres|"),
                }
                to.destroy();
            }
            let to = server.name("setter");
            let target = to.target().with_owners(true);
            job.restore(&id, &target, RestoreRequest::default())
                .await
                .unwrap();
            assert_eq!(rights(&to), before);
        }
        from.destroy();
        server.psql(
            "postgres",
            &format!("drop role {owner}; drop role {reader}"),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_beside_us_tells_its_room() {
    for server in Server::all() {
        let room = server
            .target("postgres")
            .free_space()
            .await
            .unwrap()
            .unwrap();
        let folder = server.psql("postgres", "show data_directory");
        let here = free_space(folder.trim().as_ref()).unwrap();
        assert!(room.abs_diff(here) < 1 << 30, "{room} and {here} bytes");
        // Who may not know where the data is cannot tell, and restores all the same.
        let name = server.name("roomless").name.clone();
        server.psql(
            "postgres",
            &format!("create role {name} login createdb password 'secret'"),
        );
        let url = server
            .url("postgres")
            .replace("postgres@", &format!("{name}@"));
        let target = store_postgres::PostgresDatabase::from_url(url).unwrap();
        let target = target.password("secret").bin(&server.bin);
        assert_eq!(target.free_space().await.unwrap(), None);
        server.psql("postgres", &format!("drop role {name}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_says_what_is_left_to_do() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let (from, to) = (server.database("cut"), server.name("over"));
    from.psql("create table t as select 1 as a");
    let sink = MemorySink::new();
    let job = job(from.source(), &sink);
    let id = job.run(RunOptions::default()).await.unwrap().id;
    let target = to.target();
    let request = RestoreRequest::default().overwrite(target.to_string());
    let new = job.restore(&id, &target, request.clone()).await.unwrap();
    let replaced = job.restore(&id, &target, request).await.unwrap();
    for steps in [&new.next_steps, &replaced.next_steps] {
        assert!(steps[0].contains(&target.to_string()), "{steps:?}");
        assert!(!steps.concat().contains(server.password()));
    }
    assert!(new.next_steps[2].contains("cut over"));
    assert!(!replaced.next_steps[2].contains("cut over"));
}

/// The database of a restore that failed stayed behind where the program ended at once.
#[test]
fn a_failed_restore_has_cleaned_up_when_it_returns() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (from, to) = (server.database("fine"), server.name("failed"));
    from.psql("create table t as select generate_series(1, 10) a");
    let folder = tempfile::tempdir().unwrap();
    let real = server.bin.join("pg_restore");
    let text = format!(
        "#!/bin/sh\n{} \"$@\"\ncase $1 in --version) exit 0; esac\necho broke >&2; exit 1\n",
        real.display()
    );
    script(folder.path(), "pg_restore", &text);
    let target = to.target().bin(folder.path());
    let error = runtime
        .block_on(there_and_back(from.source(), &target))
        .unwrap_err();
    drop(runtime);
    assert!(error.chain().contains("broke"), "{error:?}");
    assert_eq!(to.leftovers(), [""; 0]);
    assert_eq!(to.fingerprint(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_get_the_password_in_their_environment_and_nowhere_else() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let (from, to) = (server.database("secretive"), server.name("secret"));
    from.psql("create table t as select 1 as a");
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    for name in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let real = server.bin.join(name);
        let text = format!(
            "#!/bin/sh\necho \"{name} $*\" >> {0}; echo \"password: $PGPASSWORD\" >> {0}\nexec {1} \"$@\"\n",
            seen.display(),
            real.display()
        );
        script(folder.path(), name, &text);
    }
    let target = to.target().bin(folder.path());
    there_and_back(from.source().bin(folder.path()).shards(2), &target)
        .await
        .unwrap();
    let seen = std::fs::read_to_string(seen).unwrap();
    let (environment, arguments): (Vec<&str>, Vec<&str>) = seen
        .lines()
        .partition(|line| line.starts_with("password: "));
    assert!(arguments.len() > 8, "{arguments:?}");
    for line in arguments {
        assert!(!line.contains(server.password()), "{line}");
    }
    // Who is only asked for its version needs none.
    let given = format!("password: {}", server.password());
    assert!(
        environment
            .iter()
            .all(|line| *line == "password: " || *line == given)
    );
    assert!(environment.contains(&&*given) && environment.contains(&"password: "));
}

/// What somebody put into the database while it was being restored beside it would have been
/// dropped with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_into_an_empty_database_meanwhile_is_not_replaced() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let (from, to) = (server.database("late"), server.database("latecomer"));
    from.psql("create table t as select generate_series(1, 10) a");
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "#!/bin/sh\ncase $1 in --version) ;; *) {}/psql -X -q -d {} -c 'create table precious ()' ;; esac\nexec {}/pg_restore \"$@\"\n",
        server.bin.display(),
        server.url(&to.name),
        server.bin.display()
    );
    script(folder.path(), "pg_restore", &text);
    let target = to.target().bin(folder.path());
    let error = there_and_back(from.source(), &target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.chain().contains("now holds 1 table"), "{error:?}");
    assert_eq!(to.psql("select count(*) from precious").trim(), "0");
    assert_eq!(to.leftovers(), [""; 0]);
}

/// `pg_restore` does not wait for the end of an archive once it has what it was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_large_backup_is_all_that_was_asked_for() {
    for server in Server::all() {
        let (from, to) = (server.database("large"), server.name("chosen"));
        from.psql(
            "create table early as select 1 as a; create schema shop; create table shop.first (a int);
            insert into shop.first values (1), (2);
            create table zlate as select n, repeat(md5(n::text), 10) from generate_series(1, 60000) n;
            create index on early (a)",
        );
        let in_place = server.database("kept");
        for shards in [1, 3] {
            let (sink, source) = (MemorySink::new(), from.source().shards(shards));
            let job = job(source, &sink);
            let id = job.run(RunOptions::default()).await.unwrap().id;
            let restore = async |target: &store_postgres::PostgresDatabase| {
                let request = RestoreRequest::default().overwrite(target.to_string());
                job.restore(&id, target, request).await.map(drop)
            };
            let new = async |target| {
                let restored = job.restore(&id, &target, RestoreRequest::default());
                restored.await.map(drop)
            };
            new(to.target().tables(["early"])).await.unwrap();
            assert_eq!(to.psql("select a from early").trim(), "1");
            let tables = "select count(*) from pg_tables where schemaname in ('public', 'shop')";
            assert_eq!(to.psql(tables).trim(), "1");
            to.destroy();
            new(to.target().schemas(["shop"])).await.unwrap();
            assert_eq!(to.psql("select count(*) from shop.first").trim(), "2");
            to.destroy();
            for (target, what) in [
                (to.target().tables(["early", "erly"]), "table `erly`"),
                (to.target().schemas(["shop", "shp"]), "schema `shp`"),
                (
                    to.target().schemas(["shop"]).tables(["early"]),
                    "table `early`",
                ),
            ] {
                let error = new(target).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
                assert!(error.chain().contains(what), "{error:?}");
                assert_eq!(to.fingerprint(), None);
                assert_eq!(to.leftovers(), [""; 0]);
            }
            if shards == 1 {
                let target = in_place.target().in_place(true);
                restore(&target.clone().tables(["early"])).await.unwrap();
                assert_eq!(in_place.psql("select a from early").trim(), "1");
                let error = restore(&target.schemas(["shp"])).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
                let made = "select count(*) from pg_namespace where nspname = 'shp'";
                assert_eq!(in_place.psql(made).trim(), "0", "nothing was begun");
            }
        }
    }
}

/// It is the one from which others are made and renamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_postgres_is_replaced_as_any_other() {
    let Some(like) = Server::at_hand(15) else {
        return;
    };
    let cluster = Cluster::start(&like, &[], |_| ());
    let server = &cluster.server;
    let from = server.database("from");
    from.psql("create table t as select generate_series(1, 10) a");
    let target = server.target("postgres");
    there_and_back(from.source(), &target).await.unwrap();
    let count = "select count(*) from t";
    assert_eq!(server.psql("postgres", count).trim(), "10");
    let left = "select count(*) from pg_database where datname ~ '_re(storing|placed)_'";
    assert_eq!(server.psql("postgres", left).trim(), "0");
}

/// An address beside the host, or a service, would send the programs to another server than our
/// own connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_variable_leads_a_program_to_another_server() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let (from, to) = (server.database("led"), server.name("astray"));
    from.psql("create table t as select generate_series(1, 10) a");
    let elsewhere = "export PGHOSTADDR=127.0.0.9";
    let folder = tempfile::tempdir().unwrap();
    for (name, lead) in [
        ("pg_dump", elsewhere),
        ("pg_restore", elsewhere),
        // It passes on nothing that is empty: the variable must not come to it.
        ("pg_dumpall", ""),
    ] {
        let real = server.bin.join(name);
        let text = format!("#!/bin/sh\n{lead}\nexec {} \"$@\"\n", real.display());
        script(folder.path(), name, &text);
    }
    let target = to.target().bin(folder.path());
    there_and_back(from.source().bin(folder.path()), &target)
        .await
        .unwrap();
    assert_eq!(to.psql("select count(*) from t").trim(), "10");
    // The same for all of them, with variables of this process: another test under them.
    let services = folder.path().join("services");
    std::fs::write(&services, "[elsewhere]\nhostaddr=127.0.0.9\n").unwrap();
    for (name, value) in [("PGHOSTADDR", "127.0.0.9"), ("PGSERVICE", "elsewhere")] {
        let test = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_restore_says_what_is_left_to_do"])
            .env("PGSERVICEFILE", &services)
            .env(name, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&test.stdout);
        assert!(said.contains("1 passed"), "{name}: {said}");
    }
}
