//! Keys that stock tools know.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::{Place, Said};

#[test]
fn stock_tools_know_the_keys() {
    let place = Place::empty();
    let dir = place.path("keys");
    let shell = |script: &str| {
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        shell("age-keygen -y identity.txt"),
        place.read("keys/recipient.txt")
    );
    assert_eq!(
        shell("echo hello | age -R recipient.txt | age -d -i identity.txt"),
        "hello\n"
    );
    shell(
        "echo hello > note && minisign -S -W -s minisign.key -m note && minisign -V -p minisign.pub -m note",
    );
}

#[test]
fn only_the_owner_can_read_keys() {
    let place = Place::empty();
    let mode = |name: &str| place.path(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("keys"), 0o700);
    for name in [
        "identity.txt",
        "recipient.txt",
        "minisign.key",
        "minisign.pub",
        "recovery-sheet.md",
    ] {
        assert_eq!(mode(&format!("keys/{name}")), 0o600, "{name}");
    }
}

#[test]
fn keys_are_never_overwritten() {
    let place = Place::empty();
    let before = place.files("keys");
    let said = place.run(&["keygen", "keys"]).ends(6);
    assert_eq!(
        said.err,
        "lifebelt: keys/identity.txt exists; keys are never overwritten: name another folder\n"
    );
    std::fs::create_dir(place.path("half")).unwrap();
    place.write("half/minisign.pub", "mine");
    place.run(&["keygen", "half"]).ends(6);
    assert_eq!(place.files("half").len(), 1, "nothing was added");
    assert_eq!(place.files("keys"), before);
}

#[test]
fn a_passphrase_protects_the_signing_key() {
    let place = Place::new();
    let mut child = place
        .command(&["keygen", "locked", "--passphrase"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"correct horse\n")
        .unwrap();
    let said: Said = child.wait_with_output().unwrap().into();
    said.ends(0);
    let public = place.read("locked/minisign.pub");
    let trusted = place.read("keys/minisign.pub");
    place.edit(
        trusted.lines().nth(1).unwrap(),
        public.lines().nth(1).unwrap(),
    );
    place.edit("keys/minisign.key", "locked/minisign.key");
    let said = place.run(&["run", "orders"]).ends(1);
    assert_eq!(
        said.err,
        "lifebelt: lifebelt.toml:6: keys.signing_key_file: signing key needs its passphrase; \
         a passphrase goes into keys.signing_key_password_file\n"
    );

    place.write("password", "correct horse\n");
    place.edit(
        "[keys]\n",
        "[keys]\nsigning_key_password_file = \"password\"\n",
    );
    place.run(&["run", "orders"]).ends(0);
    place.run(&["verify", "orders"]).ends(0);
}

#[test]
fn the_recovery_sheet_alone_opens_a_backup() {
    let place = Place::new();
    let id = place.backup();
    place.run(&["fetch", &id, "--out", "raw"]).ends(0);
    let sheet = place.read("keys/recovery-sheet.md");
    let between = |from: &str| {
        let rest = &sheet[sheet.find(from).unwrap() + from.len()..];
        rest[..rest.find('`').unwrap()].to_owned()
    };
    place.write("raw/identity.txt", &between("(identity): `"));
    let script = format!(
        "minisign -Vm SHA256SUMS -P {} && sha256sum -c --quiet SHA256SUMS && \
         age -d -i identity.txt output.zst.age | zstd -dc > plain",
        between("(public key): `")
    );
    let status = Command::new("sh")
        .args(["-ec", &script])
        .current_dir(place.path("raw"))
        .status();
    assert!(status.unwrap().success());
    assert_eq!(place.read("raw/plain"), place.read("data"));
}
