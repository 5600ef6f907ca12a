//! One backup, from the first byte to the commit.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use serde_json::Map;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::commit::{Documents, Draft};
use super::{Job, space};
use crate::catalog::Catalog;
use crate::chain::{Chain, Head};
use crate::digest::Digest;
use crate::manifest::{FORMAT, Manifest};
use crate::pipeline::{Lane, Lanes, PartWriter};
use crate::task::{AbortOnDrop, finish, spawn};
use crate::{Error, ErrorKind, Event, Id, Observer, PutOptions, Request, Result, Source, recipe};

/// What one run is given beyond its job.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// Names for the backup, to find it again: `pre-migration`.
    pub labels: Vec<String>,
}

impl RunOptions {
    /// One more label.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.labels.push(label.into());
        self
    }
}

/// What a run did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The new backup.
    pub id: Id,
    /// Its job.
    pub job: String,
    /// Its place among the job's backups.
    pub sequence: u64,
    /// Every sink of the job, in order.
    pub copies: Vec<Copied>,
    /// How many copies the job wants.
    pub min_copies: usize,
    /// Bytes that the source gave.
    pub plain_bytes: u64,
    /// Bytes that one sink keeps.
    pub stored_bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// What became of one copy.
#[derive(Debug)]
pub struct Copied {
    /// The sink's name in the job.
    pub sink: String,
    /// `None`: committed.
    pub error: Option<Error>,
}

/// Whether there are as many copies as the job wants. A run without any is an `Err`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// At least `min_copies`.
    Complete,
    /// At least one, but fewer than `min_copies`.
    Partial,
}

impl Report {
    /// Whether there are as many copies as the job wants.
    pub fn status(&self) -> Status {
        let committed = self
            .copies
            .iter()
            .filter(|copy| copy.error.is_none())
            .count();
        match committed >= self.min_copies {
            true => Status::Complete,
            false => Status::Partial,
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the source gave so far.
    pub plain: u64,
    /// Bytes that went to the sinks so far.
    pub stored: u64,
}

/// A run that goes on by itself. Dropping the handle does not cancel it.
#[derive(Debug)]
pub struct Handle {
    progress: watch::Receiver<Progress>,
    cancel: watch::Sender<bool>,
    /// `None` once its result was handed out.
    task: Option<JoinHandle<Result<Report>>>,
}

impl Handle {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Asks it to stop: children end, unfinished uploads are given up, nothing becomes visible.
    /// Once the commit has begun it is finished instead.
    pub fn cancel(&self) {
        // A run that is over has nobody to tell.
        let _ = self.cancel.send(true);
    }

    /// Waits for its end. The future may be dropped and asked for again, so that a caller can
    /// wait for other things too, and then [`cancel`](Self::cancel). The result is given once.
    pub async fn wait(&mut self) -> Result<Report> {
        let Some(task) = &mut self.task else {
            return Err(Error::new(
                ErrorKind::Other,
                "the run's result was taken already",
            ));
        };
        let outcome = task.await;
        self.task = None;
        outcome.map_err(broke_off)?
    }
}

fn broke_off(error: JoinError) -> Error {
    Error::new(ErrorKind::Other, "the run broke off").with_source(error)
}

#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Observer>,
    progress: watch::Sender<Progress>,
}

impl Observer for Counting {
    fn event(&self, event: &Event<'_>) {
        if let Event::Progress { plain, stored, .. } = event {
            self.progress.send_modify(|sum| {
                sum.plain += plain;
                sum.stored += stored;
            });
        }
        self.inner.event(event);
    }
}

impl Job {
    /// Makes one backup and returns once it is committed.
    ///
    /// `Ok` means that at least one sink has it complete and durable; look at
    /// [`Report::status`] for whether that is enough. On `Err` nothing is visible in any sink.
    /// Dropping the future gives the run up: before the commit nothing becomes visible.
    pub async fn run(&self, options: RunOptions) -> Result<Report> {
        self.start(options).wait_or_cancel().await
    }

    /// Starts a run in the background. Needs a tokio runtime.
    pub fn start(&self, options: RunOptions) -> Handle {
        let (progress_in, progress) = watch::channel(Progress::default());
        let (cancel, cancelled) = watch::channel(false);
        let observer: Arc<dyn Observer> = Arc::new(Counting {
            inner: Arc::clone(&self.0.observer),
            progress: progress_in,
        });
        let job = self.clone();
        let task = spawn(async move { job.run_once(options, cancelled, observer).await });
        Handle {
            progress,
            cancel,
            task: Some(task),
        }
    }

