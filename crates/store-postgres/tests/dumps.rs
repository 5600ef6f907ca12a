//! Dumps that were made elsewhere: taken in whole, and restored with care.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{
    Error, ErrorKind, Facts, Id, Job, MemorySink, Pipeline, RestoreRequest, Result, RunOptions,
};
use store_postgres::PostgresDump;
use support::jobs::{failure, script};
use support::{Database, SCHEMA, Server, assert_same};

/// Dumps of one database in a folder, one of each form.
struct Dumps {
    from: Database,
    folder: tempfile::TempDir,
}

impl Dumps {
    fn of(server: &Server) -> Self {
        let from = server.database("foreign");
        from.psql(SCHEMA);
        let dumps = Self {
            from,
            folder: tempfile::tempdir().unwrap(),
        };
        dumps.dump("custom.dump", &["--format=custom"]);
        dumps.dump("tar.dump", &["--format=tar"]);
        dumps.dump("plain.sql", &["--no-owner"]);
        dumps.dump("created.dump", &["--format=custom", "--create"]);
        dumps.dump("created.sql", &["--create"]);
        dumps.shell("gzip -k plain.sql; zstd -q plain.sql; gzip -k custom.dump");
        dumps
    }

    fn dump(&self, name: &str, options: &[&str]) {
        let url = self.from.server.url(&self.from.name);
        let file = self.file(name).display().to_string();
        let arguments = [options, &["-f", &file, "-d", &url]].concat();
        self.from.server.try_run("pg_dump", &arguments).unwrap();
    }

    fn shell(&self, script: &str) {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).current_dir(self.folder.path());
        assert!(shell.status().unwrap().success());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

struct Taken {
    job: Job,
    id: Id,
}

impl Taken {
    async fn of(server: &Server, file: &Path) -> Result<Self> {
        let job = Job::builder("job")
            .source(PostgresDump::new(file).bin(&server.bin))
            .pipeline(Pipeline::unencrypted())
            .sink("memory", MemorySink::new())
            .build()?;
        let id = job.run(RunOptions::default()).await?.id;
        Ok(Self { job, id })
    }

    async fn facts(&self) -> Facts {
        let found = self.job.find(self.id.as_str()).await.unwrap();
        found.manifest.facts.clone()
    }

