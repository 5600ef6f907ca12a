//! A member by the words of the configuration, as a data directory and into another cluster.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::process::Command;

use backup_core::testing::service;
use common::Place;

#[test]
fn a_member_is_backed_up_and_its_keys_come_back_into_another_cluster() {
    let (Some(from), Some(to), Some(bin)) = (
        service("LIFEBELT_ETCD_ENDPOINT"),
        service("LIFEBELT_ETCD34_ENDPOINT"),
        service("LIFEBELT_ETCD_BIN"),
    ) else {
        return;
    };
    let ctl = |url: &str, words: &[&str]| {
        let mut etcdctl = Command::new(format!("{bin}/etcdctl"));
        let said = etcdctl
            .args(["--endpoints", url])
            .args(words)
            .output()
            .unwrap();
        assert!(said.status.success(), "{words:?}: {said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    let prefix = format!("/cli-{}/", std::process::id());
    let key = format!("{prefix}greeting");
    ctl(&from, &["put", &key, "hello"]);
    let place = Place::empty();
    place.write(
        "lifebelt.toml",
        &format!(
            "{}[sinks.local]\ntype = \"fs\"\npath = \"local\"\n\
             [jobs.cluster]\nsinks = [\"local\"]\nincremental = true\n\
             source = {{ type = \"etcd\", url = \"{from}\" }}\n\
             [targets.member]\ntype = \"etcd\"\npath = \"member\"\netcdutl = \"{bin}/etcdutl\"\n\
             [targets.other]\ntype = \"etcd\"\nurl = \"{to}\"\nprefix = \"{prefix}\"\n\
             [targets.itself]\ntype = \"etcd\"\nurl = \"{from}\"\nprefix = \"{prefix}\"\n",
            place.keys()
        ),
    );
    place.run(&["run", "cluster"]).ends(0);
    let shown = place.run(&["show", "cluster", "--json"]).ends(0).json();
    assert_eq!(shown["manifest"]["kind"], "etcd");
    assert_eq!(shown["manifest"]["facts"]["compared"], true);

    place.run(&["restore", "cluster", "--to", "other"]).ends(0);
    let get = |url: &str| ctl(url, &["get", &key, "--print-value-only"]);
    assert_eq!(get(&to), "hello\n");
    // It holds the key now; its name is its URL.
    let refused = place.run(&["restore", "cluster", "--to", "other"]).ends(6);
    assert!(
        refused.err.contains(&format!("--overwrite {to}")),
        "{refused:?}"
    );

    // Where a job reads its data is production.
    ctl(&from, &["put", &key, "newer"]);
    let refused = place.run(&["restore", "cluster", "--to", "itself"]).ends(6);
    assert!(refused.err.contains("production"), "{refused:?}");
    let agreed = ["--force", "--overwrite", &from];
    place
        .run(&[&["restore", "cluster", "--to", "itself"], &agreed[..]].concat())
        .ends(0);
    assert_eq!(get(&from), "hello\n");

    // What came since is a backup of its own, and each of its revisions comes back.
    ctl(&from, &["put", &key, "newest"]);
    place.run(&["run", "cluster"]).ends(0);
    let child = place.run(&["show", "cluster", "--json"]).ends(0).json();
    assert_eq!(child["manifest"]["parent"], shown["manifest"]["id"]);
    let last = child["manifest"]["facts"]["revision"].as_i64().unwrap();
    place.run(&["verify", "cluster"]).ends(0);
    let too_late = (last + 1).to_string();
    let refused = place.run(&[
        "restore",
        "cluster",
        "--to",
        "member",
        "--revision",
        &too_late,
    ]);
    assert!(refused.err.contains("reaches from"), "{refused:?}");
    let before = (last - 1).to_string();
    place
        .run(&[
            "restore",
            "cluster",
            "--to",
            "member",
            "--revision",
            &before,
        ])
        .ends(0);
    assert!(place.path("member/member/snap/db").exists());
    for url in [from, to] {
        ctl(&url, &["del", &prefix, "--prefix"]);
    }
}
