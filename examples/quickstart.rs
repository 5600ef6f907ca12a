//! Backs a folder up and brings it back: the whole way round, with nothing installed but Rust.
//!
//! ```sh
//! cargo run --release --example quickstart [FOLDER]
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use lifebelt::files::{Files, Folder};
use lifebelt::fs::FsSink;
use lifebelt::transform::{Age, Zstd, age_keygen};
use lifebelt::{
    Clock, Error, ErrorKind, Event, Job, Observer, Pipeline, RestoreRequest, Result, RunOptions,
    SigningKey, SystemClock, TrustedKeys,
};

const CRATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates");

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| CRATES.into());
    let temp = tempfile::Builder::new().prefix("lifebelt-").tempdir()?;
    let at = |name: &str| temp.path().join(name);

    // Who encrypts needs `recipient` only, who checks `public` only. A host that writes backups
    // holds neither the identity nor the keys of others; here one program does everything.
    let age = age_keygen(SystemClock.now());
    let signing = SigningKey::generate()?;
    let public = signing.public();
    fs::write(at("identity.txt"), age.identity.expose())?;
    fs::write(at("minisign.pub"), public.to_text())?;

    let job = Job::builder("quickstart")
        .source(Files::new(&folder))
        .pipeline(
            Pipeline::encrypted(Age::to([&age.recipient])?.with_identity(age.identity.expose())?)
                .compress(Zstd::level(3))
                .sign(signing)
                .trust(TrustedKeys::new([public])),
        )
        .sink("disk", FsSink::new(at("disk")))
        .sink("spare", FsSink::new(at("spare")))
        .observer(Progress::default())
        .build()?;

    heading(&format!("back up {}", Path::new(&folder).display()));
    let report = job.run(RunOptions::default()).await?;
    let (plain, stored) = (mib(report.plain_bytes), mib(report.stored_bytes));
    println!("{plain} became {stored} in {:.1?}", report.elapsed);

    heading("list");
    for backup in job.history().await?.backups {
        let sinks: Vec<&str> = backup.copies.iter().map(|c| c.sink.as_str()).collect();
        println!("{} in {}", backup.manifest.id, sinks.join(" and "));
    }

    heading("verify: read every copy back, decode it, compare signatures and hashes");
    for copy in job.verify(&report.id, None).await? {
        if let Some(problem) = copy.problems.into_iter().next() {
            return Err(problem.error);
        }
        println!("{} objects in {} are right", copy.objects, copy.sink);
    }

    heading("restore elsewhere, and compare");
    let target = Folder::new(at("restored"));
    let request = RestoreRequest::default();
    job.restore(&report.id, &target, request).await?;
    let files = compare(Path::new(&folder), &at("restored"))?;
    println!("{files} files are the same, byte for byte");

    heading("the same without Lifebelt, as the RESTORE.md of this backup has it");
    let stored = at("disk").join("quickstart").join(report.id.as_str());
    print_commands(&stored, temp.path())?;
    if io::stdout().is_terminal() {
        let kept = temp.keep();
        println!("\nTry them; then remove {}.", kept.display());
    }
    Ok(())
}

/// Says on a terminal how far it is, and everywhere what is durable.
#[derive(Debug, Default)]
struct Progress(AtomicU64);

impl Observer for Progress {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::PartStarted { .. } | Event::Verified { .. } => {
                self.0.store(0, Ordering::Relaxed)
            }
            Event::Progress { plain, .. } if io::stderr().is_terminal() => {
                let bytes = self.0.fetch_add(*plain, Ordering::Relaxed) + plain;
                eprint!("\r{} \r", mib(bytes));
            }
            Event::Committed { sink, .. } => println!("complete in {sink}"),
            Event::SinkFailed { sink, error } => println!("{sink} failed: {}", error.chain()),
            _ => {}
        }
    }
}

/// How many files are under `a`, if `b` has the same and nothing else.
fn compare(a: &Path, b: &Path) -> io::Result<u64> {
    let names = names(a)?;
    let mut same = names == self::names(b)?;
    let mut files = 0;
    for name in names {
        let (a, b) = (a.join(&name), b.join(&name));
        let kind = a.symlink_metadata()?.file_type();
        if kind.is_dir() {
            files += compare(&a, &b)?;
        } else if kind.is_symlink() {
            same &= fs::read_link(&a)? == fs::read_link(&b)?;
        } else {
            same &= same_bytes(&a, &b)?;
            files += 1;
        }
    }
    match same {
        true => Ok(files),
        false => Err(Error::new(ErrorKind::Corrupt, format!("{} differs", b.display())).into()),
    }
}

/// What a backup of `folder` holds: no sockets, pipes or devices.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() || kind.is_symlink() || kind.is_file() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    Ok(names)
}

fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    let open = |path| Ok::<_, io::Error>(BufReader::new(File::open(path)?));
    let (mut a, mut b) = (open(a)?, open(b)?);
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let n = left.len().min(right.len());
        if n == 0 || left[..n] != right[..n] {
            return Ok(left.is_empty() && right.is_empty());
        }
        a.consume(n);
        b.consume(n);
    }
}

/// How a stored `RESTORE.md` is run, after what sets its variables, and what it runs.
fn print_commands(backup: &Path, temp: &Path) -> io::Result<()> {
    let at = |name: &str| temp.join(name).display().to_string();
    println!("cd {} && mkdir {}", backup.display(), at("by-hand"));
    println!("export PUBLIC_KEY={}", at("minisign.pub"));
    println!(
        "export IDENTITY={} TARGET={}",
        at("identity.txt"),
        at("by-hand")
    );
    let mut commands = false;
    for line in fs::read_to_string(backup.join("RESTORE.md"))?.lines() {
        match line {
            "```sh" => commands = true,
            "```" => commands = false,
            _ if commands => println!("    {line}"),
            _ if line.starts_with("    ") => println!("{}\n\nwhich runs", line.trim()),
            _ => {}
        }
    }
    Ok(())
}

fn heading(text: &str) {
    println!("\n== {text}");
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
