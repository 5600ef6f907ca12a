//! `doctor`: tries what the other verbs rely on.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::transform::Age;
use backup_core::{
    ByteStream, Clock, ErrorKind, Health, Key, Locator, PublicKey, PutOptions, Result, Sink, Stamp,
    SystemClock,
};
use serde_json::{Value, json};

use crate::config::{Compress, Options, Role, human};
use crate::context::{Context, Purpose};
use crate::exit::{Answer, Exit};
use crate::output::count;

/// Less than this is worth a warning.
const LITTLE_SPACE: u64 = 1 << 30;

/// How long a canary is locked, in a sink that locks.
const CANARY: Duration = Duration::from_secs(60);

/// Checks everything and goes on after a failure. Exit code 4 if something must be mended.
pub(crate) async fn doctor(context: &Context<'_>) -> Result<Answer> {
    let mut checks = Checks::default();
    let jobs = context.jobs().count() as u64;
    checks.ok("configuration", count(jobs, "job"));
    keys(context, &mut checks);
    state(context, &mut checks);
    for (name, options) in &context.loaded.config.sinks {
        sink(context, name, options, &mut checks).await;
    }
    // Where backups are restored only, there is nothing to sign with.
    let own = &context.loaded.config.keys;
    let purpose = match own.can_sign() || own.trusted_keys.is_empty() {
        true => Purpose::Write,
        false => Purpose::Read,
    };
    for name in context.jobs() {
        let check = format!("job {name}");
        match context.job(name, purpose) {
            Ok(_) if purpose == Purpose::Read => {
                checks.warn(&check, "cannot run here: keys.signing_key_file is missing");
            }
            Ok(job) => {
                let bound = human(job.memory_bound() as u64);
                checks.ok(&check, format!("a run takes at most {bound} of memory"));
            }
            Err(error) => checks.fail(&check, error.chain()),
        }
    }
    tools(context, &mut checks);
    Ok(checks.answer())
}

#[derive(Default)]
struct Checks(Vec<(String, Health, String)>);

impl Checks {
    fn ok(&mut self, name: &str, detail: impl Into<String>) {
        self.add(name, Health::Ok, detail);
    }

    /// Works, and somebody should look at it.
    fn warn(&mut self, name: &str, detail: impl Into<String>) {
        self.add(name, Health::Warn, detail);
    }

    fn fail(&mut self, name: &str, detail: impl Into<String>) {
        self.add(name, Health::Fail, detail);
    }

    fn add(&mut self, name: &str, health: Health, detail: impl Into<String>) {
        self.0.push((name.to_owned(), health, detail.into()));
    }

    fn answer(self) -> Answer {
        let mut text = String::new();
        let mut checks: Vec<Value> = Vec::new();
        let mut failed = 0;
        for (name, health, detail) in &self.0 {
            let _ = writeln!(text, "{health:<4}  {name}: {detail}");
            failed += usize::from(*health == Health::Fail);
            let status = health.to_string().to_lowercase();
            checks.push(json!({ "name": name, "status": status, "detail": detail }));
        }
        Answer {
            exit: if failed == 0 {
                Exit::Ok
            } else {
                Exit::Unhealthy
            },
            text,
            json: json!({ "healthy": failed == 0, "checks": checks }),
        }
    }
}

fn keys(context: &Context<'_>, checks: &mut Checks) {
    let keys = &context.loaded.config.keys;
    for file in [
        &keys.identity_file,
        &keys.signing_key_file,
        &keys.signing_key_password_file,
    ]
    .into_iter()
    .flatten()
    {
        private(file, checks);
    }
    if let Err(error) = context.refuse_identity() {
        checks.fail("role", error.chain());
    }
    match context.loaded.identity() {
        Err(error) => checks.fail("identity", error.chain()),
        Ok(None) if context.loaded.config.role == Role::Writer => {
            checks.ok("identity", "not on this host, as it should be");
        }
        Ok(None) => checks.warn(
            "identity",
            "none: this host cannot restore what is encrypted",
        ),
        Ok(Some(identity)) => match Age::own(identity.expose()) {
            Err(error) => checks.fail("identity", error.chain()),
            Ok(age) => {
                let own = age.recipients();
                match keys.recipients.iter().any(|r| own.contains(r)) {
                    true => checks.ok("identity", "decrypts what is encrypted now"),
                    false => checks.fail(
                        "identity",
                        format!(
                            "opens none of keys.recipients; add {} there, or use the identity \
                             that belongs to them",
                            own.join(", ")
                        ),
                    ),
                }
            }
        },
    }
    let trusted: Vec<PublicKey> = keys
        .trusted_keys
        .iter()
        .filter_map(|k| k.parse().ok())
        .collect();
    match context.load_signing_key() {
        Err(error) => checks.fail("signing key", error.chain()),
        Ok(None) => checks.warn("signing key", "none: what this host writes is not signed"),
        Ok(Some(key)) if trusted.contains(&key.public()) => {
            checks.ok("signing key", format!("{}, trusted", key.public()));
        }
        Ok(Some(key)) => checks.fail(
            "signing key",
            format!("not among keys.trusted_keys; add \"{}\"", key.public()),
        ),
    }
    if trusted.is_empty() {
        checks.warn("trusted keys", "none: forged backups would not be noticed");
    }
}

