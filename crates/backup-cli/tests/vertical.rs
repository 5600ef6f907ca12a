//! A database that goes to a disk and a locked bucket, and comes back, by the program alone.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;
mod servers;

use std::process::Stdio;

use common::{Place, Said};
use servers::{DIGEST, Postgres, ROWS, Vertical};

#[test]
fn a_database_goes_to_a_disk_and_a_locked_bucket_and_comes_back() {
    let Some(mut vertical) = Vertical::new() else {
        return;
    };
    let before = vertical.postgres.psql(vertical.orders(), DIGEST);
    let report = vertical.run(&["run", "--json"]).ends(0).json();
    assert_eq!(report["status"], "complete");
    assert_eq!(report["copies"].as_array().unwrap().len(), 2);
    let bound = report["memory_bound"].as_u64().unwrap();
    assert!(bound <= 96 << 20, "{bound}");
    vertical.run(&["verify", "orders"]).ends(0);
    let orders = vertical.orders().to_owned();
    vertical
        .postgres
        .psql("postgres", &format!("drop database {orders} with (force)"));

    for from in ["local", "offsite"] {
        let name = vertical.postgres.name("restored");
        let url = vertical.postgres.url(&name);
        let to = ["restore", "orders", "--from", from, "--to", &url];
        let plan = vertical.run(&[&to[..], &["--plan"]].concat()).ends(0);
        assert!(plan.out.contains("room: "), "{plan:?}");
        let said = vertical.run(&to).ends(0);
        assert_eq!(vertical.postgres.psql(&name, DIGEST), before, "from {from}");
        assert!(
            said.out
                .contains("  1. the restored database is postgres://"),
            "{said:?}"
        );
        assert!(said.out.contains("cut over"), "{said:?}");
        let again = vertical.run(&to).ends(6);
        assert!(again.err.contains("--overwrite postgres://"), "{again:?}");
    }
    let name = vertical.postgres.name("some");
    let url = vertical.postgres.url(&name);
    let some = [
        "restore", "orders", "--to", &url, "--table", "orders", "--json",
    ];
    let said = vertical.run(&some).ends(0).json();
    assert_eq!(said["next_steps"].as_array().unwrap().len(), 3);
    assert_eq!(vertical.postgres.psql(&name, DIGEST), before);
    let unknown = ["restore", "orders", "--to", "folder", "--trust-sql"];
    let refused = vertical.run(&unknown);
    assert_ne!(refused.code, 0, "{refused:?}");
}

#[test]
fn memory_stays_below_what_is_printed_with_a_disk_and_a_bucket() {
    let Some(vertical) = Vertical::new() else {
        return;
    };
    let noise = r#"
[jobs.noise]
source = { type = "command", argv = ["head", "-c", "200000000", "/dev/urandom"] }
sinks = ["local", "offsite"]
"#;
    let text = vertical.place.read("lifebelt.toml");
    vertical
        .place
        .write("lifebelt.toml", &format!("{text}{noise}"));
    let mut running = vertical.command(&["run", "noise", "--json"]);
    let mut running = running.stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", running.id());
    let mut peak = 0;
    while running.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = kib.map_or(peak, |kib| kib << 10);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let said = Said::from(running.wait_with_output().unwrap()).ends(0);
    let bound = said.json()["memory_bound"].as_u64().unwrap();
    assert!(peak > 8 << 20, "the kernel was asked: {peak}");
    assert!(
        peak <= bound && bound <= 96 << 20,
        "{peak} of {bound} bytes"
    );
}

