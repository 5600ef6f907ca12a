//! What is refused, and what makes it go on.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use common::{Place, Said};

#[test]
fn an_occupied_target_is_replaced_only_by_name() {
    let place = Place::new();
    place.backup();
    place.write("out", "precious");
    let said = place.run(&["restore", "orders", "--to", "out"]).ends(6);
    assert_eq!(
        said.err,
        "lifebelt: `out` holds a file of 8 bytes: restore elsewhere, or repeat its name to \
         replace it: --overwrite out\n"
    );
    place
        .run(&["restore", "orders", "--to", "out", "--overwrite", "other"])
        .ends(6);
    place
        .run(&["restore", "orders", "--to", "out", "--force"])
        .ends(6);
    assert_eq!(place.read("out"), "precious");
    place
        .run(&["restore", "orders", "--to", "out", "--overwrite", "out"])
        .ends(0);
    assert_eq!(place.read("out"), place.read("data"));
}

fn production_wants_both(place: &Place, run: impl Fn(&[&str]) -> Said) {
    for arguments in [&[][..], &["--force"], &["--overwrite", "out"]] {
        let mut all = vec!["restore", "orders", "--to", "out"];
        all.extend(arguments);
        run(&all).ends(6);
        assert!(!place.path("out").exists());
    }
    run(&[
        "restore",
        "orders",
        "--to",
        "out",
        "--force",
        "--overwrite",
        "out",
    ])
    .ends(0);
    assert_eq!(place.read("out"), place.read("data"));
}

#[test]
fn the_environment_makes_production() {
    let place = Place::new();
    place.backup();
    production_wants_both(&place, |arguments| {
        place
            .command(arguments)
            .env("ENV", "production")
            .output()
            .unwrap()
            .into()
    });
}

#[test]
fn the_configuration_makes_production() {
    let place = Place::new();
    place.backup();
    place.prepend("environment = \"production\"");
    production_wants_both(&place, |arguments| place.run(arguments));
}

#[test]
fn nobody_restores_over_backups() {
    let place = Place::new();
    place.backup();
    let before = place.files("local");
    for to in ["local", "local/orders/new", "."] {
        let said = place
            .run(&[
                "restore",
                "orders",
                "--to",
                to,
                "--force",
                "--overwrite",
                to,
            ])
            .ends(6);
        assert!(
            said.err.contains("keeps backups; restore elsewhere"),
            "{said:?}"
        );
    }
    assert_eq!(place.files("local"), before);
}

#[test]
fn a_writer_does_not_run_beside_an_identity() {
    let place = Place::new();
    place.prepend("role = \"writer\"");
    let said = place.run(&["run", "orders"]).ends(1);
    assert!(
        said.err
            .contains("keys.identity_file: a writer must not hold what decrypts"),
        "{said:?}"
    );

    place.edit("identity_file = \"keys/identity.txt\"\n", "");
    let said = place.run(&["run", "orders"]).ends(6);
    assert!(
        said.err
            .contains("keys/identity.txt is on this host, whose role is writer"),
        "{said:?}"
    );
    assert!(place.files("local").is_empty());

    std::fs::rename(place.path("keys/identity.txt"), place.path("elsewhere.txt")).unwrap();
    place.run(&["run", "orders"]).ends(0);
    let verified = place.run(&["verify", "orders", "--json"]).ends(0).json();
    assert_eq!(verified["backups"][0]["copies"][0]["level"], "stored");
    let said = place.run(&["restore", "orders", "--to", "out"]).ends(2);
    assert!(said.err.contains("keys.identity_file"), "a hint: {said:?}");
    assert!(!place.path("out").exists());
}

#[test]
fn a_misspelt_target_is_not_a_new_folder() {
    let place = Place::new();
    place.backup();
    place.edit(
        "[jobs.orders]",
        "[targets.scratch]\ntype = \"command\"\npath = \"scratch.out\"\n[jobs.orders]",
    );
    let said = place.run(&["restore", "orders", "--to", "scrtach"]).ends(1);
    assert!(
        said.err
            .contains("did you mean \"scratch\"? A path is \"./scrtach\""),
        "{said:?}"
    );
    let said = place.run(&["restore", "orders"]).ends(1);
    assert_eq!(
        said.err,
        "lifebelt: say where to restore: --to PATH, or --to scratch\n"
    );
    place.run(&["restore", "orders", "--to", "scratch"]).ends(0);
    assert_eq!(place.read("scratch.out"), place.read("data"));
}

#[test]
fn a_program_as_target_gets_the_bytes() {
    let place = Place::new();
    place.backup();
    place.edit(
        "[jobs.orders]",
        "[targets.program]\ntype = \"command\"\nargv = [\"sh\", \"-c\", \"cat > got\"]\ndirectory = \".\"\n[jobs.orders]",
    );
    let said = place.run(&["restore", "orders", "--to", "program"]);
    if said.code == 6 {
        let name = said
            .err
            .split("--overwrite ")
            .nth(1)
            .unwrap()
            .trim()
            .trim_matches('\'');
        place
            .run(&["restore", "orders", "--to", "program", "--overwrite", name])
            .ends(0);
    }
    assert_eq!(place.read("got"), place.read("data"));
}
