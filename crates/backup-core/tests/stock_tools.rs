//! No lock-in: the stock tools read what we write, and we read what they write.
//!
//! Needs `age`, `age-keygen`, `zstd`, `pzstd`, `gzip` and `minisign` on the PATH and fails
//! without.

#![cfg(all(feature = "zstd", feature = "gzip", feature = "age", feature = "sign"))]

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use backup_core::transform::{Age, Gzip, Sign, Transform, Zstd, age_keygen};
use backup_core::{Coding, PublicKey, Signer, SigningKey, TrustedKeys, Verifier};

/// Runs a program on `input` and gives what it wrote.
fn run(argv: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("this test needs `{}`: {e}", argv[0]));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that fails closes its input early; its status tells.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("runs");
    writer.join().expect("writes");
    assert!(
        output.status.success(),
        "{argv:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn undo(stage: &dyn Transform, coded: &[u8]) -> Vec<u8> {
    let command = stage.undo();
    let argv: Vec<&str> = command.argv().iter().map(String::as_str).collect();
    run(&argv, coded)
}

fn encode(stage: &dyn Transform, plain: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    stage
        .encode(Box::new(Cursor::new(plain.to_vec())), &Coding::new(2))
        .expect("starts")
        .read_to_end(&mut coded)
        .expect("encodes");
    coded
}

fn decode(stage: &dyn Transform, coded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    stage
        .decode(Box::new(Cursor::new(coded.to_vec())), &Coding::new(2))
        .expect("starts")
        .read_to_end(&mut plain)
        .expect("decodes");
    plain
}

/// Empty, tiny, and several blocks of every stage.
fn samples() -> Vec<Vec<u8>> {
    let mut text = String::new();
    for n in 0u64.. {
        text.push_str(&format!(
            "{n}\t{:x}\torder\n",
            n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ));
        if text.len() > 5_000_000 {
            break;
        }
    }
    vec![Vec::new(), b"x".to_vec(), text.into_bytes()]
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("a text file")
}

#[test]
fn zstd_and_pzstd_read_ours_and_we_read_theirs() {
    let stage = Zstd::level(3);
    for plain in samples() {
        let coded = encode(&stage, &plain);
        run(&["zstd", "-t"], &coded);
        assert!(undo(&stage, &coded) == plain);
        assert!(run(&["pzstd", "-dc"], &coded) == plain);
        for theirs in [
            &["zstd", "-3", "-c"][..],
            &["zstd", "-19", "-T2", "--long=27", "-c"],
            &["pzstd", "-3", "-c"],
        ] {
            assert!(decode(&stage, &run(theirs, &plain)) == plain, "{theirs:?}");
        }
    }
}

#[test]
fn zstd_itself_sees_damage_in_ours() {
    let plain = samples().pop().unwrap();
    let mut coded = encode(&Zstd::level(3), &plain);
    let middle = coded.len() / 2;
    coded[middle] ^= 1;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part.zst");
    fs::write(&path, coded).unwrap();
    let status = Command::new("zstd").arg("-qt").arg(path).status().unwrap();
    assert!(!status.success());
}

#[test]
fn gzip_reads_ours_and_we_read_its() {
    let stage = Gzip::level(6);
    for plain in samples() {
        let coded = encode(&stage, &plain);
        run(&["gzip", "-t"], &coded);
        assert!(undo(&stage, &coded) == plain);
        assert!(decode(&stage, &run(&["gzip", "-c"], &plain)) == plain);
    }
}

