//! Golden files: what a version of the stored format looked like, read for ever.
//!
//! `golden/v1` holds two jobs as format 1 stores them, made with the keys in
//! `golden/v1/test-keys` (made for this test, used for nothing else):
//!
//! - `orders`: zstd, age, every part and document signed, parts of several objects; of three
//!   backups the first was pruned, the second is held, the third was held and released.
//! - `folder`: a folder, gzip, neither encrypted nor signed.
//!
//! These files are never written again: who cannot read them any more breaks a promise. Where
//! format 1 grows a field by addition, the test of the shape fails; say in `FORMAT.md` what was
//! added, and add the line to `ADDED_SINCE`.
//!
//! For a version 2: set `FORMAT`, copy the function `v1` to `v2` and change it as needed, run
//! `cargo test -p lifebelt-tests --test golden -- --ignored write` (which writes the folder of
//! the present version, if it is not there, and no other), commit `golden/v2`, and let every test
//! here go over both folders. `golden/v1` stays, and so do its reading tests; only the test of
//! the shape moves on to `v2`.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use backup_core::retention::KeepLast;
use backup_core::transform::{Age, Gzip, Sign, Zstd, age_keygen};
use backup_core::{
    Clock, Digest, ErrorKind, FORMAT, Finding, Id, Job, Key, Level, Manifest, MemorySink,
    MemorySource, MemoryTarget, Pipeline, PruneOptions, RestoreRequest, RunOptions, SigningKey,
    Sink, TrustedKeys,
};
use futures::TryStreamExt;
use sink_fs::FsSink;
use store_files::{Files, Folder};

/// Fields and objects that format 1 got by addition, as they stand in [`shape`].
const ADDED_SINCE: [&str; 0] = [];

/// The parts of every backup of `orders`; the last one has several objects.
fn parts() -> Vec<(&'static str, String)> {
    let rows = (0..2000).map(|n| format!("{n},anvil,{}\n", n * 7919 % 10_007));
    let head = "create table orders (id int, what text, price int);\n";
    vec![
        ("empty", String::new()),
        ("schema.sql", head.to_owned()),
        ("rows.csv", rows.collect()),
    ]
}

/// What is in the folder of the job `folder`: files, and one that is empty.
const FILES: [(&str, &str); 3] = [("a/b/deep.txt", "deep\n"), ("a/none", ""), ("top", "top\n")];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The keys of the golden files.
struct Keys {
    age: Age,
    signing: Arc<SigningKey>,
    trusted: TrustedKeys,
}

