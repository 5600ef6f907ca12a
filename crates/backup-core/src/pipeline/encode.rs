//! One part on its way out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::fanout::{Fanout, Lanes};
use super::thread::{self, PipeReader, PipeWriter, pipe};
use super::{Limits, Pipeline};
use crate::digest::{Hasher, Hashing, Measure, Meter};
use crate::manifest::{Manifest, ObjectRecord, PartRecord};
use crate::transform::Reader;
use crate::{ByteStream, CHUNK, Coding, Error, ErrorKind, Event, Id, Observer, Result, layout};

/// Takes the parts of one backup from a [`Source`](crate::Source).
///
/// Hands every part through the pipeline to all sinks at once. As many parts run side by side as
/// the source declared; a further [`write`](Self::write) waits.
pub struct PartWriter {
    job: String,
    id: Id,
    pipeline: Pipeline,
    lanes: Arc<Lanes>,
    observer: Arc<dyn Observer>,
    permits: Semaphore,
    parts: Mutex<BTreeMap<usize, PartRecord>>,
    names: Mutex<Vec<String>>,
    receipt: Mutex<Option<Value>>,
    parent: Mutex<Option<Id>>,
}

/// What a source gave.
pub(crate) struct Written {
    /// In the order in which they were begun, those of the parent first.
    pub(crate) parts: Vec<PartRecord>,
    pub(crate) parent: Option<Id>,
    pub(crate) receipt: Option<Value>,
}

impl PartWriter {
    pub(crate) fn new(
        job: &str,
        id: Id,
        pipeline: Pipeline,
        lanes: Arc<Lanes>,
        observer: Arc<dyn Observer>,
        parts_at_once: usize,
    ) -> Self {
        Self {
            job: job.to_owned(),
            id,
            pipeline,
            lanes,
            observer,
            permits: Semaphore::new(parts_at_once.max(1)),
            parts: Mutex::default(),
            names: Mutex::default(),
            receipt: Mutex::default(),
            parent: Mutex::default(),
        }
    }

    /// Makes all parts of `parent` parts of this backup too, where they are: what is written
    /// besides is what came since. Called before the first [`write`](Self::write).
    pub fn build_on(&self, parent: &Manifest) -> Result<()> {
        for part in &parent.parts {
            let index = self.reserve(&part.name)?;
            lock(&self.parts).insert(index, part.clone());
        }
        *lock(&self.parent) = Some(parent.id.clone());
        Ok(())
    }

    /// Writes one part to every sink and returns when it is durable there.
    ///
    /// An `Err` of `data` comes back unchanged, and nothing of the part becomes visible. A sink
    /// that fails is left out from then on and reported; the call fails only when none is left.
    /// Names follow the rule of [`Key::check`](crate::Key::check) and are unique in a backup.
    pub async fn write(&self, name: &str, data: ByteStream) -> Result<()> {
        let index = self.reserve(name)?;
        let _permit = self.permits.acquire().await.map_err(|_| closed())?;
        self.observer.event(&Event::PartStarted { part: name });
        let record = self.encode(name, data).await?;
        self.observer.event(&Event::PartFinished {
            part: name,
            plain: record.plain.len,
            stored: record.stored_len(),
        });
        lock(&self.parts).insert(index, record);
        Ok(())
    }

    /// Records what a delegating store handed out instead of bytes: see
    /// [`Delegated`](crate::Delegated).
    pub fn receipt(&self, receipt: Value) {
        *lock(&self.receipt) = Some(receipt);
    }

    pub(crate) fn finish(&self) -> Result<Written> {
        let parts = std::mem::take(&mut *lock(&self.parts));
        if parts.len() < lock(&self.names).len() {
            return Err(Error::new(
                ErrorKind::Source,
                "the source returned before all its parts were written",
            ));
        }
        Ok(Written {
            parts: parts.into_values().collect(),
            parent: lock(&self.parent).take(),
            receipt: lock(&self.receipt).take(),
        })
    }

