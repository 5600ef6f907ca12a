//! The servers that the tests talk to.

#![allow(dead_code, reason = "each test file uses its share")]

pub(crate) mod cluster;
pub(crate) mod jobs;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::testing::service;
use store_postgres::{Postgres, PostgresDatabase};

pub(crate) const SCHEMA: &str = include_str!("schema.sql");

/// The major versions that everything is tested with.
pub(crate) const MAJORS: [u32; 3] = [15, 16, 18];

/// A running server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) major: u32,
    /// `user:password`
    login: String,
    /// `host:port`
    pub(crate) place: String,
    pub(crate) bin: PathBuf,
}

impl Server {
    /// The server of this major version that `scripts/services` runs.
    pub(crate) fn at_hand(major: u32) -> Option<Self> {
        let url = service(&format!("LIFEBELT_PG{major}_URL"))?;
        let (_, rest) = url.split_once("://").unwrap();
        let (login, place) = rest.split_once('@').unwrap();
        let (place, _) = place.split_once('/').unwrap();
        let bin = std::env::var_os(format!("LIFEBELT_PG{major}_BIN"));
        Some(Self {
            major,
            login: login.to_owned(),
            place: place.to_owned(),
            bin: bin.expect("LIFEBELT_PG.._BIN stands beside the URL").into(),
        })
    }

    /// A server of the test's own.
    pub(crate) fn at(major: u32, login: String, place: String, bin: &Path) -> Self {
        let bin = bin.to_owned();
        Self {
            major,
            login,
            place,
            bin,
        }
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        MAJORS.into_iter().filter_map(Self::at_hand)
    }

    pub(crate) fn password(&self) -> &str {
        self.login.split_once(':').unwrap().1
    }

    /// Without the password.
    pub(crate) fn url(&self, database: &str) -> String {
        let user = self.login.split_once(':').unwrap().0;
        format!("postgres://{user}@{}/{database}", self.place)
    }

    pub(crate) fn url_with_password(&self, database: &str) -> String {
        format!("postgres://{}@{}/{database}", self.login, self.place)
    }

    pub(crate) fn source(&self, database: &str) -> Postgres {
        let source = Postgres::from_url(self.url_with_password(database)).unwrap();
        source.bin(&self.bin)
    }

    pub(crate) fn target(&self, database: &str) -> PostgresDatabase {
        let target = PostgresDatabase::from_url(self.url_with_password(database)).unwrap();
        target.bin(&self.bin)
    }

    /// Runs a program of PostgreSQL; the error is what it said.
    pub(crate) fn try_run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(self.bin.join(program))
            .args(arguments)
            .env("PGPASSWORD", self.password())
            .env_remove("PGHOSTADDR")
            .env_remove("PGSERVICE")
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub(crate) fn psql(&self, database: &str, statements: &str) -> String {
        let url = self.url(database);
        let quiet = [
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &url,
            "-c",
        ];
        let said = self.try_run("psql", &[&quiet[..], &[statements]].concat());
        said.unwrap_or_else(|said| panic!("{statements:.200}: {said}"))
    }

    /// A name that nobody else uses; the database is dropped with what is returned.
    pub(crate) fn name(&self, what: &str) -> Database {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Database {
            name: format!("{what}_{}_{count}", std::process::id()),
            server: self.clone(),
        }
    }

    /// A new database.
    pub(crate) fn database(&self, what: &str) -> Database {
        let database = self.name(what);
        self.psql("postgres", &format!("create database {}", database.name));
        database
    }
}

/// Panics with the first lines that differ.
pub(crate) fn assert_same(before: &str, after: &str, what: &str) {
    let mut lines = before.lines().zip(after.lines());
    if let Some((a, b)) = lines.find(|(a, b)| a != b) {
        panic!("{what}: not restored as it was:\n- {a:.300}\n+ {b:.300}");
    }
    assert!(before.len() == after.len(), "{what}: one is longer");
}

/// A database that goes away with the test.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) server: Server,
}

impl Database {
    pub(crate) fn psql(&self, statements: &str) -> String {
        self.server.psql(&self.name, statements)
    }

    pub(crate) fn source(&self) -> Postgres {
        self.server.source(&self.name)
    }

    pub(crate) fn target(&self) -> PostgresDatabase {
        self.server.target(&self.name)
    }

    pub(crate) fn destroy(&self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        self.server.psql("postgres", &statement);
    }

    /// Everything in it: as SQL, but for the lines that differ from dump to dump, and a digest of
    /// every table's rows. `None`: there is no such database.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let url = self.server.url(&self.name);
        let dump = ["--no-owner", "--no-privileges", "-d", &url];
        let dump = match self.server.try_run("pg_dump", &dump) {
            Err(said) if said.contains("does not exist") => return None,
            dump => dump.unwrap(),
        };
        let varies = ["\\restrict", "\\unrestrict", "-- Dumped "];
        let same = |line: &&str| !varies.iter().any(|start| line.starts_with(start));
        let mut text: String = dump
            .lines()
            .filter(same)
            .map(|line| format!("{line}\n"))
            .collect();
        let digests = self.psql(
            "select string_agg(format('select %L, count(*), md5(string_agg(t::text, chr(10)
                order by t::text collate \"C\")) from only %I.%I t', n.nspname || '.' || c.relname, n.nspname, c.relname),
                ' union all ') || ' order by 1'
            from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'm')
                and c.relispopulated and n.nspname !~ '^(pg_|information_schema)'",
        );
        text.push_str(&self.psql(&digests));
        Some(text)
    }

    /// Databases that restores into this one have left behind, and connections of ours.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let own = &self.name;
        let said = self.server.psql(
            "postgres",
            &format!(
                "select datname from pg_database where datname ~ '^{own}_re(storing|placed)_'
                union all select datname || ' ' || application_name || ' ' || query from pg_stat_activity
                where datname ~ '^{own}' and backend_type = 'client backend' and pid <> pg_backend_pid()"
            ),
        );
        said.lines().map(str::to_owned).collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.destroy();
        }
    }
}
