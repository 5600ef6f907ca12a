//! A job from end to end, in memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use backup_core::transform::{Age, Zstd, age_keygen};
use backup_core::*;
use std::time::SystemTime;

fn job(sinks: &[(&str, MemorySink)], parts: &[(&str, Vec<u8>)]) -> Job {
    let keys = age_keygen(SystemTime::UNIX_EPOCH);
    let signing = SigningKey::generate().unwrap();
    let age = Age::to([&keys.recipient])
        .unwrap()
        .with_identity(keys.identity.expose())
        .unwrap();
    let trusted = TrustedKeys::new([signing.public()]);
    let mut builder = Job::builder("orders")
        .source(MemorySource::new(
            parts.iter().map(|(n, b)| (*n, b.clone())),
        ))
        .pipeline(
            Pipeline::encrypted(age)
                .compress(Zstd::level(3))
                .sign(signing)
                .trust(trusted),
        );
    for (name, sink) in sinks {
        builder = builder.sink(*name, sink.clone());
    }
    builder.build().unwrap()
}

#[tokio::test]
async fn a_backup_comes_back() {
    let sinks = [("here", MemorySink::new()), ("there", MemorySink::new())];
    let big: Vec<u8> = (0..20_000_000u32)
        .flat_map(|i| (i / 7).to_le_bytes())
        .take(20_000_000)
        .collect();
    let job = job(&sinks, &[("a.bin", big.clone()), ("b.bin", Vec::new())]);
    let report = job.run(RunOptions::default().label("first")).await.unwrap();
    assert_eq!(report.status(), Status::Complete);
    assert_eq!(report.sequence, 1);
    job.run(RunOptions::default()).await.unwrap();
    let history = job.history().await.unwrap();
    assert_eq!(history.backups.len(), 2);
    assert!(history.findings.is_empty(), "{:?}", history.findings);
    for v in job.verify(&report.id, None).await.unwrap() {
        assert!(v.problems.is_empty(), "{:?}", v.problems);
        assert_eq!(v.level, Level::Decoded);
    }
    let target = MemoryTarget::new();
    job.restore(
        &job.find("first").await.unwrap().manifest.id,
        &target,
        RestoreRequest::default(),
    )
    .await
    .unwrap();
    assert_eq!(target.parts()["a.bin"], big);
    assert_eq!(target.parts()["b.bin"], Vec::<u8>::new());
}