fn keys() -> Keys {
    let file = |name| read(golden().join("test-keys").join(name));
    let signing = SigningKey::from_text(&file("minisign.key"), None).unwrap();
    let recipient = file("recipient.txt");
    let age = Age::to([recipient.trim()]).unwrap();
    Keys {
        age: age.with_identity(&file("identity.txt")).unwrap(),
        trusted: TrustedKeys::new([file("minisign.pub").parse().unwrap()]),
        signing: Arc::new(signing),
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
struct Hand(Mutex<SystemTime>);

impl Hand {
    fn new() -> Arc<Self> {
        let begin = "20261121T020000Z-00000000".parse::<Id>().unwrap().time();
        Arc::new(Self(Mutex::new(begin)))
    }

    fn an_hour_later(&self) {
        *self.0.lock().unwrap() += Duration::from_secs(3600);
    }
}

impl Clock for Hand {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// All that format 1 stores, by key.
async fn v1() -> BTreeMap<String, Vec<u8>> {
    let (keys, sink, clock) = (keys(), MemorySink::new(), Hand::new());
    let pipeline = Pipeline::encrypted(keys.age)
        .compress(Zstd::level(3))
        .sign_parts(Sign::with(keys.signing.clone()))
        .sign(keys.signing)
        .trust(keys.trusted)
        .object_size(4096);
    let orders = Job::builder("orders")
        .source(MemorySource::new(parts()))
        .pipeline(pipeline)
        .sink("memory", sink.clone())
        .retention(KeepLast::new(1).unwrap())
        .schedule("0 2 * * *")
        .expires_after(Duration::from_secs(86_400))
        .clock(clock.clone())
        .build()
        .unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let options = RunOptions::default().label("golden");
        ids.push(orders.run(options).await.unwrap().id);
        clock.an_hour_later();
    }
    orders
        .hold(&ids[1], "asked for by the auditors")
        .await
        .unwrap();
    orders.hold(&ids[2], "by mistake").await.unwrap();
    clock.an_hour_later();
    orders.release(&ids[2]).await.unwrap();
    orders.verify(&ids[2], None).await.unwrap();
    clock.an_hour_later();
    let options = PruneOptions::default().max_deletes(1);
    let pruned = orders.prune(&options).await.unwrap();
    assert_eq!(pruned[0].deleted, [ids[0].clone()]);

    let root = tempfile::tempdir().unwrap();
    write_files(root.path());
    let folder = Job::builder("folder")
        .source(Files::new(root.path()))
        .pipeline(Pipeline::unencrypted().compress(Gzip::level(6)))
        .sink("memory", sink.clone())
        .clock(clock)
        .build()
        .unwrap();
    folder.run(RunOptions::default()).await.unwrap();

    let mut objects = BTreeMap::new();
    let listed: Vec<_> = sink.list(None).try_collect().await.unwrap();
    for object in listed {
        let data = sink.get(&object.locator(), None).await.unwrap();
        let bytes = data.collect(usize::MAX).await.unwrap();
        objects.insert(object.key.to_string(), bytes.to_vec());
    }
    objects
}

fn write_files(root: &Path) {
    for (name, text) in FILES {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir(root.join("empty")).unwrap();
}

/// The golden store, copied to where a test may write, as somebody reads it who cannot sign.
struct Stored {
    root: tempfile::TempDir,
}

impl Stored {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for (key, bytes) in stored() {
            let path = root.path().join(&key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Self { root }
    }

    fn orders(&self) -> Job {
        let keys = keys();
        let pipeline = Pipeline::encrypted(keys.age)
            .compress(Zstd::level(19))
            .trust(keys.trusted);
        self.job("orders", pipeline)
    }

    fn folder(&self) -> Job {
        let pipeline = Pipeline::unencrypted().compress(Gzip::level(1));
        self.job("folder", pipeline)
    }

    fn job(&self, name: &str, pipeline: Pipeline) -> Job {
        let job = Job::builder(name).pipeline(pipeline);
        job.sink("disk", FsSink::new(self.root.path()))
            .build()
            .unwrap()
    }

    /// Changes the manifest of `folder`, and the checksum that it has in SHA256SUMS.
    async fn change_manifest(&self, from: &str, to: &str) -> Id {
        let backup = self.folder().find("latest").await.unwrap();
        let id = backup.manifest.id.clone();
        let folder = self.root.path().join("folder").join(id.as_str());
        let (manifest, sums) = (folder.join("manifest.json"), folder.join("SHA256SUMS"));
        let before = read(&manifest);
        let after = before.replacen(from, to, 1);
        assert_ne!(before, after);
        let digest = |text: &str| Digest::of(text.as_bytes()).to_string();
        let changed = read(&sums).replace(&digest(&before), &digest(&after));
        fs::write(manifest, after).unwrap();
        fs::write(sums, changed).unwrap();
        id
    }
}

/// The golden objects by key.
fn stored() -> BTreeMap<String, Vec<u8>> {
    let root = golden().join("store");
    let mut objects = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(&root).unwrap().to_str().unwrap();
                objects.insert(key.to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    assert!(!objects.is_empty(), "{} is empty", root.display());
    objects
}

#[tokio::test]
async fn golden_backups_are_listed_with_all_that_was_attested() {
    let store = Stored::new();
    let history = store.orders().history().await.unwrap();
    // The prune record covers the first.
    assert_eq!(history.findings, []);
    let [third, second] = &history.backups[..] else {
        panic!("{:?}", history.backups);
    };
    assert_eq!((second.manifest.sequence, third.manifest.sequence), (2, 3));
    assert_eq!(second.held.as_deref(), Some("asked for by the auditors"));
    assert_eq!((&third.held, third.verified.is_some()), (&None, true));
    assert_eq!(third.manifest.previous, Some(second.digest));
    assert_eq!(third.manifest.labels, ["golden"]);
    assert_eq!(third.manifest.schedule.as_deref(), Some("0 2 * * *"));
    let finished = third.manifest.finished;
    assert_eq!(finished.to_string(), "2026-11-21T04:00:00Z");
    assert_eq!(store.folder().history().await.unwrap().backups.len(), 1);
}

#[tokio::test]
async fn golden_backups_verify_to_the_last_byte() {
    let store = Stored::new();
    for job in [store.orders(), store.folder()] {
        for backup in job.history().await.unwrap().backups {
            let [verified] = &job.verify(&backup.manifest.id, None).await.unwrap()[..] else {
                panic!("one sink");
            };
            assert!(verified.problems.is_empty(), "{:?}", verified.problems);
            assert_eq!(verified.level, Level::Decoded);
        }
    }
}

#[tokio::test]
async fn golden_backups_restore() {
    let store = Stored::new();
    let orders = store.orders();
    let parts: BTreeMap<_, _> = parts().into_iter().collect();
    for backup in orders.history().await.unwrap().backups {
        assert!(backup.manifest.part("rows.csv").unwrap().objects.len() > 1);
        let target = MemoryTarget::new();
        let id = &backup.manifest.id;
        orders
            .restore(id, &target, RestoreRequest::default())
            .await
            .unwrap();
        let restored = target.parts();
        assert_eq!(restored.len(), parts.len());
        for (name, bytes) in restored {
            assert_eq!(bytes, parts[name.as_str()], "{name}");
        }
    }
    let folder = store.folder();
    let id = folder.find("latest").await.unwrap().manifest.id.clone();
    let target = store.root.path().join("restored");
    let request = RestoreRequest::default();
    folder
        .restore(&id, &Folder::new(&target), request)
        .await
        .unwrap();
    for (name, text) in FILES {
        assert_eq!(read(target.join(name)), text);
    }
    assert!(target.join("empty").is_dir());
}

#[tokio::test]
async fn a_later_revision_s_fields_change_nothing() {
    let store = Stored::new();
    let later = "\"weather\": { \"tomorrow\": [1, null] },\n  \"parts\": [";
    let id = store.change_manifest("\"parts\": [", later).await;
    let job = store.folder();
    let manifest = job.find("latest").await.unwrap().manifest;
    assert_eq!(manifest.extra["weather"]["tomorrow"][0], 1);
    let again = Manifest::parse(&manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(again, *manifest);
    let verified = job.verify(&id, None).await.unwrap();
    assert!(
        verified[0].problems.is_empty(),
        "{:?}",
        verified[0].problems
    );
    let target = MemoryTarget::of_kind("files");
    job.restore(&id, &target, RestoreRequest::default())
        .await
        .unwrap();
    assert!(!target.parts()["files.tar"].is_empty());
}

#[tokio::test]
async fn a_later_format_is_refused_by_name() {
    let store = Stored::new();
    let (now, later) = (
        format!("\"format\": {FORMAT}"),
        format!("\"format\": {}", FORMAT + 1),
    );
    let id = store.change_manifest(&now, &later).await;
    let job = store.folder();
    let history = job.history().await.unwrap();
    assert!(history.backups.is_empty());
    let [
        Finding::Unreadable {
            id: Some(unreadable),
            ..
        },
    ] = &history.findings[..]
    else {
        panic!("{:?}", history.findings);
    };
    assert_eq!(*unreadable, id);
    let target = MemoryTarget::of_kind("files");
    let error = job
        .restore(&id, &target, RestoreRequest::default())
        .await
        .unwrap_err();
    let said = error.chain();
    assert!(
        said.contains(&format!("has format {}", FORMAT + 1)),
        "{said}"
    );
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{said}");
    assert!(target.parts().is_empty());
}

/// Every object with what does not change from run to run.
fn shape(objects: &BTreeMap<String, Vec<u8>>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (key, bytes) in objects {
        let name = same(key);
        lines.insert(name.clone());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        if name.ends_with("RESTORE.md") {
            // Its words may get better; what it consists of stays.
            let text = text(bytes);
            let lines_of = text.lines().filter(|l| l.starts_with(['#', '`']));
            let structure: Vec<&str> = lines_of
                .filter(|l| !l.starts_with("`") || l.starts_with("```"))
                .collect();
            lines.insert(format!("{name}: {}", same(&structure.join(" "))));
        } else if [".json", ".minisig", "SHA256SUMS"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            let mut above = Vec::new();
            for line in text(bytes).lines() {
                let line = same(line);
                // The line before shows the order.
                above = vec![above.pop().unwrap_or_default(), line];
                lines.insert(format!("{name}: {} / {}", above[0], above[1]));
            }
        }
    }
    lines
}

/// `text` without hashes, signatures, random ids and lengths of what is compressed.
fn same(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        let end = match is_word(first) {
            true => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        let hex = |word: &str| {
            word.chars()
                .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
        };
        out.push_str(&match word {
            w if w.len() == 64 && hex(w) => "<sha256>".to_owned(),
            w if w.len() > 50 => "<base64>".to_owned(),
            w => w
                .split('/')
                .map(|w| if w.len() == 8 && hex(w) { "<nonce>" } else { w })
                .collect::<Vec<_>>()
                .join("/"),
        });
        rest = after;
    }
    match out.split_once("\"len\": ") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}\"len\": <len>{after}")
        }
        None => out,
    }
}

#[tokio::test]
async fn what_is_written_now_has_the_shape_of_the_golden_files() {
    let (then, mut now) = (shape(&stored()), shape(&v1().await));
    now.retain(|line| !ADDED_SINCE.iter().any(|added| line.contains(added)));
    let gone: Vec<_> = then.difference(&now).collect();
    let new: Vec<_> = now.difference(&then).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "gone: {gone:#?}\nnew: {new:#?}"
    );
    // It is the shape of something.
    assert!(then.len() > 150, "{}", then.len());
}

#[tokio::test]
#[ignore = "writes tests/golden"]
async fn write() {
    let folder = golden();
    assert!(
        !folder.exists(),
        "{} is there: golden files are written once",
        folder.display()
    );
    let (age, signing) = (
        age_keygen(SystemTime::UNIX_EPOCH),
        SigningKey::generate().unwrap(),
    );
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put("test-keys/identity.txt", age.identity.expose().as_bytes());
    put(
        "test-keys/recipient.txt",
        format!("{}\n", age.recipient).as_bytes(),
    );
    put(
        "test-keys/minisign.key",
        signing.to_text(None).unwrap().expose().as_bytes(),
    );
    put(
        "test-keys/minisign.pub",
        signing.public().to_text().as_bytes(),
    );
    for (key, bytes) in v1().await {
        put(&format!("store/{}", Key::parse(key).unwrap()), &bytes);
    }
}
