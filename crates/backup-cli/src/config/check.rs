//! What a file may say field by field, but not as a whole.

use backup_core::retention::PolicySpec;
use backup_core::transform::Age;
use backup_core::{Key, PublicKey};

use super::de::{Mistake, join};
use super::words::{list, nearest};
use super::{Config, JobConfig, Keys, Options, Role, schedule};
use crate::Registry;
use crate::place::real;

/// The first mistake in `config`.
pub(crate) fn check(config: &Config, registry: &Registry) -> Result<(), Mistake> {
    if config.jobs.is_empty() {
        return Err(Mistake::at("jobs", "no job here; write [jobs.NAME]"));
    }
    keys(config)?;
    for (name, options) in &config.sinks {
        let path = join("sinks", name);
        named(&path, name)?;
        kind(&path, options, &registry.sink_types())?;
    }
    for (name, options) in &config.targets {
        let path = join("targets", name);
        named(&path, name)?;
        kind(&path, options, &registry.target_types())?;
    }
    for (name, job) in &config.jobs {
        let path = join("jobs", name);
        named(&path, name)?;
        kind(
            &join(&path, "source"),
            &job.source,
            &registry.source_types(),
        )?;
        self::job(&path, job, config)?;
    }
    Ok(())
}

fn named(path: &str, name: &str) -> Result<(), Mistake> {
    Key::check(name).map_err(|error| Mistake::at(path, error.to_string()))
}

fn kind(path: &str, options: &Options, known: &[&str]) -> Result<(), Mistake> {
    let kind = options.kind();
    if known.contains(&kind) {
        return Ok(());
    }
    Err(Mistake::at(
        join(path, "type"),
        match nearest(kind, known) {
            Some(near) => format!("{kind:?} is not known; did you mean {near:?}?"),
            None => format!("{kind:?} is not known; write {}", list(known)),
        },
    ))
}

fn keys(config: &Config) -> Result<(), Mistake> {
    let Keys {
        recipients,
        identity,
        identity_file,
        identity_command,
        signing_key,
        signing_key_file,
        signing_key_command,
        trusted_keys,
        ..
    } = &config.keys;
    for (index, recipient) in recipients.iter().enumerate() {
        let path = format!("keys.recipients[{index}]");
        if recipient.starts_with("AGE-SECRET-KEY-") {
            return Err(Mistake::at(
                path,
                "a secret key stands here; write the public one that begins with age1, \
                 and make a new pair if anybody could read this file",
            ));
        }
        if Age::to([recipient]).is_err() {
            return Err(Mistake::at(
                path,
                "is no recipient; write the line of recipient.txt that begins with age1",
            ));
        }
    }
    for (index, key) in trusted_keys.iter().enumerate() {
        if key.parse::<PublicKey>().is_err() {
            return Err(Mistake::at(
                format!("keys.trusted_keys[{index}]"),
                "is no public key; write the line of minisign.pub that begins with RW",
            ));
        }
    }
    for (name, given) in [
        (
            "identity",
            [
                identity.is_some(),
                identity_file.is_some(),
                identity_command.is_some(),
            ],
        ),
        (
            "signing_key",
            [
                signing_key.is_some(),
                signing_key_file.is_some(),
                signing_key_command.is_some(),
            ],
        ),
    ] {
        if given.iter().filter(|g| **g).count() > 1 {
            return Err(Mistake::at(
                join("keys", name),
                format!("given more than once; keep one of {name}, {name}_file and {name}_command"),
            ));
        }
    }
    if config.keys.can_sign() && trusted_keys.is_empty() {
        return Err(Mistake::at(
            "keys.trusted_keys",
            "missing, so that nobody would look at the signatures; \
             write [\"RW...\"], the second line of minisign.pub",
        ));
    }
    if config.role == Role::Writer {
        for (field, given) in [
            ("keys.identity", identity.is_some()),
            ("keys.identity_file", identity_file.is_some()),
            ("keys.identity_command", identity_command.is_some()),
        ] {
            if given {
                return Err(Mistake::at(
                    field,
                    "a writer must not hold what decrypts; remove it here, \
                     or write role = \"operator\"",
                ));
            }
        }
    }
    Ok(())
}