#[test]
fn what_is_locked_stays_and_what_a_disk_flips_is_found() {
    let Some(mut vertical) = Vertical::new() else {
        return;
    };
    let first = vertical.run(&["run", "--json"]).ends(0).json();
    vertical.run(&["run"]).ends(0);
    let pruned = vertical
        .run(&["prune", "--apply", "--max-deletes", "1", "--json"])
        .ends(0)
        .json();
    assert_eq!(pruned["deferred"][0]["id"], first["id"], "{pruned}");

    let id = vertical.run(&["ls", "--json"]).ends(0).json()[0]["id"].clone();
    let id = id.as_str().unwrap();
    let files = vertical.on_disk(&format!("{id}/db.dump"));
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    // MinIO finds it itself, and answers that it is too busy to read.
    let said = vertical.run(&["verify", "orders"]);
    assert!([2, 5].contains(&said.code), "{said:?}");
    let told = format!("{}{}", said.out, said.err);
    assert!(
        told.contains("offsite") && told.contains("db.dump"),
        "{said:?}"
    );

    let before = vertical.postgres.psql(vertical.orders(), DIGEST);
    let name = vertical.postgres.name("flipped");
    let url = vertical.postgres.url(&name);
    let said = vertical.run(&["restore", id, "--to", &url, "--from", "offsite"]);
    assert!([2, 5].contains(&said.code), "{said:?}");
    let exists = format!("select count(*) from pg_database where datname ~ '^{name}'");
    assert_eq!(
        vertical.postgres.psql("postgres", &exists),
        "0",
        "nothing is left of it"
    );
    vertical
        .run(&["restore", id, "--to", &url, "--from", "local"])
        .ends(0);
    assert_eq!(vertical.postgres.psql(&name, DIGEST), before);
}

/// Variables alone, as scripts around `pg_dump` have them.
#[test]
fn without_a_configuration_the_environment_says_what_to_do() {
    let Some(mut postgres) = Postgres::at_hand() else {
        return;
    };
    let place = Place::empty();
    let name = postgres.name("twelve");
    postgres.psql("postgres", &format!("create database {name}"));
    postgres.psql(&name, ROWS);
    let back = postgres.name("twelve_back");
    let (host, port) = postgres.place.split_once(':').unwrap();
    let recipient = place.read("keys/recipient.txt");
    let run = |more: &[(&str, &str)], arguments: &[&str]| -> Said {
        let mut command = place.command(arguments);
        for name in [
            "PGHOST",
            "PGPORT",
            "PGUSER",
            "PGPASSWORD",
            "PGDATABASE",
            "DATABASE_URL",
        ] {
            command.env_remove(name);
        }
        command
            .env("POSTGRES_HOST", host)
            .env("PGPORT", port)
            .env("POSTGRES_USER", "postgres")
            .env("POSTGRES_PASSWORD", postgres.password())
            .env("POSTGRES_DB", &name)
            .env("LIFEBELT_RECIPIENTS", recipient.trim())
            .env("BACKUP_PGDUMP_PATH", postgres.bin.join("pg_dump"))
            .env("BACKUP_PGRESTORE_PATH", postgres.bin.join("pg_restore"))
            .envs(more.iter().copied());
        command.output().unwrap().into()
    };
    let report = run(&[("LABEL", "pre-migration")], &["run", "--json"])
        .ends(0)
        .json();
    assert_eq!(report["job"], name.as_str());
    assert!(
        place.path(&format!("backups/{name}")).exists(),
        "the folder's usual name"
    );
    let kept = run(&[], &["ls"]).ends(0);
    assert!(
        kept.out.contains(report["id"].as_str().unwrap()),
        "{kept:?}"
    );
    let conflict = [("RETENTION_DAYS", "14"), ("BACKUP_RETENTION_DAYS", "7")];
    let said = run(&conflict, &["run"]).ends(1);
    assert!(
        said.err
            .contains("BACKUP_RETENTION_DAYS and RETENTION_DAYS"),
        "{said:?}"
    );
    let said = run(&[("PGPASSWORD", "canary-other")], &["run"]).ends(1);
    assert!(
        said.err.contains("PGPASSWORD and POSTGRES_PASSWORD"),
        "{said:?}"
    );
    assert!(!said.err.contains("canary-other"));

    let url = postgres.url(&back);
    let identity = place.path("keys/identity.txt");
    let restore = ["restore", "pre-migration", "--to", &url];
    let identity = [
        ("LIFEBELT_IDENTITY_FILE", identity.to_str().unwrap()),
        ("PGPASSWORD", postgres.password()),
    ];
    run(&identity, &restore).ends(0);
    assert_eq!(postgres.psql(&back, DIGEST), postgres.psql(&name, DIGEST));
    let production = [&identity[..], &[("ENV", "production")]].concat();
    let said = run(&production, &restore).ends(6);
    assert!(said.err.contains("--force"), "{said:?}");
}