    fn reserve(&self, name: &str) -> Result<usize> {
        layout::check_part(name)?;
        let mut names = lock(&self.names);
        // A part's stored name begins with its name, so one may not begin another's suffixes.
        if names.iter().any(|taken| taken == name) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("part `{name}` is written twice"),
            ));
        }
        names.push(name.to_owned());
        Ok(names.len() - 1)
    }

    async fn encode(&self, name: &str, data: ByteStream) -> Result<PartRecord> {
        let limits = &self.pipeline.limits;
        let coding = Coding::new(limits.threads).verifying(limits.verify);
        let meter = Meter::default();
        let (feed, plain) = pipe();
        let (stored, objects) = self.start_codec(name, plain, &meter, &coding)?;

        let suffixes: String = self.pipeline.stages().map(|stage| stage.suffix()).collect();
        let fanout = Fanout::new(&self.lanes, limits, &*self.observer, |index| {
            layout::part_object(&self.job, &self.id, name, &suffixes, index)
        });
        let progress = Progress::new(name, &meter, &*self.observer);
        let (fed, fanned) =
            tokio::join!(feed_all(data, feed, limits), fanout.run(stored, progress));
        // What the source said comes first: everything after it is a consequence.
        fed.map_err(|e| e.context(format!("read part `{name}`")))?;
        let keys = fanned.map_err(|e| e.context(format!("write part `{name}`")))?;

        let measures = std::mem::take(&mut *lock(&objects));
        let plain = meter.finished();
        let (Some(plain), true) = (plain, measures.len() == keys.len()) else {
            return Err(Error::new(
                ErrorKind::Other,
                format!("part `{name}` ended without a measure"),
            ));
        };
        let notes = coding.notes();
        if let Some(signature) = notes.get("signature").and_then(Value::as_str) {
            let key = layout::object(&self.job, &self.id, &format!("{name}{suffixes}.minisig"))?;
            self.lanes
                .put_all(&key, signature.as_bytes(), &*self.observer)
                .await?;
        }
        let objects = keys
            .into_iter()
            .zip(measures)
            .map(|(key, measure)| ObjectRecord {
                key,
                measure,
                extra: Map::new(),
            });
        Ok(PartRecord {
            name: name.to_owned(),
            objects: objects.collect(),
            transforms: self.pipeline.stages().map(|s| s.id().to_owned()).collect(),
            notes,
            plain,
            extra: Map::new(),
        })
    }

    /// Runs the stages on a thread of their own; tells the measure of each object at the end.
    fn start_codec(
        &self,
        name: &str,
        plain: PipeReader,
        meter: &Meter,
        coding: &Coding,
    ) -> Result<(PipeReader, Objects)> {
        let (out, stored) = pipe();
        let objects = Objects::default();
        let mut reader: Reader = Box::new(Hashing::new(Box::new(plain), meter.clone()));
        let stages: Vec<_> = self.pipeline.stages().cloned().collect();
        let (coding, measures) = (coding.clone(), Arc::clone(&objects));
        let object_size = self.pipeline.limits.object_size;
        thread::spawn(&format!("seal {name}"), move || {
            let outcome = (|| {
                for stage in stages {
                    reader = stage.encode(reader, &coding)?;
                }
                seal(&mut reader, &out, object_size, &measures)
            })();
            out.blocking_finish(outcome);
        })?;
        Ok((stored, objects))
    }
}

type Objects = Arc<Mutex<Vec<Measure>>>;

/// Pulls the coded bytes, hashes them and cuts them where objects end.
fn seal(
    reader: &mut Reader,
    out: &PipeWriter,
    object_size: u64,
    measures: &Mutex<Vec<Measure>>,
) -> Result<()> {
    let mut hasher = Hasher::default();
    loop {
        let room = object_size - hasher.len();
        let mut chunk = BytesMut::zeroed(CHUNK.min(usize::try_from(room).unwrap_or(CHUNK)));
        let n = thread::read_full(reader, &mut chunk)?;
        chunk.truncate(n);
        hasher.update(&chunk);
        let more = n > 0;
        if more {
            out.blocking_send(chunk.freeze())?;
        }
        // An empty part still has one object, an exact multiple no empty one at its end.
        if !more && (hasher.len() > 0 || lock(measures).is_empty()) || hasher.len() == object_size {
            lock(measures).push(std::mem::take(&mut hasher).finish());
        }
        if !more {
            return Ok(());
        }
    }
}

/// Moves the source's chunks into the pipe, no faster than allowed, and its last word after them.
async fn feed_all(mut data: ByteStream, feed: PipeWriter, limits: &Limits) -> Result<()> {
    let started = Instant::now();
    let mut sent: u64 = 0;
    loop {
        let next = tokio::select! {
            next = data.next() => next,
            // The other side knows why it stopped, and says it.
            () = feed.closed() => return Ok(()),
        };
        match next {
            Some(Ok(chunk)) => {
                sent += chunk.len() as u64;
                if feed.send(chunk).await.is_err() {
                    return Ok(());
                }
                if let Some(rate) = limits.bytes_per_second {
                    let due = Duration::from_secs_f64(sent as f64 / rate as f64);
                    tokio::time::sleep_until(started + due).await;
                }
            }
            Some(Err(error)) => {
                let _ = feed.finish(Err(error.duplicate())).await;
                return Err(error);
            }
            None => {
                let _ = feed.finish(Ok(())).await;
                return Ok(());
            }
        }
    }
}

/// Tells the observer how far a part is, once for each MiB.
pub(super) struct Progress<'a> {
    part: &'a str,
    meter: &'a Meter,
    observer: &'a dyn Observer,
    plain: u64,
    stored: u64,
}

impl<'a> Progress<'a> {
    fn new(part: &'a str, meter: &'a Meter, observer: &'a dyn Observer) -> Self {
        Self {
            part,
            meter,
            observer,
            plain: 0,
            stored: 0,
        }
    }

    pub(super) fn stored(&mut self, bytes: usize) {
        self.stored += bytes as u64;
        let plain = self.meter.len() - self.plain;
        if plain + self.stored >= 1 << 20 {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        let plain = self.meter.len() - self.plain;
        self.plain += plain;
        let stored = std::mem::take(&mut self.stored);
        if plain + stored > 0 {
            let part = self.part;
            self.observer.event(&Event::Progress {
                part,
                plain,
                stored,
            });
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Cancelled, "the backup was given up")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for PartWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartWriter({}/{})", self.job, self.id)
    }
}
