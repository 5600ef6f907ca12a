//! A real database through `pg_dump`, back with and without us.

use std::path::PathBuf;
use std::process::Command;

use backup_core::testing::service;
use backup_core::{RestoreRequest, RunOptions};
use lifebelt_tests::{Keys, job};
use store_command::CommandTarget;

use super::Found;

const SCHEMA: &str = r#"
do $$ begin
    if exists (select from pg_available_extensions where name = 'pgcrypto') then
        create extension pgcrypto;
    end if;
end $$;
create schema shop;
create type shop.state as enum ('new', 'paid', 'sent');
create table shop.orders (
    id bigint generated always as identity primary key,
    state shop.state not null default 'new',
    total numeric(12, 2) check (total >= 0),
    note text, raw bytea, tags text[], body jsonb,
    placed timestamptz not null
);
insert into shop.orders (state, total, note, raw, tags, body, placed)
select (array['new', 'paid', 'sent'])[1 + n % 3]::shop.state, n * 1.37,
    case when n % 7 = 0 then null else E'line\nü \\ "' || n end,
    decode(md5(n::text), 'hex'), array['a' || n, null], jsonb_build_object('n', n),
    timestamptz '2026-11-21 02:00:00+00' + n * interval '1 minute'
from generate_series(1, 20000) n;
create index on shop.orders (placed) where state <> 'sent';
create table shop."Odd ""name""" ("Ünï" int references shop.orders (id) on delete cascade);
insert into shop."Odd ""name""" select n from generate_series(1, 100) n;
create view shop.open as select * from shop.orders where state = 'new';
create materialized view shop.sums as select state, sum(total) from shop.orders group by state;
create function shop.touch() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger touch before update on shop.orders for each row execute function shop.touch();
create sequence shop.numbers start 1000 increment 7;
select nextval('shop.numbers'), lo_from_bytea(4711, '\xdeadbeef');
"#;

struct Server {
    /// Without a password, which is in the environment of every program instead.
    url: String,
    password: String,
    bin: PathBuf,
}

impl Server {
    fn at_hand(major: u32) -> Option<Self> {
        let url = service(&format!("LIFEBELT_PG{major}_URL"))?;
        let (scheme, rest) = url.split_once("://").unwrap();
        let (login, place) = rest.split_once('@').unwrap();
        let (user, password) = login.split_once(':').unwrap();
        let (host, _) = place.split_once('/').unwrap();
        let bin = std::env::var_os(format!("LIFEBELT_PG{major}_BIN"));
        Some(Self {
            url: format!("{scheme}://{user}@{host}"),
            password: password.to_owned(),
            bin: bin
                .expect("LIFEBELT_PG15_BIN stands beside LIFEBELT_PG15_URL")
                .into(),
        })
    }

    fn program(&self, name: &str) -> String {
        self.bin.join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(self.program(program))
            .args(arguments)
            .env("PGPASSWORD", &self.password)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn psql(&self, database: &str, statements: &str) -> String {
        let url = format!("{}/{database}", self.url);
        let quiet = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"];
        self.run("psql", &[&quiet[..], &[&url, "-c", statements]].concat())
    }

    fn database(&self, name: &str) -> Database<'_> {
        let name = format!("lifebelt_{name}_{}", std::process::id());
        self.psql("postgres", &format!("drop database if exists {name}"));
        self.psql("postgres", &format!("create database {name}"));
        Database { server: self, name }
    }
}

struct Database<'a> {
    server: &'a Server,
    name: String,
}

impl Database<'_> {
    fn url(&self) -> String {
        format!("{}/{}", self.server.url, self.name)
    }

    /// Everything in it as SQL, but for the lines that differ from dump to dump.
    fn dump(&self) -> String {
        let text = self.server.run("pg_dump", &["-d", &self.url()]);
        let lines = text.lines();
        let random =
            |line: &&str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict");
        lines
            .filter(|line| !random(line))
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        let statement = format!("drop database {} with (force)", self.name);
        self.server.psql("postgres", &statement);
    }
}

#[tokio::test]
async fn a_database_comes_back_with_and_without_us() {
    let Some(server) = Server::at_hand(15) else {
        return;
    };
    let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
    let shop = server.database("shop");
    server.psql(&shop.name, SCHEMA);
    let restore = [
        "pg_restore",
        "--exit-on-error",
        "--no-owner",
        "-d",
        "$TARGET",
    ];
    let source =
        store_command::Command::new([&server.program("pg_dump"), "-Fc", "-Z0", "-d", &shop.url()])
            .env("PGPASSWORD", &server.password)
            .part("shop.dump")
            .magic("PGDMP")
            .restore(restore);
    let make = || job("shop", &keys, work.path()).source(source.clone());
    let before = shop.dump();
    assert!(before.contains("line\\nü") && before.contains("lo_create('4711')"));

    let without_us = server.database("without_us");
    let found = Found::of(make(), &keys, work.path()).await;
    found.link_tools(std::slice::from_ref(&server.bin));
    let found = found
        .set("PGPASSWORD", &server.password)
        .set("TARGET", without_us.url());
    found.restores();
    assert!(without_us.dump() == before, "restored by RESTORE.md");
    // Into what is not empty it must not say that all went well.
    assert!(found.restored().is_err());

    let with_us = server.database("with_us");
    let job = make().build().unwrap();
    let id = job.run(RunOptions::default()).await.unwrap().id;
    let mut argv = restore.map(str::to_owned);
    argv[0] = server.program("pg_restore");
    argv[4] = with_us.url();
    let target = CommandTarget::new(argv).env("PGPASSWORD", &server.password);
    let request = RestoreRequest::default().overwrite(target.to_string());
    job.restore(&id, &target, request).await.unwrap();
    assert!(with_us.dump() == before, "restored by the library");
}

#[tokio::test]
async fn dumps_of_every_version_come_back_by_their_instructions() {
    for server in [15, 16, 18].into_iter().filter_map(Server::at_hand) {
        let shop = server.database("dumped");
        server.psql(&shop.name, SCHEMA);
        let before = shop.dump();
        for shards in [1, 3] {
            let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
            let source = store_postgres::Postgres::from_url(shop.url()).unwrap();
            let source = source
                .password(&server.password)
                .bin(&server.bin)
                .shards(shards);
            let target = server.database("instructed");
            let found = Found::of(
                job("shop", &keys, work.path()).source(source),
                &keys,
                work.path(),
            )
            .await;
            found.link_tools(std::slice::from_ref(&server.bin));
            let globals = found.at("globals.sql");
            let found = found
                .set("PGPASSWORD", &server.password)
                .set("TARGET", target.url())
                .set("GLOBALS", globals.display());
            found.restores();
            assert!(target.dump() == before, "restored by RESTORE.md");
            let globals = std::fs::read_to_string(globals).unwrap();
            assert!(globals.contains("CREATE ROLE postgres;"), "{globals}");
            assert!(found.restored().is_err(), "into what is not empty");
        }
    }
}
