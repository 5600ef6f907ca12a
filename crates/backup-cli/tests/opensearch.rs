//! A cluster by the words of the configuration, into another one.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::process::Command;

use backup_core::testing::service;
use common::Place;

/// The answer of a server that `scripts/services` runs.
fn ask(method: &str, url: &str, body: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--fail-with-body",
        "-X",
        method,
        "-H",
        "content-type: application/json",
    ]);
    let said = curl.args(["-d", body, url]).output().unwrap();
    assert!(said.status.success(), "{method} {url}: {said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// The cluster keeps the data, and this host a receipt: `verify` asks for it, and `prune` gives it up.
#[test]
fn a_snapshot_that_the_cluster_keeps_is_verified_restored_and_given_up() {
    let (Some(url), Some(folder)) = (
        service("LIFEBELT_OPENSEARCH_URL"),
        service("LIFEBELT_OPENSEARCH_REPOSITORIES"),
    ) else {
        return;
    };
    let index = format!("cli-kept-{}", std::process::id());
    let put = |greeting: &str| {
        let at = format!("{url}/{index}/_doc/1?refresh=true");
        ask("PUT", &at, &format!(r#"{{"greeting":"{greeting}"}}"#));
    };
    let place = Place::empty();
    place.write(
        "lifebelt.toml",
        &format!(
            "{}[sinks.local]\ntype = \"fs\"\npath = \"local\"\n\
             [jobs.search]\nsinks = [\"local\"]\nretention = {{ last = 1 }}\n\
             source = {{ type = \"opensearch-snapshot\", url = \"{url}\", repository = \"{index}\", \
             register = {{ type = \"fs\", settings = {{ location = \"{folder}/{index}\" }} }}, \
             unencrypted = true, indices = [\"{index}\"] }}\n\
             [targets.back]\ntype = \"opensearch-snapshot\"\nurl = \"{url}\"\nindices = [\"{index}\"]\n",
            place.keys()
        ),
    );
    let ids: Vec<String> = ["first", "second"]
        .into_iter()
        .map(|greeting| {
            put(greeting);
            let run = place.run(&["run", "search", "--json"]).ends(0).json();
            run["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let snapshots = || ask("GET", &format!("{url}/_snapshot/{index}/_all"), "");
    let names: Vec<String> = ids
        .iter()
        .map(|id| format!("lifebelt-{}", id.to_lowercase()))
        .collect();
    assert!(names.iter().all(|name| snapshots().contains(name)));
    place.run(&["verify", "search"]).ends(0);

    ask("DELETE", &format!("{url}/{index}"), "");
    place
        .run(&[
            "restore",
            &ids[0],
            "--to",
            "back",
            "--force",
            "--overwrite",
            &url,
        ])
        .ends(0);
    let found = ask("GET", &format!("{url}/{index}/_search"), "{}");
    assert!(found.contains("first"), "{found}");

    place.run(&["prune", "search", "--apply"]).ends(0);
    assert!(!snapshots().contains(&names[0]) && snapshots().contains(&names[1]));
    ask(
        "DELETE",
        &format!("{url}/_snapshot/{index}/{}", names[1]),
        "",
    );
    let lost = place.run(&["verify", "search"]).ends(5);
    assert!(lost.out.contains("worth nothing"), "{lost:?}");
    for path in [format!("_snapshot/{index}"), index.clone()] {
        ask("DELETE", &format!("{url}/{path}"), "");
    }
}

#[test]
fn a_cluster_is_backed_up_and_comes_back_into_another_and_beside_itself() {
    let (Some(from), Some(to)) = (
        service("LIFEBELT_OPENSEARCH2_URL"),
        service("LIFEBELT_OPENSEARCH_URL"),
    ) else {
        return;
    };
    let index = format!("cli-{}", std::process::id());
    ask(
        "PUT",
        &format!("{from}/{index}/_doc/1?refresh=true"),
        r#"{"greeting":"hello"}"#,
    );
    ask("PUT", &format!("{from}/{index}/_alias/{index}-now"), "");
    let place = Place::empty();
    place.write("password", "canary-password");
    let job = format!(
        "[sinks.local]\ntype = \"fs\"\npath = \"local\"\n[jobs.search]\nsinks = [\"local\"]\n\
         source = {{ type = \"opensearch\", url = \"{from}\", user = \"backup\", password_file = \"password\", \
         indices = [\"{index}\"], state = [\"{index}\"] }}\n\
         [targets.beside]\ntype = \"opensearch\"\nurl = \"{from}\"\nindices = [\"{index}\"]\nrename = \"restored-*\"\n\
         [targets.other]\ntype = \"opensearch\"\nurl = \"{to}\"\nindices = [\"{index}\"]\n"
    );
    place.write("lifebelt.toml", &format!("{}{job}", place.keys()));
    place.run(&["run", "search"]).ends(0);
    let shown = place.run(&["show", "search", "--json"]).ends(0);
    assert!(!format!("{shown:?}").contains("canary"), "{shown:?}");
    let shown = shown.json();
    assert_eq!(shown["manifest"]["kind"], "opensearch");
    assert_eq!(
        shown["manifest"]["facts"]["indices"][&index]["documents"],
        1
    );

    place.run(&["restore", "search", "--to", "other"]).ends(0);
    let found = ask("GET", &format!("{to}/{index}-now/_search"), "{}");
    assert!(found.contains("hello"), "{found}");
    // It holds the index now; its name is its URL.
    let refused = place.run(&["restore", "search", "--to", "other"]).ends(6);
    assert!(
        refused.err.contains(&format!("--overwrite {to}")),
        "{refused:?}"
    );
    place
        .run(&["restore", "search", "--to", "other", "--overwrite", &to])
        .ends(0);

    // Where a job reads its data is production.
    let refused = place.run(&["restore", "search", "--to", "beside"]).ends(6);
    assert!(refused.err.contains("production"), "{refused:?}");
    place
        .run(&[
            "restore",
            "search",
            "--to",
            "beside",
            "--force",
            "--overwrite",
            &from,
        ])
        .ends(0);
    let found = ask("GET", &format!("{from}/restored-{index}/_search"), "{}");
    assert!(found.contains("hello"), "{found}");

    place.write(
        "empty.toml",
        &format!(
            "{}{}",
            place.keys(),
            job.replace(&format!("[\"{index}\"]"), "[\"no-such-*\"]")
        ),
    );
    let none = place.run(&["-c", "empty.toml", "run", "search"]);
    assert!(none.err.contains("nothing in the backup"), "{none:?}");
    for url in [
        format!("{from}/{index}"),
        format!("{from}/restored-{index}"),
        format!("{to}/{index}"),
    ] {
        ask("DELETE", &url, "");
    }
}