fn job(path: &str, job: &JobConfig, config: &Config) -> Result<(), Mistake> {
    let at = |field: &str, message: String| Err(Mistake::at(join(path, field), message));
    sinks(path, job, config)?;
    match job.min_copies {
        Some(0) => {
            return at(
                "min_copies",
                "0 copies are no backup; write 1 or more".into(),
            );
        }
        Some(n) if n > job.sinks.len() => {
            let most = job.sinks.len();
            return at(
                "min_copies",
                format!("{n} copies, but {most} in sinks; write at most {most}"),
            );
        }
        _ => {}
    }
    if config.keys.recipients.is_empty() && !job.unencrypted {
        return at(
            "unencrypted",
            "nothing encrypts this job; set keys.recipients, or write unencrypted = true".into(),
        );
    }
    if job.sign_parts && !config.keys.can_sign() {
        return at(
            "sign_parts",
            "there is no signing key; set keys.signing_key_file".into(),
        );
    }
    if job.threads.is_some_and(|n| n == 0 || n > 256) {
        return at("threads", "write 1 to 256".into());
    }
    if let Some(text) = &job.schedule {
        schedule::check(text).or_else(|message| at("schedule", message))?;
    }
    if let Some(zone) = &job.timezone
        && jiff::tz::TimeZone::get(zone).is_err()
    {
        return at(
            "timezone",
            format!("{zone:?} is not known; write a name such as \"Europe/Berlin\""),
        );
    }
    for (index, label) in job.labels.iter().enumerate() {
        named(&format!("{path}.labels[{index}]"), label)?;
    }
    if let Some(policy) = &job.retention {
        retention(&join(path, "retention"), policy)?;
    }
    for (name, policy) in &job.retention_by_sink {
        retention(&join(&join(path, "retention_by_sink"), name), policy)?;
        if !job.sinks.contains(name) {
            return Err(Mistake::at(
                join(&join(path, "retention_by_sink"), name),
                unknown_sink(name, &job.sinks),
            ));
        }
    }
    Ok(())
}

fn retention(path: &str, policy: &PolicySpec) -> Result<(), Mistake> {
    match policy.build() {
        Ok(_) => Ok(()),
        Err(error) => Err(Mistake::at(path, error.chain())),
    }
}

fn sinks(path: &str, job: &JobConfig, config: &Config) -> Result<(), Mistake> {
    let path = join(path, "sinks");
    if job.sinks.is_empty() {
        return Err(Mistake::at(
            path,
            r#"no sink here; write a name from [sinks], such as ["local"]"#,
        ));
    }
    let known: Vec<&String> = config.sinks.keys().collect();
    for (index, name) in job.sinks.iter().enumerate() {
        let at = |message: String| Err(Mistake::at(format!("{path}[{index}]"), message));
        let Some(options) = config.sinks.get(name) else {
            return at(unknown_sink(name, &known));
        };
        for earlier in &job.sinks[..index] {
            if earlier == name {
                return at(format!("{name:?} is in the list twice; remove one"));
            }
            if config
                .sinks
                .get(earlier)
                .is_some_and(|e| same_place(e, options))
            {
                return at(format!(
                    "{name:?} is the same place as {earlier:?}, which makes one copy, not two; \
                     remove one"
                ));
            }
        }
    }
    Ok(())
}

fn unknown_sink<S: AsRef<str>>(name: &str, known: &[S]) -> String {
    match nearest(name, known) {
        Some(near) => format!("no sink is called {name:?}; did you mean {near:?}?"),
        None if known.is_empty() => {
            format!("no sink is called {name:?}; write [sinks.{name}] with a type")
        }
        None => format!("no sink is called {name:?}; write {}", list(known)),
    }
}

/// Two sinks of which one would hold the other's copy: equal tables, or one folder by two names.
fn same_place(a: &Options, b: &Options) -> bool {
    let folder = |options: &Options| Some(real(&options.resolve(options.text("path")?)));
    a == b || (a.kind() == b.kind() && folder(a).is_some() && folder(a) == folder(b))
}