    async fn restore(&self, target: &store_postgres::PostgresDatabase) -> Result<()> {
        let request = RestoreRequest::default();
        self.job.restore(&self.id, target, request).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_any_form_comes_back_equal() {
    for server in Server::all() {
        let dumps = Dumps::of(&server);
        let before = dumps.from.fingerprint().unwrap();
        for name in ["custom.dump", "plain.sql", "plain.sql.gz", "plain.sql.zst"] {
            let taken = Taken::of(&server, &dumps.file(name)).await.unwrap();
            let facts = taken.facts().await;
            let to = server.name("taken");
            let target = to.target();
            if name.contains("sql") {
                let refused = taken.restore(&target).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
                assert!(refused.chain().contains("--trust-sql"), "{refused:?}");
                assert_eq!(to.fingerprint(), None, "nothing was begun");
            } else {
                assert_eq!(facts.get("database").unwrap(), dumps.from.name.as_str());
            }
            taken.restore(&target.trust_sql(true)).await.unwrap();
            let what = format!("PostgreSQL {}, {name}", server.major);
            assert_same(&before, &to.fingerprint().unwrap(), &what);
            assert_eq!(to.leftovers(), [""; 0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_creates_a_database_goes_where_it_is_told_or_nowhere() {
    for server in Server::all() {
        let dumps = Dumps::of(&server);
        let before = dumps.from.fingerprint().unwrap();
        let (archive, plain) = (server.name("archive"), server.name("plain"));
        let taken = Taken::of(&server, &dumps.file("created.dump")).await;
        taken.unwrap().restore(&archive.target()).await.unwrap();
        assert_same(&before, &archive.fingerprint().unwrap(), "created.dump");
        let taken = Taken::of(&server, &dumps.file("created.sql"))
            .await
            .unwrap();
        let creates = taken.facts().await.get("creates_database").cloned();
        assert_eq!(creates, Some(true.into()));
        let target = plain.target().trust_sql(true);
        let refused = taken.restore(&target).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
        assert_eq!(plain.fingerprint(), None, "nothing was begun");
        assert_eq!(dumps.from.fingerprint().unwrap(), before, "untouched");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_cut_off_or_no_dump_is_no_backup() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let dumps = Dumps::of(&server);
    let mut cut = 0;
    for name in ["custom.dump", "plain.sql", "plain.sql.gz", "plain.sql.zst"] {
        let whole = fs::read(dumps.file(name)).unwrap();
        for share in [1, 30, 60, 90, 99] {
            let file = dumps.file("cut");
            fs::write(&file, &whole[..whole.len() * share / 100]).unwrap();
            let error = Taken::of(&server, &file)
                .await
                .map(|taken| taken.id)
                .unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Source,
                "{name} at {share} %: {error:?}"
            );
            assert!(error.chain().contains("cut"), "it is named: {error:?}");
            cut += 1;
        }
    }
    assert_eq!(cut, 20);
    let no_dump = dumps.file("notes.txt");
    fs::write(&no_dump, "select 1;\n").unwrap();
    let failure = async |file: &Path| -> Error {
        Taken::of(&server, file)
            .await
            .map(|taken| taken.id)
            .unwrap_err()
    };
    assert_eq!(failure(&no_dump).await.kind(), ErrorKind::Source);
    let twice = failure(&dumps.file("custom.dump.gz")).await;
    assert_eq!(twice.kind(), ErrorKind::Unsupported, "{twice:?}");
    let tar = failure(&dumps.file("tar.dump")).await;
    assert_eq!(tar.kind(), ErrorKind::Unsupported, "{tar:?}");
    let missing = failure(&dumps.file("missing")).await;
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
}

/// It is read twice, once to check it and once to store it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_changes_while_it_is_read_is_no_backup() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let dumps = Dumps::of(&server);
    let file = dumps.file("changing.dump");
    let folder = tempfile::tempdir().unwrap();
    let real = server.bin.join("pg_restore").display().to_string();
    for change in [
        "cp created.dump new; mv new changing.dump",
        "cat custom.dump >> changing.dump",
        "touch -d yesterday changing.dump",
        "rm changing.dump",
    ] {
        let text = format!(
            "#!/bin/sh\n{real} \"$@\" || exit\ncd {}\ncase $1 in --list) {change} ;; esac\n",
            dumps.folder.path().display()
        );
        script(folder.path(), "pg_restore", &text);
        fs::copy(dumps.file("custom.dump"), &file).unwrap();
        let changing = PostgresDump::new(&file).bin(folder.path());
        let error = failure(changing).await;
        assert_eq!(error.kind(), ErrorKind::Source, "{error:?}");
        let said = error.chain();
        assert!(
            said.contains("changed while it was read"),
            "{change}: {said}"
        );
    }
}

/// `psql` goes on after an error unless it is told, and says that all was well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_sql_that_fails_half_way_leaves_nothing() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.sql");
    let end = "-- PostgreSQL database dump complete\n";
    let statements = "create table t (a int);\nselect nonsense;\ncreate table u (a int);\n";
    fs::write(&file, format!("{statements}{end}")).unwrap();
    let taken = Taken::of(&server, &file).await.unwrap();
    let to = server.name("bad");
    let target = to.target().trust_sql(true);
    let error = taken.restore(&target).await.unwrap_err();
    assert!(error.chain().contains("nonsense"), "{error:?}");
    assert_eq!(to.fingerprint(), None);
    assert_eq!(to.leftovers(), [""; 0]);
    for target in [target.clone().in_place(true), target.tables(["t"])] {
        let refused = taken.restore(&target).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
    }
}