    async fn run_once(
        &self,
        options: RunOptions,
        mut cancelled: watch::Receiver<bool>,
        observer: Arc<dyn Observer>,
    ) -> Result<Report> {
        let cancel = async {
            if cancelled.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let (lock, draft) = tokio::select! {
            draft = self.gather(options, &observer) => draft?,
            () = cancel => return Err(Error::new(ErrorKind::Cancelled, "the run was cancelled")),
        };
        let job = self.clone();
        let (id, receipt) = (draft.manifest.id.clone(), draft.manifest.receipt.clone());
        let is_delegated = receipt.is_some();
        let commit = async move {
            let _lock = lock;
            let report = job.commit(draft, &*observer).await;
            if let (Err(_), Some(receipt)) = (&report, receipt) {
                // Nobody else will know of what the store keeps.
                job.forget_unheld(&id, &receipt, &*observer).await;
            }
            report
        };
        match is_delegated {
            // Dropped half way, it would not be known whether a sink has the receipt.
            true => finish(commit).await,
            false => commit.await,
        }
    }

    /// Everything up to the commit: nothing is visible yet.
    async fn gather(
        &self,
        options: RunOptions,
        observer: &Arc<dyn Observer>,
    ) -> Result<(Option<super::state::RunLock>, Draft)> {
        let clock = Instant::now();
        let source = self.source()?;
        let lock = self.lock_run()?;
        let started = self.0.clock.now();
        let id = Id::new(started)?;
        let lanes = self.lanes();
        let remembered = self.remembered();
        let catalogs = self.load_live(&lanes, &**observer).await?;
        let chain = Chain::of(catalogs.iter());
        for finding in chain.findings(remembered.as_ref()) {
            observer.event(&Event::Warning {
                message: &finding.to_string(),
            });
        }
        let (sequence, head) = (chain.next(remembered.as_ref())?, chain.head());
        let mut request = Request::new(self.name(), id.clone());
        request.parent = self.parent(&**source, &catalogs);
        drop(catalogs);
        if self.0.incremental {
            request.state_dir = self.state_folder()?;
        }

        observer.event(&Event::Started {
            job: self.name(),
            id: &id,
        });
        let lanes = Arc::new(lanes);
        let writer = PartWriter::new(
            self.name(),
            id.clone(),
            self.0.pipeline.clone(),
            Arc::clone(&lanes),
            Arc::clone(observer),
            source.parts_at_once(),
        );
        let facts = source.backup(&request, &writer).await?;
        let written = writer.finish()?;
        if written.parts.is_empty() && written.receipt.is_none() {
            return Err(Error::new(ErrorKind::Source, "the source wrote nothing"));
        }
        let finished = self.0.clock.now();
        let manifest = Manifest {
            format: FORMAT,
            id,
            job: self.name().to_owned(),
            kind: source.kind().to_owned(),
            parent: written.parent,
            sequence,
            previous: head.map(|head| head.manifest),
            started: started.into(),
            finished: finished.into(),
            facts,
            labels: options.labels,
            schedule: self.0.schedule.clone(),
            expires: self.0.expires_after.map(|time| (finished + time).into()),
            receipt: written.receipt,
            parts: written.parts,
            extra: Map::new(),
        };
        let recipe = recipe::render(&manifest, &source.restore_steps(), &self.0.pipeline)?;
        let draft = Draft {
            manifest,
            recipe,
            lanes,
            clock,
        };
        Ok((lock, draft))
    }

    pub(super) fn source(&self) -> Result<&Arc<dyn Source>> {
        self.0.source.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("job `{}` has no source: it cannot run", self.name()),
            )
        })
    }

    fn lanes(&self) -> Lanes {
        let stall = self.0.pipeline.limits.stall;
        let sinks = self.0.sinks.iter();
        let until = self.0.lock.map(|time| self.0.clock.now() + time);
        let lanes = sinks.map(|named| {
            let options = match until.filter(|_| named.sink.capabilities().lock) {
                Some(until) => PutOptions::default().retain_until(until),
                None => PutOptions::default(),
            };
            Lane::new(&named.name, Arc::clone(&named.sink), options, stall)
        });
        Lanes::new(lanes.collect())
    }

    /// The catalog of every sink that answers. Others, and those that are full, are out of this run.
    async fn load_live(&self, lanes: &Lanes, observer: &dyn Observer) -> Result<Vec<Catalog>> {
        let verifier = self.0.pipeline.verifier.as_ref();
        let mut loads = Vec::new();
        for lane in lanes.iter() {
            loads.push(Catalog::load(&lane.sink, self.name(), verifier).boxed());
        }
        let mut catalogs = Vec::new();
        for (lane, loaded) in lanes.iter().zip(join_all(loads).await) {
            match loaded {
                Ok(catalog) => {
                    if let Err(error) = space::of_sink(lane, &catalog, observer).await {
                        lane.fail(error, observer);
                    }
                    catalogs.push(catalog);
                }
                Err(error) => lane.fail(error.context("read the catalog"), observer),
            }
        }
        lanes.require_one()?;
        Ok(catalogs)
    }

    async fn commit(&self, draft: Draft, observer: &dyn Observer) -> Result<Report> {
        let documents = Documents::new(&draft, &self.0.pipeline)?;
        let mut commits = Vec::new();
        for (_, lane) in draft.lanes.live() {
            commits.push(documents.commit(lane, &draft.manifest, observer).boxed());
        }
        join_all(commits).await;
        draft.lanes.require_one()?;
        let head = Head {
            sequence: draft.manifest.sequence,
            id: draft.manifest.id.clone(),
            manifest: Digest::of(&documents.manifest),
        };
        if let Err(error) = self.remember(&head) {
            observer.event(&Event::Warning {
                message: &error.chain(),
            });
        }
        Ok(Report {
            id: draft.manifest.id.clone(),
            job: self.name().to_owned(),
            sequence: draft.manifest.sequence,
            copies: draft
                .lanes
                .iter()
                .map(|lane| Copied {
                    sink: lane.name.clone(),
                    error: lane.failure(),
                })
                .collect(),
            min_copies: self.0.min_copies,
            plain_bytes: draft.manifest.own_plain_bytes(),
            stored_bytes: draft.manifest.stored_bytes(),
            elapsed: draft.clock.elapsed(),
        })
    }
}

impl Handle {
    /// [`wait`](Self::wait), but dropping the future ends the run.
    async fn wait_or_cancel(mut self) -> Result<Report> {
        let task = self.task.take().map(AbortOnDrop);
        match task {
            Some(task) => task.await.map_err(broke_off)?,
            None => self.wait().await,
        }
    }
}
