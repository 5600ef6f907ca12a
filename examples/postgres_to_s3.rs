//! A database to a disk and to a locked bucket, and back from the bucket.
//!
//! ```sh
//! scripts/services install && scripts/services start && eval "$(scripts/services env)"
//! cargo run --features full --example postgres_to_s3
//! ```
//!
//! Takes any database in `DATABASE_URL`, which is only read, and makes a new one beside it,
//! `lifebelt_example`, to restore into. Without `DATABASE_URL` it is the test server's.

use lifebelt::fs::FsSink;
use lifebelt::postgres::{Postgres, PostgresDatabase};
use lifebelt::s3::{Lock, S3Sink};
use lifebelt::transform::{Age, Zstd, age_keygen};
use lifebelt::{
    Clock, Error, ErrorKind, Job, Pipeline, RestoreRequest, Result, RunOptions, SigningKey, Status,
    SystemClock, TrustedKeys,
};

#[tokio::main]
async fn main() -> Result<()> {
    let database = variable("DATABASE_URL").or_else(|_| variable("LIFEBELT_PG15_URL"))?;
    let disk = tempfile::tempdir()?;
    let bucket = variable("LIFEBELT_S3_LOCKED_BUCKET")?;
    // A prefix of its own: for a day nobody can delete what this example writes.
    let prefix = format!("example-{}", std::process::id());
    let offsite = S3Sink::builder(format!("s3://{bucket}/{prefix}"))
        .endpoint(variable("LIFEBELT_S3_ENDPOINT")?)
        .credentials(
            variable("LIFEBELT_S3_ACCESS_KEY")?,
            variable("LIFEBELT_S3_SECRET_KEY")?,
        )
        .lock(Lock::compliance(1))
        .build()?;

    let (age, signing) = (age_keygen(SystemClock.now()), SigningKey::generate()?);
    let trusted = TrustedKeys::new([signing.public()]);
    let age = Age::to([&age.recipient])?.with_identity(age.identity.expose())?;
    let job = Job::builder("orders")
        .source(Postgres::from_url(&database)?)
        .pipeline(
            Pipeline::encrypted(age)
                .compress(Zstd::level(3))
                .sign(signing)
                .trust(trusted),
        )
        .sink("disk", FsSink::new(disk.path()))
        .sink("offsite", offsite)
        .build()?;

    let report = job.run(RunOptions::default()).await?;
    assert_eq!(report.status(), Status::Complete);
    println!("{} is in:", report.id);
    for copy in &report.copies {
        println!("  {}", copy.sink);
    }
    println!("\nwhat the server told of it:");
    for (name, value) in job.find("latest").await?.manifest.facts.iter() {
        println!("  {name}: {value}");
    }

    println!("\nread back and compared:");
    for verification in job.verify(&report.id, None).await? {
        assert!(verification.problems.is_empty(), "{verification:?}");
        let (objects, sink) = (verification.objects, verification.sink);
        println!("  {objects} objects in {sink} are right");
    }

    // Beside the old one, which stays as it is until somebody switches over.
    let target = PostgresDatabase::from_url(beside(&database))?;
    let request = RestoreRequest::default()
        .from("offsite")
        .overwrite(target.to_string());
    let restored = job.restore(&report.id, &target, request).await?;
    println!(
        "\n{} parts from {} are back in {target}",
        restored.parts, restored.sink
    );
    Ok(())
}

/// The same server with another database.
fn beside(url: &str) -> String {
    let (head, parameters) = url.split_once('?').unwrap_or((url, ""));
    let server = head.rsplit_once('/').map_or(head, |(server, _)| server);
    format!("{server}/lifebelt_example?{parameters}")
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| {
        Error::new(
            ErrorKind::Invalid,
            format!("{name} is missing: eval \"$(scripts/services env)\" sets it"),
        )
    })
}
