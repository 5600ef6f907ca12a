//! Every exit code but 0, and that nothing false is left behind.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::process::Command;

use common::{Place, wait_until};
use serde_json::Value;

#[test]
fn a_mistake_in_the_configuration_is_one_line_and_touches_nothing() {
    let place = Place::new();
    for (piece, instead, expected) in [
        (
            "sinks = [\"local\", ",
            "sinks = [\"lcoal\", ",
            "lifebelt.toml:16: jobs.orders.sinks[0]: no sink is called \"lcoal\"; did you mean \"local\"?",
        ),
        (
            "path = \"local\"",
            "paht = \"local\"",
            "lifebelt.toml:10: sinks.local.paht: unknown field; did you mean `path`?",
        ),
        (
            "path = \"local\"",
            "path = [\"local\"]",
            "lifebelt.toml:10: sinks.local.path: must be a path, not a list",
        ),
        (
            "path = \"local\"\n",
            "",
            "lifebelt.toml:8: sinks.local.path: missing; write `path = \"/srv/data\"`",
        ),
        (
            "argv = [\"cat\", \"data\"]",
            "arg = [\"cat\"]",
            "lifebelt.toml:15: jobs.orders.source.arg: unknown field; did you mean `argv`?",
        ),
        (
            "directory = \".\"",
            "timeout = \"soon\"",
            "lifebelt.toml:15: jobs.orders.source.timeout: \"soon\" is no length of time; write a whole number and one of s, m, h, d, w, mo, y: \"36h\", \"30d\"",
        ),
        (
            "state_dir",
            "state_dri",
            "lifebelt.toml:1: state_dri: unknown field; did you mean `state_dir`?",
        ),
        (
            "keys/minisign.key",
            "keys/none.key",
            "lifebelt.toml:6: keys.signing_key_file: PLACE/keys/none.key cannot be read: No such file or directory (os error 2)",
        ),
    ] {
        let good = place.read("lifebelt.toml");
        place.edit(piece, instead);
        let said = place.run(&["run", "orders"]).ends(1);
        let expected = expected.replace(
            "PLACE",
            place.path("").to_str().unwrap().trim_end_matches('/'),
        );
        assert_eq!(said.err, format!("lifebelt: {expected}\n"));
        assert_eq!(said.out, "");
        assert!(!place.path("local").exists() && !place.path("state").exists());
        place.write("lifebelt.toml", &good);
    }
}

#[test]
fn wrong_arguments_are_one_line() {
    let place = Place::new();
    for (arguments, expected) in [
        (
            &["rum", "orders"][..],
            "unrecognized subcommand 'rum'; tip: a similar subcommand exists: 'run'; `lifebelt --help` says more",
        ),
        (
            &["restore"],
            "the following required arguments were not provided: <BACKUP>; `lifebelt --help` says more",
        ),
        (
            &["run", "ordrs"],
            "no job is called \"ordrs\"; did you mean \"orders\"?",
        ),
        (
            &["restore", "orders", "--too", "x"],
            "unexpected argument '--too' found; tip: a similar argument exists: '--to'; `lifebelt --help` says more",
        ),
        (
            &["prune", "orders", "--sweep-older-than", "1"],
            "invalid value '1' for '--sweep-older-than <AGE>': \"1\" is no length of time; write a whole number and one of s, m, h, d, w, mo, y: \"36h\", \"30d\"; `lifebelt --help` says more",
        ),
        (
            &["-c", "none.toml", "ls"],
            "none.toml: cannot be read: No such file or directory (os error 2)",
        ),
        (&[], "no verb; `lifebelt --help` lists them"),
    ] {
        let said = place.run(arguments).ends(1);
        assert_eq!(said.err, format!("lifebelt: {expected}\n"));
    }
    std::fs::remove_file(place.path("lifebelt.toml")).unwrap();
    if !std::path::Path::new("/etc/lifebelt/lifebelt.toml").exists() {
        let said = place.run(&["ls"]).ends(1);
        assert!(
            said.err
                .starts_with("lifebelt: no configuration: neither ./lifebelt.toml"),
            "{said:?}"
        );
    }
}

