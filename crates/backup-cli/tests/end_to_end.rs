//! The verbs in the order in which one meets them.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use common::Place;

#[test]
fn a_backup_is_made_listed_shown_verified_and_restored() {
    let place = Place::new();
    let said = place.run(&["run", "orders", "--json"]).ends(0);
    assert_eq!(said.err, "", "no progress, no warnings");
    let report = said.json();
    let id = report["id"].as_str().unwrap();
    assert_eq!(report["job"], "orders");
    assert_eq!(report["status"], "complete");
    assert_eq!(report["plain_bytes"], 400_000);
    assert!(report["stored_bytes"].as_u64().unwrap() < 400_000);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(report["copies"][1]["sink"], "offsite");
    assert_eq!(report["copies"][1]["status"], "complete");

    let rows = place.run(&["ls", "--json"]).ends(0).json();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["id"], id);
    assert_eq!(rows[0]["kind"], "command");
    assert_eq!(rows[0]["status"], "complete");
    assert_eq!(rows[0]["kept_because"][0], "latest");
    let listed = place.run(&["ls", "orders"]).ends(0);
    assert!(listed.out.starts_with("ID "), "{listed:?}");
    assert!(listed.out.contains(id), "{listed:?}");

    let shown = place.run(&["show", id, "--json"]).ends(0).json();
    assert_eq!(shown["manifest"]["parts"][0]["plain"]["len"], 400_000);
    assert!(place.run(&["show", "orders"]).ends(0).out.contains(id));

    let verified = place.run(&["verify", id, "--json"]).ends(0).json();
    assert_eq!(verified["status"], "verified");
    assert_eq!(verified["backups"][0]["copies"][0]["level"], "decoded");
    assert_eq!(verified["backups"][0]["copies"][0]["signed"], true);
    assert_eq!(
        place.run(&["ls", "--json"]).ends(0).json()[0]["status"],
        "verified"
    );

    let restored = place
        .run(&["restore", "orders", "--to", "out", "--json"])
        .ends(0)
        .json();
    assert_eq!(restored["id"], id);
    assert_eq!(restored["bytes"], 400_000);
    assert_eq!(place.read("out"), place.read("data"));
}

#[test]
fn a_backup_is_found_by_id_its_beginning_its_end_and_label() {
    let place = Place::new();
    place
        .run(&[
            "run",
            "orders",
            "--label",
            "pre-migration",
            "--label",
            "by-hand",
        ])
        .ends(0);
    let first = place.ids().remove(0);
    place.write("data", "later\n");
    place.backup();

    for (n, name) in [&first[..], &first[17..], "pre-migration", "by-hand"]
        .iter()
        .enumerate()
    {
        let to = format!("out-{n}");
        place.run(&["restore", name, "--to", &to]).ends(0);
        assert!(place.read(&to).starts_with("7,anvil"), "{name}");
    }
    place
        .run(&[
            "restore", "orders", "--label", "by-hand", "--to", "labelled",
        ])
        .ends(0);
    assert!(place.read("labelled").starts_with("7,anvil"));
    place.run(&["restore", "orders", "--to", "newest"]).ends(0);
    assert_eq!(place.read("newest"), "later\n");

    let said = place
        .run(&["restore", "orders", "--label", "nope", "--to", "x"])
        .ends(2);
    assert_eq!(
        said.err,
        "lifebelt: job \"orders\" has no backup with the label \"nope\"\n\
         lifebelt: hint: `lifebelt ls` lists what there is\n"
    );
    let said = place.run(&["show", "ordres"]).ends(2);
    assert!(said.err.contains("did you mean \"orders\"?"), "{said:?}");
}

#[test]
fn fetch_brings_what_stock_tools_open() {
    let place = Place::new();
    let id = place.backup();
    let files = place
        .run(&["fetch", &id, "--out", "raw", "--json"])
        .ends(0)
        .json();
    assert_eq!(files["id"], id.as_str());
    let opened = std::process::Command::new("sh")
        .args(["-c", "sha256sum -c --quiet SHA256SUMS && age -d -i ../keys/identity.txt output.zst.age | zstd -dc"])
        .current_dir(place.path("raw"))
        .output()
        .unwrap();
    assert!(opened.status.success(), "{opened:?}");
    assert_eq!(opened.stdout, std::fs::read(place.path("data")).unwrap());

    place
        .run(&["fetch", &id, "--out", "plain", "--decode"])
        .ends(0);
    assert_eq!(place.read("plain/output"), place.read("data"));
    place.run(&["fetch", &id, "--out", "plain"]).ends(6);
}

