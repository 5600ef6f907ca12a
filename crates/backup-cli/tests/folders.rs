//! A folder there and back.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::process::Command;

use common::Place;

fn place() -> Place {
    let place = Place::empty();
    let status = Command::new("sh")
        .args([
            "-ec",
            "mkdir -p tree/deep/empty && echo one > tree/one && echo two > tree/deep/two \
            && ln -s deep/two tree/link && chmod 750 tree/deep && touch 'tree/odd name\t!' \
            && head -c 3000000 /dev/urandom > tree/large",
        ])
        .current_dir(place.path(""))
        .status();
    assert!(status.unwrap().success());
    place.write(
        "lifebelt.toml",
        &format!(
            "{}[sinks.local]\ntype = \"fs\"\npath = \"local\"\n[jobs.orders]\n\
             source = {{ type = \"files\", path = \"tree\", exclude = [\"*.tmp\"] }}\nsinks = [\"local\"]\n",
            place.keys()
        ),
    );
    place
}

fn same(place: &Place, a: &str, b: &str) -> bool {
    // Times to the second: that is what plain tar keeps.
    let list = "find . -printf '%P %y %m %l %T@\\n' | sed 's/[.][0-9]*$//' | sort";
    let of = |folder: &str| {
        let output = Command::new("sh")
            .args(["-c", list])
            .current_dir(place.path(folder))
            .output();
        output.unwrap().stdout
    };
    let diff = Command::new("diff")
        .arg("-r")
        .args([place.path(a), place.path(b)])
        .output();
    diff.unwrap().stdout.is_empty() && of(a) == of(b)
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let place = place();
    place.write("tree/left-out.tmp", "x");
    place.backup();
    std::fs::remove_file(place.path("tree/left-out.tmp")).unwrap();
    // Again, because the removal changed the folder's time.
    place.backup();
    place.run(&["verify", "--all"]).ends(0);
    place.run(&["restore", "orders", "--to", "back"]).ends(0);
    assert!(same(&place, "tree", "back"));
    let first = place.ids().remove(1);
    place.run(&["restore", &first, "--to", "first"]).ends(0);
    assert!(!place.path("first/left-out.tmp").exists());
}

#[test]
fn the_folder_of_a_job_is_production() {
    let place = place();
    place.backup();
    std::fs::remove_file(place.path("tree/one")).unwrap();
    let name = place.path("tree").canonicalize().unwrap();
    let name = name.to_str().unwrap();
    let link = place.path("another-name");
    std::os::unix::fs::symlink(name, &link).unwrap();
    for to in ["tree", name, "another-name", "tree/deep"] {
        place
            .run(&["restore", "orders", "--to", to, "--overwrite", to])
            .ends(6);
        place
            .run(&["restore", "orders", "--to", to, "--force"])
            .ends(6);
    }
    assert!(!place.path("tree/one").exists());
    place
        .run(&[
            "restore",
            "orders",
            "--to",
            name,
            "--force",
            "--overwrite",
            name,
        ])
        .ends(0);
    assert_eq!(place.read("tree/one"), "one\n");
}

#[test]
fn another_kind_of_target_is_refused() {
    let place = place();
    place.backup();
    place.edit(
        "[jobs.orders]",
        "[targets.program]\ntype = \"command\"\nargv = [\"cat\"]\n[jobs.orders]",
    );
    let said = place.run(&["restore", "orders", "--to", "program"]).ends(6);
    assert!(said.err.contains("command"), "{said:?}");
}
