//! A job: a source, a pipeline, sinks, a policy and a schedule, with a name.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::original::originals;
use crate::patience::Patience;
use crate::retention::RetentionPolicy;
use crate::{
    Clock, Error, ErrorKind, Key, Observer, Pipeline, Quiet, Result, Sink, Source, SystemClock,
};

mod commit;
mod history;
mod locks;
mod parent;
mod prune;
mod receipts;
mod restore;
mod run;
mod space;
mod state;
mod verify;

pub use history::{Backup, Copy, History};
pub use prune::{PruneOptions, PrunePlan, PruneReport};
pub use restore::{RestorePlan, RestoreRequest, Restored};
pub use run::{Copied, Handle, Progress, Report, RunOptions, Status};
pub use verify::{Level, Problem, Verification};

/// Backs up one source to its sinks, and brings it back.
///
/// A handle: clones share everything, and every method may be called from any task. What is done
/// is told to the [`Observer`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> backup_core::Result<()> {
/// use backup_core::transform::{Age, Zstd, age_keygen};
/// use backup_core::{Job, MemorySink, MemorySource, MemoryTarget, Pipeline, RestoreRequest, RunOptions};
///
/// let keys = age_keygen(std::time::SystemTime::UNIX_EPOCH);
/// let age = Age::to([&keys.recipient])?.with_identity(keys.identity.expose())?;
/// let job = Job::builder("orders")
///     .source(MemorySource::new([("orders.csv", "7,anvil\n")]))
///     .pipeline(Pipeline::encrypted(age).compress(Zstd::level(3)))
///     .sink("here", MemorySink::new())
///     .sink("there", MemorySink::new())
///     .build()?;
/// let report = job.run(RunOptions::default()).await?;
///
/// let target = MemoryTarget::new();
/// job.restore(&report.id, &target, RestoreRequest::default()).await?;
/// assert_eq!(target.parts()["orders.csv"], "7,anvil\n");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Job(Arc<Inner>);

struct Inner {
    name: String,
    source: Option<Arc<dyn Source>>,
    pipeline: Pipeline,
    sinks: Vec<NamedSink>,
    min_copies: usize,
    retention: Option<Arc<dyn RetentionPolicy>>,
    schedule: Option<String>,
    expires_after: Option<Duration>,
    state_dir: Option<PathBuf>,
    production: bool,
    max_run: Duration,
    lock: Option<Duration>,
    incremental: bool,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
}

impl Inner {
    fn check_incremental(&self) -> Result<()> {
        let refused = |why: String| {
            let message = format!("job `{}` is incremental, {why}", self.name);
            Err(Error::new(ErrorKind::Invalid, message))
        };
        // A job without a source runs nothing.
        let Some(source) = self.source.as_ref().filter(|_| self.incremental) else {
            return Ok(());
        };
        if !source.incremental() {
            let kind = source.kind();
            return refused(format!("and a source of kind `{kind}` makes full backups"));
        }
        if self.lock.is_some() {
            return refused(
                "and asks for a lock: that of a backup would end before that of the next, which builds on it".into(),
            );
        }
        match self.state_dir {
            Some(_) => Ok(()),
            None => refused("and has no state_dir for what the next backup needs".into()),
        }
    }
}

struct NamedSink {
    name: String,
    sink: Arc<dyn Sink>,
    /// The same for reading: what was written, whatever hides it.
    original: Arc<dyn Sink>,
    /// Instead of the job's.
    retention: Option<Arc<dyn RetentionPolicy>>,
}