/// Nobody but its owner may read a key.
fn private(file: &Path, checks: &mut Checks) {
    let name = format!("{}", file.display());
    match file.metadata() {
        Err(error) => checks.fail(&name, format!("cannot be read: {error}")),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => checks.fail(
            &name,
            format!(
                "has mode {:04o}, others can read it; run chmod 600 {name}",
                found.permissions().mode() & 0o7777
            ),
        ),
        Ok(_) => checks.ok(&name, "only its owner can read it"),
    }
}

fn state(context: &Context<'_>, checks: &mut Checks) {
    let Some(dir) = &context.loaded.config.state_dir else {
        checks.warn(
            "state_dir",
            "not set: a sink that was rolled back, and a second run at the same time, would not \
             be noticed",
        );
        return;
    };
    let probe = dir.join(".doctor");
    let tried = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&probe, b"lifebelt"))
        .and_then(|()| std::fs::remove_file(&probe));
    match tried {
        Ok(()) => checks.ok("state_dir", format!("{} can be written", dir.display())),
        Err(error) => checks.fail(
            "state_dir",
            format!("{} cannot be written: {error}", dir.display()),
        ),
    }
}

async fn sink(context: &Context<'_>, name: &str, options: &Options, checks: &mut Checks) {
    let check = format!("sink {name}");
    let sink = match context.registry.make_sink(options) {
        Ok(sink) => sink,
        Err(error) => return checks.fail(&check, error.chain()),
    };
    let writer = context.loaded.config.role == Role::Writer;
    match canary(&*sink, writer).await {
        Ok(detail) => checks.ok(&check, detail),
        Err(why) => checks.fail(&check, why),
    }
    match sink.examine().await {
        Ok(found) => {
            for one in found {
                checks.add(&format!("{check}, {}", one.name), one.health, one.detail);
            }
        }
        Err(error) => checks.fail(&check, error.chain()),
    }
    let check = format!("{check}, free space");
    match sink.free_space().await {
        Ok(Some(free)) if free < LITTLE_SPACE => {
            checks.warn(&check, format!("only {} left", human(free)));
        }
        Ok(Some(free)) => checks.ok(&check, format!("{} left", human(free))),
        Ok(None) => checks.ok(&check, "not known: the place does not tell"),
        Err(error) => checks.warn(&check, format!("not known: {}", error.chain())),
    }
}

/// Puts a small object, reads it, must not be able to overwrite it, deletes it.
async fn canary(sink: &dyn Sink, writer: bool) -> Result<String, String> {
    let failed = |what: &'static str| move |e: backup_core::Error| format!("{what}: {}", e.chain());
    let now = Stamp::from(SystemClock.now()).compact();
    let key = Key::parse(format!("lifebelt-doctor/{now}-{}", std::process::id()))
        .map_err(failed("name a canary"))?;
    let at = Locator::from(&key);
    // What is locked stays: not for as long as backups do.
    let options = match sink.capabilities().lock {
        true => PutOptions::default().retain_until(SystemClock.now() + CANARY),
        false => PutOptions::default(),
    };
    let put = |text: &'static str| {
        let data = ByteStream::from_bytes(text.as_bytes());
        let (sink, key, options) = (&sink, &key, &options);
        async move { sink.put(key, data, options).await }
    };
    put("canary").await.map_err(failed("a put fails"))?;
    let read = async {
        let bytes = sink.get(&at, None).await?.collect(64).await?;
        Ok(bytes.as_ref() == b"canary")
    };
    let read: Result<bool> = read.await;
    let second = put("another").await;
    let deleted = sink.delete(&at).await;
    match read {
        Err(error) if writer && error.kind() == ErrorKind::Denied => {}
        Err(error) => return Err(failed("a get fails")(error)),
        Ok(false) => return Err("a get gives other bytes than were put".into()),
        Ok(true) => {}
    }
    match second {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(failed("a second put of one key fails in a wrong way")(
                error,
            ));
        }
        Ok(_) => {
            return Err(
                "a second put overwrites the first: a damaged host could erase backups".into(),
            );
        }
    }
    match deleted {
        Ok(()) => Ok("put, get, refused to overwrite, deleted".into()),
        Err(error)
            if error.kind() == ErrorKind::Locked
                || (writer && error.kind() == ErrorKind::Denied) =>
        {
            Ok(format!(
                "put, get, refused to overwrite; the canary `{key}` stays: {}",
                error.chain()
            ))
        }
        Err(error) => Err(failed("a delete fails")(error)),
    }
}

/// What the RESTORE.md of these jobs will ask for.
fn tools(context: &Context<'_>, checks: &mut Checks) {
    let config = &context.loaded.config;
    let mut wanted = vec!["sha256sum"];
    if !config.keys.recipients.is_empty() {
        wanted.push("age");
    }
    if !config.keys.trusted_keys.is_empty() {
        wanted.push("minisign");
    }
    for job in config.jobs.values() {
        match job.compress {
            Compress::Zstd(_) => wanted.push("zstd"),
            Compress::Gzip(_) => wanted.push("gzip"),
            Compress::None => {}
        }
        if job.source.kind() == "files" {
            wanted.push("tar");
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    let (there, missing): (Vec<&str>, Vec<&str>) =
        wanted.into_iter().partition(|tool| on_path(tool).is_some());
    if !there.is_empty() {
        checks.ok("stock tools", there.join(", "));
    }
    if !missing.is_empty() {
        checks.warn(
            "stock tools",
            format!(
                "{} not on PATH: only needed to restore without lifebelt",
                missing.join(", ")
            ),
        );
    }
}

fn on_path(tool: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(tool))
        .find(|file| file.is_file())
}
