//! What every verb needs: the configuration, and jobs made from it.

use std::sync::Arc;

use backup_core::transform::{Age, Gzip, Sign, Zstd};
use backup_core::{
    Backup, Error, ErrorKind, Id, Job, Pipeline, PublicKey, Result, SigningKey, TrustedKeys,
};
use indicatif::ProgressBar;

use crate::Registry;
use crate::args::Output;
use crate::config::words::{list, nearest};
use crate::config::{Compress, JobConfig, Loaded, Role};
use crate::progress::Progress;

/// The memory that a run may take when nobody says how many threads it may use.
const MODEST: usize = 64 << 20;

/// What a job is made for: nothing is read that this does not need, so that a host without the
/// signing key can restore and a host without the identity can back up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Run, prune, hold: needs the source and the signing key, not the identity.
    Write,
    /// List, restore, fetch: needs the identity if there is one.
    Read,
    /// Both keys, where this host has them: reads everything, and signs what it found.
    Verify,
}

/// The configuration and what goes with it.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) loaded: Loaded,
    pub(crate) registry: &'a Registry,
    pub(crate) output: Output,
    pub(crate) bar: ProgressBar,
}

impl Context<'_> {
    /// The names of all jobs.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &str> {
        self.loaded.config.jobs.keys().map(String::as_str)
    }

    /// The job that was named, or the only one there is.
    pub(crate) fn named_or_only<'a>(&'a self, named: Option<&'a str>) -> Result<&'a str> {
        let all: Vec<&str> = self.jobs().collect();
        match (named, all.as_slice()) {
            (Some(name), _) => Ok(name),
            (None, [only]) => Ok(only),
            (None, _) => Err(Error::new(
                ErrorKind::Invalid,
                format!("which job? write {}", list(&all)),
            )),
        }
    }

    /// Whether a job has this name.
    pub(crate) fn has_job(&self, name: &str) -> bool {
        self.loaded.config.jobs.contains_key(name)
    }

    /// One job.
    pub(crate) fn job(&self, name: &str, purpose: Purpose) -> Result<Job> {
        self.build(name, purpose, false)
    }

    /// One job, to restore: `production` makes its guard ask for more.
    pub(crate) fn build(&self, name: &str, purpose: Purpose, production: bool) -> Result<Job> {
        let Some(config) = self.loaded.config.jobs.get(name) else {
            let known: Vec<&str> = self.jobs().collect();
            return Err(Error::new(
                ErrorKind::Invalid,
                match nearest(name, &known) {
                    Some(near) => format!("no job is called {name:?}; did you mean {near:?}?"),
                    None => format!("no job is called {name:?}; write {}", list(&known)),
                },
            ));
        };
        let pipeline = self.pipeline(name, config, purpose)?;
        let assemble =
            |threads| self.assemble(name, config, purpose, production, &pipeline, threads);
        if let Some(threads) = config.threads {
            return assemble(threads);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for threads in (2..=cores).rev() {
            let job = assemble(threads)?;
            if job.memory_bound() <= MODEST {
                return Ok(job);
            }
        }
        assemble(1)
    }

    fn assemble(
        &self,
        name: &str,
        config: &JobConfig,
        purpose: Purpose,
        production: bool,
        pipeline: &Pipeline,
        threads: usize,
    ) -> Result<Job> {
        let mut job = Job::builder(name)
            .pipeline(pipeline.clone().threads(threads))
            .production(production)
            .incremental(config.incremental)
            .observer(Progress::new(self.bar.clone()));
        let source = || self.registry.make_source(&config.source);
        match purpose {
            Purpose::Write => job = job.source(source()?),
            // A store is asked for what it keeps itself, where this host has what that takes.
            Purpose::Verify => {
                if let Ok(source) = source() {
                    job = job.source(source);
                }
            }
            Purpose::Read => {}
        }
        for sink in &config.sinks {
            let options = &self.loaded.config.sinks[sink];
            job = job.sink(sink, self.registry.make_sink(options)?);
        }
        if let Some(copies) = config.min_copies {
            job = job.min_copies(copies);
        }
        if let Some(policy) = &config.retention {
            job = job.retention(policy.build()?);
        }
        for (sink, policy) in &config.retention_by_sink {
            job = job.retention_for(sink, policy.build()?);
        }
        if let Some(schedule) = &config.schedule {
            job = job.schedule(schedule);
        }
        if let Some(span) = config.expires_after {
            job = job.expires_after(span.into());
        }
        if let Some(span) = config.lock {
            job = job.lock(span.into());
        }
        if let Some(span) = config.max_run {
            job = job.max_run(span.into());
        }
        if let Some(dir) = &self.loaded.config.state_dir {
            job = job.state_dir(dir);
        }
        job.build()
    }

    fn pipeline(&self, name: &str, config: &JobConfig, purpose: Purpose) -> Result<Pipeline> {
        let keys = &self.loaded.config.keys;
        let age = self.age(purpose)?;
        let mut pipeline = match age {
            Some(age) if !config.unencrypted => Pipeline::encrypted(age),
            // Older backups of this job may be encrypted.
            Some(age) => Pipeline::unencrypted().reads(age),
            None => Pipeline::unencrypted(),
        };
        pipeline = match config.compress {
            Compress::Zstd(level) => pipeline.compress(Zstd::level(level)),
            Compress::Gzip(level) => pipeline.compress(Gzip::level(level)),
            Compress::None => pipeline,
        };
        // And compressed in another way.
        pipeline = pipeline.reads(Zstd::default()).reads(Gzip::default());
        let mut trusted = Vec::new();
        for key in &keys.trusted_keys {
            trusted.push(key.parse::<PublicKey>()?);
        }
        if let Some(key) = self.signing_key(purpose, &trusted)? {
            let key = Arc::new(key);
            if config.sign_parts {
                pipeline = pipeline.sign_parts(Sign::with(Arc::clone(&key)));
            }
            pipeline = pipeline.sign(key);
        } else if purpose == Purpose::Write && !trusted.is_empty() {
            return Err(self.loaded.wrong(
                "keys.signing_key_file",
                format!("missing; job {name:?} trusts only what is signed, and could not sign"),
            ));
        }
        if !trusted.is_empty() {
            pipeline = pipeline.trust(TrustedKeys::new(trusted));
        }
        if let Some(rate) = config.rate_limit {
            pipeline = pipeline.rate_limit(rate.0);
        }
        if let Some(verify) = config.verify_after_encode {
            pipeline = pipeline.verify_after_encode(verify);
        }
        if let Some(span) = config.stall_timeout {
            pipeline = pipeline.stall_timeout(span.into());
        }
        Ok(pipeline)
    }

    fn age(&self, purpose: Purpose) -> Result<Option<Age>> {
        let recipients = &self.loaded.config.keys.recipients;
        let identity = match purpose {
            Purpose::Write => None,
            Purpose::Read | Purpose::Verify => self.loaded.identity()?,
        };
        let wrong = |error: Error| self.loaded.wrong("keys.identity", error.chain());
        Ok(match (recipients.is_empty(), identity) {
            (true, None) => None,
            (true, Some(identity)) => Some(Age::own(identity.expose()).map_err(wrong)?),
            (false, None) => Some(Age::to(recipients)?),
            (false, Some(identity)) => Some(
                Age::to(recipients)?
                    .with_identity(identity.expose())
                    .map_err(wrong)?,
            ),
        })
    }

    fn signing_key(&self, purpose: Purpose, trusted: &[PublicKey]) -> Result<Option<SigningKey>> {
        if purpose == Purpose::Read {
            return Ok(None);
        }
        match self.load_signing_key() {
            // Whoever only looks may do without.
            Err(error) if purpose == Purpose::Verify => {
                tracing::warn!("nothing will be attested: {}", error.chain());
                Ok(None)
            }
            Ok(Some(key)) if !trusted.contains(&key.public()) => Err(self.loaded.wrong(
                "keys.trusted_keys",
                format!(
                    "the signing key is not among them, so its backups would be refused; \
                     add \"{}\"",
                    key.public()
                ),
            )),
            other => other,
        }
    }

    /// The signing key of this host, opened.
    pub(crate) fn load_signing_key(&self) -> Result<Option<SigningKey>> {
        let Some(text) = self.loaded.signing_key()? else {
            return Ok(None);
        };
        let password = self.loaded.signing_key_password()?;
        SigningKey::from_text(text.expose(), password.as_ref().map(|p| p.expose()))
            .map(Some)
            .map_err(|error| {
                let keys = &self.loaded.config.keys;
                let field = match (&keys.signing_key_file, &keys.signing_key_command) {
                    (Some(_), _) => "keys.signing_key_file",
                    (None, Some(_)) => "keys.signing_key_command",
                    (None, None) => "keys.signing_key",
                };
                let fix = match password {
                    Some(_) => "",
                    None => "; a passphrase goes into keys.signing_key_password_file",
                };
                self.loaded.wrong(field, format!("{}{fix}", error.chain()))
            })
    }

    /// A writer must not lie beside what decrypts, configured or not.
    pub(crate) fn refuse_identity(&self) -> Result<()> {
        if self.loaded.config.role != Role::Writer {
            return Ok(());
        }
        let keys = &self.loaded.config.keys;
        let beside_key = keys.signing_key_file.as_ref().and_then(|f| f.parent());
        for dir in [Some(self.loaded.dir()), beside_key].into_iter().flatten() {
            let identity = dir.join("identity.txt");
            if identity.exists() {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "{} is on this host, whose role is writer; move it to where restores \
                         happen, or write role = \"operator\"",
                        identity.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A backup by job (its newest), id, the beginning of one, or label, in whichever job has it.
    pub(crate) async fn find(&self, name: &str, purpose: Purpose) -> Result<(Job, Backup)> {
        if self.has_job(name) {
            let job = self.job(name, purpose)?;
            let backup = job.find("latest").await?;
            return Ok((job, backup));
        }
        let mut found: Option<(Job, Backup)> = None;
        let mut failed = None;
        for job in self.jobs() {
            let job = self.job(job, purpose)?;
            match job.find(name).await {
                Ok(backup) if name.parse::<Id>().is_ok() => return Ok((job, backup)),
                Ok(backup) => match &found {
                    Some((first, other)) => {
                        return Err(Error::new(
                            ErrorKind::Invalid,
                            format!(
                                "{name:?} is {} in job {:?} and {} in job {:?}; write the id",
                                other.manifest.id,
                                first.name(),
                                backup.manifest.id,
                                job.name(),
                            ),
                        ));
                    }
                    None => found = Some((job, backup)),
                },
                Err(error) => match error.kind() {
                    ErrorKind::NotFound => {}
                    // It is about this very name.
                    ErrorKind::Corrupt | ErrorKind::Invalid => return Err(error),
                    // A job that is away must not keep another's backup from coming back.
                    _ => failed = failed.or(Some(error)),
                },
            }
        }
        match (found, failed) {
            (Some(found), None) => Ok(found),
            (Some(found), Some(error)) => {
                tracing::warn!("not looked for {name:?} everywhere: {}", error.chain());
                Ok(found)
            }
            (None, Some(error)) => Err(error),
            (None, None) => {
                let known: Vec<&str> = self.jobs().collect();
                let near = nearest(name, &known)
                    .map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                Err(Error::new(
                    ErrorKind::NotFound,
                    format!("no backup, label or job is called {name:?}{near}"),
                ))
            }
        }
    }
}