impl Job {
    /// A job called `name`, which is also its folder in every sink.
    pub fn builder(name: impl Into<String>) -> JobBuilder {
        JobBuilder {
            inner: Inner {
                name: name.into(),
                source: None,
                pipeline: Pipeline::unencrypted(),
                sinks: Vec::new(),
                min_copies: 0,
                retention: None,
                schedule: None,
                expires_after: None,
                state_dir: None,
                production: false,
                max_run: Duration::from_secs(24 * 3600),
                lock: None,
                incremental: false,
                observer: Arc::new(Quiet),
                clock: Arc::new(SystemClock),
            },
            pipeline_set: false,
            retention_by_sink: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The names of its sinks, in order.
    pub fn sinks(&self) -> impl Iterator<Item = &str> {
        self.0.sinks.iter().map(|sink| sink.name.as_str())
    }

    /// The most memory in bytes that [`run`](Self::run) needs, whatever the size of the data: the
    /// process itself, every stage of the pipeline, and what each sink holds, for as many parts
    /// as the source writes at once.
    pub fn memory_bound(&self) -> usize {
        // Program, runtime and thread stacks; measured at 10 MiB, with room for the allocator.
        const PROCESS: usize = 20 << 20;
        let parts = self
            .0
            .source
            .as_ref()
            .map_or(1, |s| s.parts_at_once().max(1));
        let per_sink = |sink: &NamedSink| {
            (crate::pipeline::thread::SLOTS + 2) * crate::CHUNK
                + sink.sink.capabilities().put_memory
        };
        let sinks: usize = self.0.sinks.iter().map(per_sink).sum();
        PROCESS + parts * (self.0.pipeline.memory_of_part() + sinks)
    }

    fn sink(&self, name: &str) -> Result<&NamedSink> {
        self.0
            .sinks
            .iter()
            .find(|sink| sink.name == name)
            .ok_or_else(|| {
                let known: Vec<&str> = self.sinks().collect();
                Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "job `{}` has no sink `{name}`; it has {}",
                        self.name(),
                        known.join(", ")
                    ),
                )
            })
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("name", &self.0.name)
            .field("source", &self.0.source)
            .field("pipeline", &self.0.pipeline)
            .field("sinks", &self.sinks().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Collects what a [`Job`] needs; [`build`](Self::build) checks it.
#[must_use]
pub struct JobBuilder {
    inner: Inner,
    pipeline_set: bool,
    retention_by_sink: Vec<(String, Arc<dyn RetentionPolicy>)>,
}

impl JobBuilder {
    /// What is backed up. A job without one can do everything but run.
    pub fn source(mut self, source: impl Source) -> Self {
        self.inner.source = Some(Arc::new(source));
        self
    }

    /// What the bytes run through. There is no default: encrypted or not is said by the caller.
    pub fn pipeline(mut self, pipeline: Pipeline) -> Self {
        self.inner.pipeline = pipeline;
        self.pipeline_set = true;
        self
    }

    /// One more place that keeps the backups.
    pub fn sink(mut self, name: impl Into<String>, sink: impl Sink) -> Self {
        let sink: Arc<dyn Sink> = Arc::new(sink);
        self.inner.sinks.push(NamedSink {
            name: name.into(),
            original: Arc::clone(&sink),
            sink,
            retention: None,
        });
        self
    }

    /// How many sinks must have a backup before a run is called complete. All by default.
    pub fn min_copies(mut self, copies: usize) -> Self {
        self.inner.min_copies = copies;
        self
    }

    /// What is kept. Without a policy everything is.
    pub fn retention(mut self, policy: impl RetentionPolicy) -> Self {
        self.inner.retention = Some(Arc::new(policy));
        self
    }

    /// What one sink keeps, instead of the job's policy.
    pub fn retention_for(mut self, sink: impl Into<String>, policy: impl RetentionPolicy) -> Self {
        self.retention_by_sink.push((sink.into(), Arc::new(policy)));
        self
    }

    /// The cron line that starts it, recorded so that a reader can judge freshness alone.
    pub fn schedule(mut self, schedule: impl Into<String>) -> Self {
        self.inner.schedule = Some(schedule.into());
        self
    }

    /// After this time a newer backup should be there.
    pub fn expires_after(mut self, time: Duration) -> Self {
        self.inner.expires_after = Some(time);
        self
    }

    /// A local folder for what may vanish at any time: the remembered head, a lock against a
    /// second run on this host, what the next incremental needs. Without one, a rolled-back sink
    /// cannot be noticed.
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.inner.state_dir = Some(path.into());
        self
    }

    /// In production a restore needs `force` and the target's name, both.
    pub fn production(mut self, production: bool) -> Self {
        self.inner.production = production;
        self
    }

    /// The longest that a run may take: younger leftovers may belong to one and are not swept.
    /// 24 hours by default.
    pub fn max_run(mut self, time: Duration) -> Self {
        self.inner.max_run = time;
        self
    }

    /// Locks every object of a backup, in each sink that can, until this long after the run began:
    /// nobody can delete it before, whatever their rights. At least one sink must be able to.
    pub fn lock(mut self, time: Duration) -> Self {
        self.inner.lock = Some(time);
        self
    }

    /// Its backups build on earlier ones where they can: with a [`state_dir`](Self::state_dir), a
    /// source that knows how, and no [`lock`](Self::lock), which would end before that of what builds
    /// on it: one that a sink puts on everything has to outlast 30 backups. After so many in a row
    /// comes a full one. Possible parents are kept while a run may need them.
    pub fn incremental(mut self, incremental: bool) -> Self {
        self.inner.incremental = incremental;
        self
    }

    /// Who is told of everything.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.inner.observer = Arc::new(observer);
        self
    }

    /// Who tells the time.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.inner.clock = Arc::new(clock);
        self
    }

    /// Checks everything that can be checked without touching a sink.
    pub fn build(mut self) -> Result<Job> {
        let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        let job = self.inner.name.clone();
        Key::check(&job).map_err(|e| e.context("the job's name cannot be used"))?;
        if self.inner.sinks.is_empty() {
            return invalid(format!("job `{job}` has no sink: add at least one"));
        }
        if !self.pipeline_set {
            return invalid(format!(
                "job `{job}` has no pipeline: say Pipeline::encrypted(..) or Pipeline::unencrypted()"
            ));
        }
        for (i, sink) in self.inner.sinks.iter().enumerate() {
            Key::check(&sink.name).map_err(|e| e.context("a sink's name cannot be used"))?;
            if self.inner.sinks[..i]
                .iter()
                .any(|other| other.name == sink.name)
            {
                return invalid(format!("job `{job}` has two sinks called `{}`", sink.name));
            }
        }
        for (name, policy) in self.retention_by_sink {
            match self.inner.sinks.iter_mut().find(|sink| sink.name == name) {
                Some(sink) => sink.retention = Some(policy),
                None => {
                    return invalid(format!(
                        "job `{job}` has retention for `{name}`, which is none of its sinks"
                    ));
                }
            }
        }
        let sinks = self.inner.sinks.len();
        match self.inner.min_copies {
            0 => self.inner.min_copies = sinks,
            n if n > sinks => {
                return invalid(format!(
                    "job `{job}` wants {n} copies and has {sinks} sinks"
                ));
            }
            _ => {}
        }
        let can_lock = |named: &NamedSink| named.sink.capabilities().lock;
        if self.inner.lock.is_some() && !self.inner.sinks.iter().any(can_lock) {
            return invalid(format!(
                "job `{job}` asks for a lock, and none of its sinks can lock objects"
            ));
        }
        self.inner.check_incremental()?;
        let stall = self.inner.pipeline.limits.stall;
        for named in &mut self.inner.sinks {
            named.sink = Arc::new(Patience::new(Arc::clone(&named.sink), stall));
            named.original = originals(&named.sink);
        }
        Ok(Job(Arc::new(self.inner)))
    }
}

impl fmt::Debug for JobBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobBuilder({})", self.inner.name)
    }
}
