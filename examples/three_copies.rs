//! Three places, two of which must have a backup; each keeps as many as it has room for.
//!
//! ```sh
//! cargo run --example three_copies
//! ```

use std::fs;

use lifebelt::fs::FsSink;
use lifebelt::retention::KeepLast;
use lifebelt::transform::{Age, Zstd, age_keygen};
use lifebelt::{
    Clock, Job, MemorySource, Pipeline, PruneOptions, Report, Result, RunOptions, Status,
    SystemClock,
};

#[tokio::main]
async fn main() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let at = |name: &str| temp.path().join(name);
    // The share is not mounted: where its folder should be, there is a file.
    fs::write(at("share"), "not mounted")?;

    let age = age_keygen(SystemClock.now());
    let pipeline = Pipeline::encrypted(Age::to([&age.recipient])?).compress(Zstd::level(3));
    let job = Job::builder("orders")
        .source(MemorySource::new([("orders.csv", "7,anvil\n8,rope\n")]))
        .pipeline(pipeline)
        .sink("disk", FsSink::new(at("disk")))
        .sink("share", FsSink::new(at("share")))
        .sink("offsite", FsSink::new(at("offsite")))
        .min_copies(2)
        .retention(KeepLast::new(4)?)
        .retention_for("offsite", KeepLast::new(3)?)
        .build()?;

    println!(
        "One sink is broken. The source is read once all the same, and two copies are enough:"
    );
    let report = job.run(RunOptions::default()).await?;
    tell(&report);
    assert_eq!(report.status(), Status::Complete);
    let failed = report.copies.iter().filter(|copy| copy.error.is_some());
    assert_eq!(failed.map(|copy| &copy.sink).collect::<Vec<_>>(), ["share"]);

    println!("\nThe share is back, and there are five more backups:");
    fs::remove_file(at("share"))?;
    for _ in 0..5 {
        let report = job.run(RunOptions::default()).await?;
        assert!(report.copies.iter().all(|copy| copy.error.is_none()));
    }
    list(&job).await?;

    println!("\nWhat would go, and why. Nothing happens yet:");
    let options = PruneOptions::default();
    for plan in job.plan_prune(&options).await? {
        for planned in &plan.plan.entries {
            let reasons: Vec<String> = planned.reasons().iter().map(|r| r.to_string()).collect();
            match reasons.is_empty() {
                true => println!("  {}: number {} goes", plan.sink, planned.sequence),
                false => println!(
                    "  {}: number {} stays: {}",
                    plan.sink,
                    planned.sequence,
                    reasons.join(", ")
                ),
            }
        }
    }

    println!("\nAfter the prune every sink has what its own policy keeps:");
    let pruned = job.prune(&options).await?;
    let counts: Vec<usize> = pruned.iter().map(|report| report.deleted.len()).collect();
    assert_eq!(counts, [2, 1, 3], "of 6 in disk, 5 in share, 6 in offsite");
    assert!(pruned.iter().all(|report| report.kept.is_empty()));
    list(&job).await?;
    Ok(())
}

fn tell(report: &Report) {
    for copy in &report.copies {
        match &copy.error {
            None => println!("  {}: complete", copy.sink),
            Some(error) => println!("  {}: {}", copy.sink, error.chain()),
        }
    }
}

async fn list(job: &Job) -> Result<()> {
    let history = job.history().await?;
    assert!(history.findings.is_empty(), "{:?}", history.findings);
    for backup in &history.backups {
        let sinks: Vec<&str> = backup
            .copies
            .iter()
            .map(|copy| copy.sink.as_str())
            .collect();
        println!(
            "  number {} in {}",
            backup.manifest.sequence,
            sinks.join(", ")
        );
    }
    Ok(())
}