#[test]
fn prune_shows_and_then_deletes_and_a_hold_stays() {
    let place = Place::new();
    let ids: Vec<String> = (0..4).map(|_| place.backup()).collect();

    let plan = place.run(&["prune", "orders", "--json"]).ends(0).json();
    assert_eq!(plan["applied"], false);
    assert_eq!(
        plan["keep"].as_array().unwrap().len(),
        4,
        "two in each sink: {plan}"
    );
    assert_eq!(plan["keep"][0]["reasons"][0], "latest");
    assert_eq!(plan["delete"][0]["id"], ids[1].as_str());
    assert!(
        plan["delete"][0]["nearest_miss"]
            .as_str()
            .unwrap()
            .starts_with("last 2/2 went to")
    );
    assert!(plan["deferred"].as_array().unwrap().is_empty());
    assert_eq!(place.ids().len(), 4, "a dry run deletes nothing");

    let why = place.run(&["why", &ids[0]]).ends(0);
    assert!(why.out.contains("the next prune deletes it"), "{why:?}");
    place
        .run(&["hold", &ids[0], "--reason", "case 4711"])
        .ends(0);
    let why = place.run(&["why", &ids[0]]).ends(0);
    assert!(why.out.contains("kept: held: case 4711"), "{why:?}");

    place.run(&["prune", "orders", "--apply"]).ends(0);
    assert_eq!(place.ids(), [&ids[3], &ids[2], &ids[0]].map(String::as_str));

    place.run(&["release", &ids[0]]).ends(0);
    place.run(&["prune", "orders", "--apply"]).ends(0);
    assert_eq!(place.ids(), [&ids[3], &ids[2]].map(String::as_str));
    place.run(&["verify", "--all"]).ends(0);
}

#[test]
fn a_plan_changes_nothing_and_says_what_would_be_destroyed() {
    let place = Place::new();
    place.backup();
    let plan = place
        .run(&["restore", "orders", "--to", "out", "--plan", "--json"])
        .ends(0)
        .json();
    assert_eq!(plan["destroys"], serde_json::Value::Null);
    assert!(!place.path("out").exists());

    place.write("out", "precious");
    let plan = place
        .run(&["restore", "orders", "--to", "out", "--plan", "--json"])
        .ends(6)
        .json();
    assert!(
        plan["refused"].as_str().unwrap().contains("--overwrite"),
        "{plan}"
    );
    assert_eq!(place.read("out"), "precious");
}

#[test]
fn doctor_tries_what_the_other_verbs_rely_on() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let healthy = place.run(&["doctor", "--json"]).ends(0).json();
    assert_eq!(healthy["healthy"], true);
    assert!(place.files("local").is_empty(), "the canary is gone");

    let key = place.path("keys/minisign.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::remove_dir_all(place.path("offsite")).unwrap();
    place.write("offsite", "a file where a folder should be");
    let said = place.run(&["doctor"]).ends(4);
    let failed: Vec<&str> = said.out.lines().filter(|l| l.starts_with("FAIL")).collect();
    assert_eq!(failed.len(), 2, "{said:?}");
    assert!(
        failed[0].contains("has mode 0644, others can read it; run chmod 600"),
        "{failed:?}"
    );
    assert!(
        failed[1].starts_with("FAIL  sink offsite: a put fails"),
        "{failed:?}"
    );
}

#[test]
fn the_memory_bound_is_printed_and_held() {
    let place = Place::new();
    let said = place.run(&["-v", "run", "orders"]).ends(0);
    let line = said
        .err
        .lines()
        .find(|l| l.contains("memory bound: "))
        .unwrap();
    assert!(line.ends_with(" MiB"), "{line}");
    let report = place.run(&["run", "orders", "--json"]).ends(0).json();
    assert!(
        report["memory_bound"].as_u64().unwrap() <= 64 << 20,
        "{report}"
    );
}

#[test]
fn old_backups_are_read_after_the_pipeline_has_changed() {
    let place = Place::new();
    for fields in [
        "compress = \"gzip:6\"\nsign_parts = true",
        "compress = \"zstd:1\"",
        "compress = \"none\"\nunencrypted = true",
        "verify_after_encode = false\nthreads = 1\nrate_limit = \"100MiB/s\"",
    ] {
        place.edit("[jobs.orders]\n", &format!("[jobs.orders]\n{fields}\n"));
        place.backup();
        place.edit(&format!("{fields}\n"), "");
    }
    // And on a host that only restores.
    place.edit("signing_key_file = \"keys/minisign.key\"\n", "");
    place.run(&["verify", "--all"]).ends(0);
    for (n, id) in place.ids().iter().enumerate() {
        let to = format!("out-{n}");
        place.run(&["restore", id, "--to", &to]).ends(0);
        assert_eq!(place.read(&to), place.read("data"), "{id}");
    }
    let said = place.run(&["run", "orders"]).ends(1);
    assert!(
        said.err
            .contains("keys.signing_key_file: missing; job \"orders\" trusts only what is signed"),
        "{said:?}"
    );
}
