//! How long it takes to list many backups from a folder, every signature checked.
//!
//! Makes one real backup below `FOLDER` and from it `COUNT` small ones, each with a manifest and a
//! signature of its own (kept, so that a second call only lists), then times `Job::history` warm.
//!
//! `cargo run --release -p pipeline-bound --bin listing -- FOLDER [COUNT]`

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use backup_core::transform::{Age, age_keygen};
use backup_core::{
    Digest, Id, Job, Manifest, MemorySource, Pipeline, RunOptions, Signer, SigningKey, TrustedKeys,
};
use sink_fs::FsSink;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("usage: listing FOLDER [COUNT]"));
    let count: usize = args.next().map_or(10_000, |n| n.parse().expect("a count"));
    let keys = age_keygen(SystemTime::UNIX_EPOCH);
    let key_file = folder.join("key");
    let signing = match fs::read_to_string(&key_file) {
        Ok(text) => SigningKey::from_text(&text, None).expect("our own key"),
        Err(_) => SigningKey::generate().expect("random numbers"),
    };
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(&key_file, signing.to_text(None).expect("a key").expose()).expect("a key file");
    let trusted = TrustedKeys::new([signing.public()]);
    let pipeline = |trusted| {
        let age = Age::to([&keys.recipient]).expect("a fresh key");
        Pipeline::encrypted(age).trust(trusted)
    };
    let (root, signing) = (folder.join("sink"), Arc::new(signing));
    let job = Job::builder("hourly")
        .source(MemorySource::new([("rows.csv", "1,anvil\n")]))
        .pipeline(pipeline(trusted).sign(Arc::clone(&signing)))
        .sink("disk", FsSink::new(&root))
        .build()
        .expect("a job");
    let there = fs::read_dir(root.join("hourly")).map_or(0, Iterator::count);
    if there == 0 {
        let first = job.run(RunOptions::default()).await.expect("a run").id;
        multiply(&root.join("hourly"), &first, count, &*signing);
    }
    for round in 1..=3 {
        let started = Instant::now();
        let history = job.history().await.expect("a listing");
        println!(
            "round {round}: {} backups, {} findings, {:.2} s",
            history.backups.len(),
            history.findings.len(),
            started.elapsed().as_secs_f64()
        );
    }
}

/// Gives the job `count` backups in all: copies of the first, an hour apart, chained and signed.
fn multiply(job: &Path, first: &Id, count: usize, signer: &dyn Signer) {
    let read = |name: &str| fs::read(job.join(first.as_str()).join(name)).expect("a file of ours");
    let mut bytes = read("manifest.json");
    let mut manifest = Manifest::parse(&bytes).expect("our own manifest");
    for n in 1..count {
        let id = Id::new(first.time() + Duration::from_secs(3600 * n as u64)).expect("an id");
        let text = serde_json::to_string(&manifest).expect("JSON");
        let text = text.replace(manifest.id.as_str(), id.as_str());
        manifest = serde_json::from_str(&text).expect("a manifest");
        manifest.sequence += 1;
        manifest.previous = Some(Digest::of(&bytes));
        bytes = manifest.to_bytes().expect("JSON");
        let folder = job.join(id.as_str());
        fs::create_dir(&folder).expect("a new folder");
        for name in [
            "rows.csv.age",
            "RESTORE.md",
            "SHA256SUMS",
            "SHA256SUMS.minisig",
        ] {
            fs::write(folder.join(name), read(name)).expect("a file");
        }
        let comment = format!("lifebelt 1 hourly/{id}/manifest.json");
        let signature = signer.sign(&bytes, &comment).expect("a signature");
        fs::write(folder.join("manifest.json.minisig"), signature).expect("a file");
        fs::write(folder.join("manifest.json"), &bytes).expect("a file");
    }
}
