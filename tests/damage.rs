//! Nothing damaged restores: every byte of every object under an id is guarded.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use backup_core::{
    ErrorKind, Id, Job, MemorySource, MemoryTarget, RestoreRequest, RunOptions, TrustedKeys,
};
use lifebelt_tests::{Keys, job};

struct Stored {
    job: Job,
    root: PathBuf,
    ids: Vec<Id>,
    _folder: tempfile::TempDir,
}

impl Stored {
    /// Two small backups of one job.
    async fn new() -> Self {
        let (folder, keys) = (tempfile::tempdir().unwrap(), Keys::new());
        let root = folder.path().join("backups");
        let source = MemorySource::new([("rows.csv", "1,anvil\n2,rope\n"), ("empty", "")]);
        let job = job("orders", &keys, &root).source(source).build().unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(job.run(RunOptions::default()).await.unwrap().id);
        }
        Self {
            job,
            root,
            ids,
            _folder: folder,
        }
    }

    fn objects(&self, id: &Id) -> BTreeMap<String, PathBuf> {
        let folder = self.root.join("orders").join(id.as_str());
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        files
            .map(|f| (f.file_name().into_string().unwrap(), f.path()))
            .collect()
    }

    /// Verify and restore both refuse, name the object, and the target is as it was.
    async fn refuses(&self, id: &Id, object: &str, how: &str) {
        let name = format!("orders/{id}/{object}");
        let verified = self.job.verify(id, None).await.unwrap();
        let problems = &verified[0].problems;
        // A signature and what it signs vouch for each other: then both are named.
        let named = format!("`{name}`");
        assert!(
            problems
                .iter()
                .any(|p| p.error.kind() == ErrorKind::Corrupt && p.error.chain().contains(&named)),
            "{how} of {name}: verify found {problems:?}"
        );
        let target = MemoryTarget::new();
        let restored = self
            .job
            .restore(id, &target, RestoreRequest::default())
            .await;
        let error = restored.expect_err(&format!("{how} of {name} was restored"));
        assert_eq!(
            error.kind(),
            ErrorKind::Corrupt,
            "{how} of {name}: {error:?}"
        );
        assert!(
            error.chain().contains(&name),
            "{how} of {name}: {}",
            error.chain()
        );
        assert!(
            target.parts().is_empty(),
            "{how} of {name} reached the target"
        );
    }

    async fn is_whole(&self, id: &Id) {
        let verified = self.job.verify(id, None).await.unwrap();
        assert!(
            verified[0].problems.is_empty(),
            "{:?}",
            verified[0].problems
        );
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_byte_and_every_truncation_is_refused() {
    let stored = Stored::new().await;
    let id = &stored.ids[1];
    let (mut changes, mut truncations) = (0, 0);
    for (object, path) in stored.objects(id) {
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            put(&path, &changed);
            stored
                .refuses(id, &object, &format!("a changed byte at {at}"))
                .await;
            changes += 1;
            put(&path, &whole[..at]);
            stored
                .refuses(id, &object, &format!("a truncation to {at}"))
                .await;
            truncations += 1;
        }
        let longer = [whole.as_slice(), b"\n"].concat();
        put(&path, &longer);
        stored.refuses(id, &object, "a byte more").await;
        changes += 1;
        put(&path, &whole);
    }
    stored.is_whole(id).await;
    println!("damage: {changes} changes, {truncations} truncations, all refused");
    assert!(changes > 3000, "only {changes} bytes were there to change");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_another_backup_are_refused_as_damage() {
    let stored = Stored::new().await;
    let (first, second) = (
        stored.objects(&stored.ids[0]),
        stored.objects(&stored.ids[1]),
    );
    let mut swaps = 0;
    for (object, path) in &second {
        let (own, other) = (fs::read(path).unwrap(), fs::read(&first[object]).unwrap());
        if own != other {
            put(path, &other);
            stored.refuses(&stored.ids[1], object, "a swap").await;
            put(path, &own);
            swaps += 1;
        }
        fs::remove_file(path).unwrap();
        if object != "manifest.json" {
            stored.refuses(&stored.ids[1], object, "a removal").await;
        }
        put(path, &own);
    }
    // A manifest together with everything that vouches for it is still another backup's.
    for object in [
        "manifest.json",
        "manifest.json.minisig",
        "SHA256SUMS",
        "SHA256SUMS.minisig",
        "RESTORE.md",
    ] {
        put(&second[object], &fs::read(&first[object]).unwrap());
    }
    stored
        .refuses(&stored.ids[1], "manifest.json", "a swap of all documents")
        .await;
    println!("damage: {swaps} swaps, all refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_in_the_folder_is_damage_that_verify_names() {
    let stored = Stored::new().await;
    let id = &stored.ids[0];
    let path = stored
        .root
        .join("orders")
        .join(id.as_str())
        .join("notes.txt");
    put(&path, b"hello");
    let verified = stored.job.verify(id, None).await.unwrap();
    assert_eq!(verified[0].problems.len(), 1);
    assert_eq!(verified[0].problems[0].key.name(), "notes.txt");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_trusted_sign_damage() {
    let (folder, keys, others) = (tempfile::tempdir().unwrap(), Keys::new(), Keys::new());
    let source = || MemorySource::new([("rows.csv", "1,anvil\n")]);
    let writer = job("orders", &keys, folder.path())
        .source(source())
        .build()
        .unwrap();
    let id = writer.run(RunOptions::default()).await.unwrap().id;
    let pipeline = keys
        .pipeline()
        .trust(TrustedKeys::new([others.signing.public()]));
    let reader = job("orders", &keys, folder.path())
        .pipeline(pipeline)
        .build()
        .unwrap();
    let verified = reader.verify(&id, None).await.unwrap();
    assert_eq!(verified[0].problems[0].key.name(), "manifest.json");
    let restored = reader
        .restore(&id, &MemoryTarget::new(), RestoreRequest::default())
        .await;
    assert_eq!(restored.unwrap_err().kind(), ErrorKind::Corrupt);
}