#[test]
fn age_reads_ours_and_we_read_its_with_keys_of_either() {
    let dir = tempfile::tempdir().unwrap();
    let ours = age_keygen(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_226_400));
    let our_file = dir.path().join("ours.txt");
    fs::write(&our_file, ours.identity.expose()).unwrap();
    let recipient = run(&["age-keygen", "-y", our_file.to_str().unwrap()], b"");
    assert_eq!(String::from_utf8(recipient).unwrap().trim(), ours.recipient);

    let their_file = dir.path().join("theirs.txt");
    run(&["age-keygen", "-o", their_file.to_str().unwrap()], b"");
    let theirs = Age::own(&text(&their_file)).unwrap();
    // The same lines in the same order; time and keys differ.
    let shape = |text: &str| -> Vec<String> {
        text.lines().map(|l| l.chars().take(11).collect()).collect()
    };
    assert_eq!(shape(ours.identity.expose()), shape(&text(&their_file)));

    let both = Age::to([&ours.recipient, &theirs.recipients()[0]]).unwrap();
    for plain in samples() {
        let coded = encode(&both, &plain);
        for file in [&our_file, &their_file] {
            assert!(run(&["age", "-d", "-i", file.to_str().unwrap()], &coded) == plain);
        }
        let coded = run(&["age", "-r", &ours.recipient], &plain);
        let own = Age::own(ours.identity.expose()).unwrap();
        assert!(decode(&own, &coded) == plain);
    }
}

#[test]
fn minisign_accepts_our_signatures_and_we_its() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (part, minisig) = (path("part"), path("part.minisig"));
    for plain in samples() {
        fs::write(&part, &plain).unwrap();

        let key = SigningKey::generate().unwrap();
        let public = key.public();
        fs::write(path("ours.pub"), public.to_text()).unwrap();
        let trusted = TrustedKeys::new([public.clone()]);
        let (theirs, ours) = (path("ours.key"), path("ours.pub"));
        fs::write(&theirs, key.to_text(None).unwrap().expose()).unwrap();

        let coding = Coding::new(1);
        let mut signed = Sign::with(key)
            .encode(Box::new(Cursor::new(plain.clone())), &coding)
            .unwrap();
        std::io::copy(&mut signed, &mut std::io::sink()).unwrap();
        fs::write(&minisig, coding.notes()["signature"].as_str().unwrap()).unwrap();
        run(&["minisign", "-Vm", &part, "-p", &ours], b"");
        run(&["minisign", "-Vm", &part, "-P", &public.to_string()], b"");

        // With our key, by its defaults.
        run(&["minisign", "-Sm", &part, "-s", &theirs], b"");
        let comment = trusted.verify(&plain, &text(Path::new(&minisig))).unwrap();
        assert!(comment.contains("file:part"), "{comment}");
    }
}

#[test]
fn keys_of_minisign_and_ours_have_one_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (theirs, their_public) = (path("theirs.key"), path("theirs.pub"));
    run(
        &["minisign", "-GW", "-s", &theirs, "-p", &their_public],
        b"",
    );
    let key = SigningKey::from_text(&text(Path::new(&theirs)), None).unwrap();
    let public: PublicKey = text(Path::new(&their_public)).parse().unwrap();
    assert_eq!(key.public(), public);
    assert_eq!(public.to_text(), text(Path::new(&their_public)));
    let line = |text: &str| text.lines().nth(1).unwrap().to_owned();
    assert_eq!(
        line(key.to_text(None).unwrap().expose()),
        line(&text(Path::new(&theirs)))
    );

    assert!(key.to_text(Some("correct horse")).is_err());

    // One of ours with a passphrase, opened by minisign, which asks for it.
    let (key, ours) = (SigningKey::generate().unwrap(), path("ours.key"));
    fs::write(&ours, key.to_text(Some("correct horse")).unwrap().expose()).unwrap();
    let part = path("part");
    fs::write(&part, "data").unwrap();
    run(&["minisign", "-Sm", &part, "-s", &ours], b"correct horse\n");
    let signature = text(Path::new(&path("part.minisig")));
    TrustedKeys::new([key.public()])
        .verify(b"data", &signature)
        .unwrap();
}

#[test]
fn a_key_that_minisign_protected_opens_with_its_passphrase() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (key, public) = (path("key"), path("pub"));
    run(
        &["minisign", "-G", "-s", &key, "-p", &public],
        b"correct horse\ncorrect horse\n",
    );
    let key = SigningKey::from_text(&text(Path::new(&key)), Some("correct horse")).unwrap();
    let public: PublicKey = text(Path::new(&public)).parse().unwrap();
    TrustedKeys::new([public])
        .verify(b"data", &key.sign(b"data", "c").unwrap())
        .unwrap();
}
