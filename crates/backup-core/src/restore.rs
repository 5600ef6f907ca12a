//! What a target reads.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::manifest::Manifest;
use crate::pipeline::decode;
use crate::{ByteStream, Error, ErrorKind, Event, Facts, Observer, Pipeline, Result, Sink};
use futures::StreamExt;

/// The parts of one backup, for a [`Target`](crate::Target) to read.
///
/// Every read hashes again: bytes that are not those of the manifest end in
/// [`Corrupt`](ErrorKind::Corrupt), never in an end.
pub struct PartReader {
    manifest: Arc<Manifest>,
    pipeline: Pipeline,
    sink: Arc<dyn Sink>,
    observer: Arc<dyn Observer>,
    /// Parts that were read to their end.
    complete: Arc<Mutex<BTreeSet<String>>>,
}

impl PartReader {
    pub(crate) fn new(
        manifest: Arc<Manifest>,
        pipeline: Pipeline,
        sink: Arc<dyn Sink>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            manifest,
            pipeline,
            sink,
            observer,
            complete: Arc::default(),
        }
    }

    /// The names of the parts, in the order in which their writing began.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.manifest.parts.iter().map(|part| part.name.as_str())
    }

    /// The manifest: lengths of parts, labels, times.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the source knew at the end.
    pub fn facts(&self) -> &Facts {
        &self.manifest.facts
    }

    /// The plain bytes of one part. `NotFound` if there is none of that name. Parts may be read
    /// side by side, and again.
    pub async fn open(&self, name: &str) -> Result<ByteStream> {
        let part = self.manifest.part(name).ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "the backup has no part `{name}`; it has {}",
                    known.join(", ")
                ),
            )
        })?;
        let mut bytes = decode::plain(&self.pipeline, Arc::clone(&self.sink), part)?;
        self.observer.event(&Event::PartStarted { part: name });
        let (name, observer) = (name.to_owned(), Arc::clone(&self.observer));
        let complete = Arc::clone(&self.complete);
        Ok(ByteStream::new(futures::stream::poll_fn(move |cx| {
            let next = bytes.poll_next_unpin(cx);
            match &next {
                std::task::Poll::Ready(Some(Ok(chunk))) => observer.event(&Event::Progress {
                    part: &name,
                    plain: chunk.len() as u64,
                    stored: 0,
                }),
                std::task::Poll::Ready(None) => {
                    let mut complete = complete.lock().unwrap_or_else(PoisonError::into_inner);
                    complete.insert(name.clone());
                }
                _ => {}
            }
            next
        })))
    }

    /// Fails unless every part in `names` was read to its end, where its hash was checked. For a
    /// target to call before it publishes.
    pub fn require_complete<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let complete = self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        match names.into_iter().find(|name| !complete.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorKind::Other,
                format!("part `{name}` was not read to its end"),
            )),
        }
    }
}

impl fmt::Debug for PartReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartReader({}/{})", self.manifest.job, self.manifest.id)
    }
}
