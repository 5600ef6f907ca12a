//! Canaries: a password, an identity and a signing key that must not show up anywhere.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::process::Stdio;

use common::{Place, Said, wait_until};

const PASSWORD: &str = "canary-c2hlbGwgd2UgZGFuY2U";

fn canaries(place: &Place) -> Vec<String> {
    let identity = place.read("keys/identity.txt");
    let signing = place.read("keys/minisign.key");
    vec![
        PASSWORD.to_owned(),
        identity.lines().last().unwrap().to_owned(),
        signing.lines().nth(1).unwrap().to_owned(),
    ]
}

fn assert_clean(place: &Place, what: &str, text: &str) {
    for canary in canaries(place) {
        // A part of a secret is one too.
        for piece in [
            &canary[..],
            &canary[canary.len() / 3..canary.len() / 3 + 12],
        ] {
            assert!(!text.contains(piece), "{what} shows a secret: {text}");
        }
    }
}

/// A job whose source has a password in its environment, from a file, and prints it when it fails.
fn place() -> Place {
    let place = Place::new();
    place.write("password", &format!("{PASSWORD}\n"));
    place.edit(
        "directory = \".\"",
        "directory = \".\", env = { PASSWORD_file = \"password\" }",
    );
    place
}

#[test]
fn no_verb_shows_a_secret_even_when_it_says_everything() {
    let place = place();
    place.edit(
        "[\"cat\", \"data\"]",
        "[\"sh\", \"-c\", \"test -n \\\"$PASSWORD\\\" && cat data\"]",
    );
    place.write(".env", &format!("PASSWORD={PASSWORD}\n"));
    let verbs: &[&[&str]] = &[
        &["run", "orders"],
        &["ls"],
        &["show", "orders"],
        &["why", "orders"],
        &["verify", "--all"],
        &["hold", "orders", "--reason", "x"],
        &["release", "orders"],
        &["prune", "orders", "--apply"],
        &["restore", "orders", "--to", "out"],
        &["fetch", "orders", "--out", "raw"],
        &["doctor"],
    ];
    for verb in verbs {
        for form in [&["-vvv"][..], &["-vvv", "--json", "--log-format", "json"]] {
            if form.len() > 1 {
                let _ = std::fs::remove_file(place.path("out"));
                let _ = std::fs::remove_dir_all(place.path("raw"));
            }
            let all: Vec<&str> = form.iter().chain(*verb).copied().collect();
            let mut command = place.command(&all);
            let said: Said = command.env("RUST_LOG", "trace").output().unwrap().into();
            let said = said.ends(0);
            assert_clean(&place, verb[0], &said.out);
            assert_clean(&place, verb[0], &said.err);
        }
    }
    for (path, bytes) in place.files("local").into_iter().chain(place.files("state")) {
        assert_clean(
            &place,
            path.to_str().unwrap(),
            &String::from_utf8_lossy(&bytes),
        );
    }
}

#[test]
fn no_error_shows_a_secret() {
    let place = place();
    let good = place.read("lifebelt.toml");
    place.write(".env", &format!("PASSWORD={PASSWORD}\n"));
    let identity = place.read("keys/identity.txt");
    for (piece, instead) in [
        // A source that tells its own secret while it fails.
        ("[\"cat\", \"data\"]", "[\"sh\", \"-c\", \"echo $PASSWORD >&2; exit 1\"]".to_owned()),
        ("\"data\"", "\"${PASSWORD}\", 7".to_owned()),
        ("retention = { last = 2 }", "retention = { within = \"${PASSWORD}\" }".to_owned()),
        ("identity_file = \"keys/identity.txt\"", "identity = \"${PASSWORD}\"".to_owned()),
        ("signing_key_file = \"keys/minisign.key\"", "signing_key = \"${PASSWORD}\"".to_owned()),
        ("signing_key_file = \"keys/minisign.key\"", "signing_key_command = [\"sh\", \"-c\", \"cat keys/minisign.key keys/minisign.key; exit 1\"]".to_owned()),
        ("recipients = [\"age1", format!("recipients = [\"{}\", \"age1", identity.lines().last().unwrap())),
    ] {
        place.edit(piece, &instead);
        let mut codes = Vec::new();
        for verb in [&["run", "orders"][..], &["verify", "orders"], &["doctor"]] {
            let said = place.run(verb);
            codes.push(said.code);
            assert!(!said.err.contains("internal error"), "{said:?}");
            assert_clean(&place, &instead, &said.out);
            assert_clean(&place, &instead, &said.err);
        }
        assert_ne!(codes, [0, 0, 0], "{instead} is a mistake");
        place.write("lifebelt.toml", &good);
    }
}

#[test]
fn no_command_line_shows_a_secret() {
    let place = place();
    place.pipe();
    place.edit(
        "[\"cat\", \"data\"]",
        "[\"sh\", \"-c\", \"echo x > began; cat pipe\"]",
    );
    let child = place
        .command(&["run", "orders"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the run", || place.path("began").exists());
    let seen = look_at_command_lines(&place);
    std::fs::write(place.path("pipe"), "data\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(seen >= 2, "the program and its child were looked at");
    assert!(ended.status.success());
}

#[test]
fn no_command_line_of_a_restore_shows_a_secret() {
    let place = place();
    place.run(&["run", "orders"]).ends(0);
    place.pipe();
    let text = place.read("lifebelt.toml");
    let target = r#"
[targets.drill]
type = "command"
argv = ["sh", "-c", "cat > landed; echo x > began; cat pipe"]
env = { PASSWORD_file = "password" }
directory = "."
"#;
    place.write("lifebelt.toml", &format!("{text}{target}"));
    let child = place
        .command(&["restore", "orders", "--to", "drill", "--overwrite", "sh"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the restore", || place.path("began").exists());
    let seen = look_at_command_lines(&place);
    std::fs::write(place.path("pipe"), "go on\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(seen >= 2, "the program and its child were looked at");
    assert!(ended.status.success());
    assert_eq!(place.read("landed"), place.read("data"));
}

/// How many of them are of the program and its children.
fn look_at_command_lines(place: &Place) -> usize {
    let mut seen = 0;
    for process in std::fs::read_dir("/proc").unwrap() {
        // Processes come and go.
        let line = process
            .ok()
            .and_then(|p| std::fs::read(p.path().join("cmdline")).ok());
        let line = String::from_utf8_lossy(&line.unwrap_or_default()).into_owned();
        seen += usize::from(line.contains("lifebelt") || line.contains("cat pipe"));
        assert_clean(place, "a command line", &line);
    }
    seen
}
