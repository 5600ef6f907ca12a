//! Any objects under any names: history, verify, restore and prune end with an answer.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use backup_core::retention::{Any, Counts, Gfs, KeepDays, KeepLast, RetentionPolicy, Within};
use backup_core::transform::{Gzip, Zstd};
use backup_core::{
    ByteStream, Job, Key, MemorySink, MemorySource, MemoryTarget, Pipeline, PruneOptions,
    PutOptions, RestoreRequest, RunOptions, Sink,
};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
});

/// Names that a reader looks at, and one that it should not.
const NAMES: [&str; 16] = [
    "20261121T020000Z-1a2b3c4d/manifest.json",
    "20261121T020000Z-1a2b3c4d/SHA256SUMS",
    "20261121T020000Z-1a2b3c4d/RESTORE.md",
    "20261121T020000Z-1a2b3c4d/copy.json",
    "20261121T020000Z-1a2b3c4d/a",
    "20261121T020000Z-1a2b3c4d/a.zst",
    "20261121T020000Z-1a2b3c4d/a.001",
    "20261122T020000Z-5e6f7a8b/manifest.json",
    "20261122T020000Z-5e6f7a8b/manifest.json.minisig",
    "20261122T020000Z-5e6f7a8b/SHA256SUMS",
    "20261122T020000Z-5e6f7a8b/a.gz",
    "attestations/20261121T020000Z-1a2b3c4d/20261121T030000Z-hold-00000000.json",
    "attestations/20261121T020000Z-1a2b3c4d/20261121T040000Z-verified-00000000.json",
    "prunes/20261121T030000Z-00000000.json",
    "prunes/20261121T040000Z-00000000.json",
    "stranger/manifest.json",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    RUNTIME.block_on(async {
        let sink = MemorySink::new();
        fill(&sink, bytes).await;
        look(&job(sink), *choice).await;
    });
});

fn job(sink: MemorySink) -> Job {
    let pipeline = Pipeline::unencrypted()
        .reads(Zstd::level(1))
        .reads(Gzip::level(1));
    Job::builder("job")
        .source(MemorySource::new([("a", "new")]))
        .pipeline(pipeline)
        .sink("memory", sink)
        .retention(policy())
        .build()
        .expect("a job")
}

/// What looks at times in every way.
fn policy() -> Any {
    let counts = Counts {
        hourly: 1,
        daily: 2,
        weekly: 1,
        monthly: 1,
        yearly: 1,
        ..Counts::default()
    };
    let gfs = Gfs::new(counts).and_then(|gfs| gfs.in_zone("Europe/Berlin"));
    let policies: [Arc<dyn RetentionPolicy>; 4] = [
        Arc::new(KeepLast::new(1).expect("one")),
        Arc::new(KeepDays::new(1).expect("one")),
        Arc::new(Within::new(Duration::from_secs(3600)).expect("an hour")),
        Arc::new(gfs.expect("a policy").by_calendar()),
    ];
    Any::new(policies.into()).expect("four policies")
}

/// Always the history, and sometimes what takes longer.
async fn look(job: &Job, choice: u8) {
    let Ok(history) = job.history().await else {
        return;
    };
    drop(job.find("latest").await);
    let ids = history.backups.iter().map(|b| &b.manifest.id);
    match choice % 16 {
        0 => {
            for id in ids {
                drop(job.verify(id, None).await);
            }
        }
        1 => {
            for id in ids {
                let target = MemoryTarget::new();
                drop(job.restore(id, &target, RestoreRequest::default()).await);
            }
        }
        2 => {
            drop(job.prune(&PruneOptions::default()).await);
            drop(job.history().await);
        }
        3 => {
            drop(job.run(RunOptions::default()).await);
            drop(job.history().await);
        }
        _ => drop(job.plan_prune(&PruneOptions::default()).await),
    }
}

/// `name length_low length_high bytes`, again and again.
async fn fill(sink: &MemorySink, mut bytes: &[u8]) {
    while let [name, low, high, rest @ ..] = bytes {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let name = NAMES[usize::from(*name) % NAMES.len()];
        let key = Key::parse(format!("job/{name}")).expect("a key");
        let (object, after) = rest.split_at(len);
        let data = ByteStream::from_bytes(object.to_vec());
        drop(sink.put(&key, data, &PutOptions::default()).await);
        bytes = after;
    }
}