#[test]
fn the_configuration_is_found_by_variable_and_reads_dotenv_beside_itself() {
    let place = Place::new();
    place.edit("\"data\"", "\"${NAME}\"");
    place.write(".env", "NAME=data\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let said: common::Said = place
        .command(&["run", "orders"])
        .current_dir(elsewhere.path())
        .env("LIFEBELT_CONFIG", place.path("lifebelt.toml"))
        .output()
        .unwrap()
        .into();
    said.ends(0);
    assert!(
        place.path("local/orders").exists(),
        "paths are seen from the file"
    );

    let said: common::Said = place
        .command(&["run", "orders"])
        .env("NAME", "nowhere")
        .output()
        .unwrap()
        .into();
    assert!(said.ends(2).err.contains("nowhere"), "the environment wins");
}

#[test]
fn a_source_that_fails_after_its_last_byte_commits_nothing() {
    let place = Place::new();
    let id = place.backup();
    place.edit(
        "[\"cat\", \"data\"]",
        "[\"sh\", \"-c\", \"cat data; echo no more >&2; exit 3\"]",
    );
    let said = place.run(&["run", "orders", "--json"]).ends(2);
    assert_eq!(said.out, "");
    assert!(
        said.err.contains("`sh` exited with status 3: no more"),
        "{said:?}"
    );
    assert_eq!(place.ids(), [id]);
    place.run(&["verify", "--all"]).ends(0);
}

#[test]
fn an_empty_output_is_no_backup() {
    let place = Place::new();
    place.write("data", "");
    place.run(&["run", "orders"]).ends(2);
    assert!(place.ids().is_empty());
}

#[test]
fn fewer_copies_than_wanted_is_partial_and_enough_of_them_is_fine() {
    let place = Place::new();
    place.write("offsite", "a file where a folder should be");
    let said = place.run(&["run", "orders", "--json"]).ends(3);
    let report = said.json();
    assert_eq!(report["status"], "partial");
    assert_eq!(report["copies"][0]["status"], "complete");
    assert_eq!(report["copies"][1]["status"], "failed");
    let lines: Vec<&str> = said.err.lines().collect();
    assert!(
        lines[0].starts_with("lifebelt: warning: no copy in sink `offsite`: "),
        "{lines:?}"
    );
    assert_eq!(
        lines[1..],
        ["lifebelt: 1 of 2 copies committed, min_copies is 2"]
    );

    place.edit("sinks = [", "min_copies = 1\nsinks = [");
    let said = place.run(&["run", "orders", "--json"]).ends(0);
    assert_eq!(said.json()["status"], "complete");
    assert!(
        said.err
            .starts_with("lifebelt: warning: no copy in sink `offsite`"),
        "{said:?}"
    );
    place.run(&["restore", "orders", "--to", "out"]).ends(0);
    assert_eq!(place.read("out"), place.read("data"));

    std::fs::remove_dir_all(place.path("local")).unwrap();
    place.write("local", "another file");
    place.run(&["run", "orders"]).ends(2);
}

#[test]
fn damage_is_named_and_nothing_damaged_is_restored() {
    let place = Place::new();
    let id = place.backup();
    let part = format!("orders/{id}/output.zst.age");
    place.damage(&format!("local/{part}"));

    let said = place.run(&["verify", "orders", "--json"]).ends(5);
    let copies = &said.json()["backups"][0]["copies"];
    assert_eq!(copies[0]["status"], "damaged");
    assert_eq!(copies[0]["problems"][0]["key"], part.as_str());
    assert_eq!(copies[1]["status"], "verified");
    place.run(&["verify", &id, "--from", "offsite"]).ends(0);
    for whole in [&["verify", "orders"][..], &["verify", "--all"]] {
        let mistyped = place.run(&[whole, &["--from", "ofsite"]].concat());
        assert!(mistyped.ends(1).err.contains("no sink `ofsite`"));
    }

    let said = place
        .run(&["restore", &id, "--to", "out", "--from", "local"])
        .ends(5);
    assert!(said.err.contains(&part), "names the object: {said:?}");
    assert!(
        said.err.contains("--from SINK reads another one"),
        "a hint: {said:?}"
    );
    place
        .run(&["fetch", &id, "--out", "raw", "--from", "local"])
        .ends(5);
    assert!(!place.path("out").exists());
    place
        .run(&["restore", &id, "--to", "out", "--from", "offsite"])
        .ends(0);
    assert_eq!(place.read("out"), place.read("data"));
}

#[test]
fn a_job_that_is_away_does_not_hide_another() {
    let place = Place::new();
    place.run(&["run", "orders", "--label", "keep"]).ends(0);
    let text = place.read("lifebelt.toml");
    let more = "[sinks.gone]\ntype = \"fs\"\npath = \"gone\"\n[jobs.another]\n\
                source = { type = \"files\", path = \"/nowhere\" }\nsinks = [\"gone\"]\n";
    place.write("lifebelt.toml", &format!("{text}{more}"));
    place.write("gone", "a file where a folder should be");
    let said = place.run(&["restore", "keep", "--to", "out"]).ends(0);
    assert!(
        said.err
            .starts_with("lifebelt: warning: not looked for \"keep\" everywhere"),
        "{said:?}"
    );
    assert_eq!(place.ids().len(), 1);
    let said = place.run(&["verify", "--all", "--json"]).ends(2);
    let seen = said.json();
    assert_eq!(seen["status"], "unreachable");
    assert_eq!(seen["backups"][0]["copies"][1]["status"], "verified");
    assert_eq!(seen["unreachable"][0]["job"], "another");
}

#[test]
fn a_damaged_manifest_and_a_missing_newest_backup_are_reported() {
    let place = Place::new();
    place.backup();
    let id = place.backup();
    for sink in ["local", "offsite"] {
        std::fs::remove_file(place.path(&format!("{sink}/orders/{id}/manifest.json"))).unwrap();
    }
    let said = place.run(&["verify", "orders", "--json"]).ends(5);
    assert_ne!(said.json()["findings"], Value::Array(Vec::new()));
    place.run(&["restore", "orders", "--to", "out"]).ends(5);
    assert!(!place.path("out").exists());
}

#[test]
fn a_second_run_at_the_same_time_is_told_so() {
    let place = Place::new();
    place.pipe();
    place.edit(
        "[\"cat\", \"data\"]",
        "[\"sh\", \"-c\", \"echo x > began; cat pipe\"]",
    );
    let first = place
        .command(&["run", "orders"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the first run", || place.path("began").exists());
    let said = place.run(&["run", "orders"]);
    // Lets the first one end before anything is asserted.
    place.write("pipe", "data\n");
    let first = first.wait_with_output().unwrap();
    said.ends(7);
    assert!(first.status.success());
    assert_eq!(place.ids().len(), 1);
}

#[test]
fn a_slot_is_run_once() {
    let place = Place::new();
    place
        .run(&["run", "orders", "--slot", "20261121T020000Z"])
        .ends(0);
    let said = place
        .run(&["run", "orders", "--slot", "20261121T020000Z"])
        .ends(7);
    assert!(
        said.err
            .starts_with("lifebelt: slot `20261121T020000Z` of job `orders` is taken by "),
        "{said:?}"
    );
    place
        .run(&["run", "orders", "--slot", "20261121T030000Z"])
        .ends(0);
    place
        .run(&["run", "orders", "--slot", "not a slot"])
        .ends(1);
    assert_eq!(place.ids().len(), 2);
    place.run(&["verify", "--all"]).ends(0);
}

#[test]
fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
    let place = Place::new();
    place.backup();
    let shell = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(place.path(""));
        let output = command
            .env("L", env!("CARGO_BIN_EXE_lifebelt"))
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    // `true` has ended when the listing is printed.
    let piped = shell("exec 3> >(true); wait $!; $L ls >&3; echo $? >&2");
    assert_eq!(piped.1, "0\n");
    let full = shell("$L ls > /dev/full");
    assert_eq!(full.0, 2);
    assert!(
        full.1
            .contains("stdout cannot be written: No space left on device"),
        "{full:?}"
    );
}

#[test]
fn help_and_version_are_no_mistakes() {
    let place = Place::new();
    let help = place.run(&["--help"]).ends(0).out;
    for code in 0..=7 {
        assert!(
            help.contains(&format!("\n  {code}  ")),
            "exit code {code} is explained"
        );
    }
    for verb in [
        "run", "ls", "show", "why", "verify", "restore", "fetch", "prune", "hold", "release",
        "keygen", "doctor",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}");
        let said = place.run(&[verb, "--help"]).ends(0);
        assert!(said.out.contains("Example"), "{verb} has an example");
    }
    assert!(
        place
            .run(&["--version"])
            .ends(0)
            .out
            .starts_with("lifebelt ")
    );
}
