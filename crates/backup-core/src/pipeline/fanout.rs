//! One stream to many sinks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::timeout;

use super::Limits;
use super::encode::Progress;
use super::thread::{PipeReader, PipeWriter, pipe};
use crate::task::{AbortOnDrop, spawn};
use crate::{Error, ErrorKind, Event, Key, Object, Observer, PutOptions, Result, Sink, document};

/// The sinks of one run, and what became of each.
pub(crate) struct Lanes(Vec<Lane>);

pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) sink: Arc<dyn Sink>,
    /// For every object of the run.
    options: PutOptions,
    stall: Duration,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    failure: Option<Error>,
    objects: Vec<Object>,
}

impl Lane {
    pub(crate) fn new(
        name: &str,
        sink: Arc<dyn Sink>,
        options: PutOptions,
        stall: Duration,
    ) -> Self {
        Self {
            name: name.to_owned(),
            sink,
            options,
            stall,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves this sink out of the rest of the run. The first reason counts.
    pub(crate) fn fail(&self, error: Error, observer: &dyn Observer) {
        let mut state = self.state();
        if state.failure.is_none() {
            observer.event(&Event::SinkFailed {
                sink: &self.name,
                error: &error,
            });
            state.failure = Some(error);
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state().failure.is_none()
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        self.state().failure.as_ref().map(Error::duplicate)
    }

    /// Remembers an object that was stored.
    pub(crate) fn stored(&self, object: Object) {
        self.state().objects.push(object);
    }

    /// Every object that this run stored here, by key.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let mut objects = self.state().objects.clone();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects
    }

    pub(crate) async fn put(&self, key: &Key, bytes: impl Into<Bytes>) -> Result<()> {
        let written = document::write(&*self.sink, key, bytes, &self.options);
        let object = timeout(self.stall, written)
            .await
            .map_err(|_| stalled(key, self.stall))??;
        self.stored(object);
        Ok(())
    }
}

impl Lanes {
    pub(crate) fn new(lanes: Vec<Lane>) -> Self {
        Self(lanes)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.0.iter()
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = (usize, &Lane)> {
        self.0.iter().enumerate().filter(|(_, lane)| lane.is_live())
    }

    /// Fails once no sink is left, with the first one's reason.
    pub(crate) fn require_one(&self) -> Result<()> {
        if self.live().next().is_some() {
            return Ok(());
        }
        let reasons = self.0.iter().filter_map(|lane| {
            let error = lane.failure()?;
            Some(format!("{}: {}", lane.name, error.chain()))
        });
        let reasons: Vec<String> = reasons.collect();
        Err(Error::new(
            ErrorKind::Sink,
            format!("every sink failed: {}", reasons.join("; ")),
        ))
    }

    /// Stores a small object in every live sink.
    pub(crate) async fn put_all(
        &self,
        key: &Key,
        bytes: &[u8],
        observer: &dyn Observer,
    ) -> Result<()> {
        let bytes = Bytes::copy_from_slice(bytes);
        let lanes: Vec<&Lane> = self.live().map(|(_, lane)| lane).collect();
        let mut puts = Vec::new();
        for lane in &lanes {
            puts.push(lane.put(key, bytes.clone()));
        }
        for (lane, outcome) in lanes.iter().zip(join_all(puts).await) {
            if let Err(error) = outcome {
                lane.fail(error, observer);
            }
        }
        self.require_one()
    }
}

/// The objects of one part: one put per live sink and object, all fed from one stream.
pub(super) struct Fanout<'a, N> {
    lanes: &'a Lanes,
    limits: &'a Limits,
    observer: &'a dyn Observer,
    name: N,
    keys: Vec<Key>,
    /// Bytes of the object that is being written.
    len: u64,
    puts: Vec<Put>,
}

impl<'a, N: Fn(usize) -> Result<Key>> Fanout<'a, N> {
    pub(super) fn new(
        lanes: &'a Lanes,
        limits: &'a Limits,
        observer: &'a dyn Observer,
        name: N,
    ) -> Self {
        Self {
            lanes,
            limits,
            observer,
            name,
            keys: Vec::new(),
            len: 0,
            puts: Vec::new(),
        }
    }

    /// Stores the whole stream and tells under which keys.
    pub(super) async fn run(
        mut self,
        mut stored: PipeReader,
        mut progress: Progress<'_>,
    ) -> Result<Vec<Key>> {
        self.open()?;
        loop {
            match stored.next().await {
                Ok(Some(chunk)) => {
                    progress.stored(chunk.len());
                    if self.len == self.limits.object_size {
                        self.close(Ok(())).await?;
                        self.open()?;
                    }
                    self.send(chunk).await?;
                }
                Ok(None) => {
                    progress.flush();
                    self.close(Ok(())).await?;
                    return Ok(self.keys);
                }
                Err(error) => {
                    // The sinks are told why, and waited for, so that nothing of the part is
                    // left when the caller learns of it.
                    self.close(Err(error.duplicate())).await?;
                    return Err(error);
                }
            }
        }
    }

    /// Begins the next object in every sink that is still in.
    fn open(&mut self) -> Result<()> {
        self.lanes.require_one()?;
        let key = (self.name)(self.keys.len())?;
        let live = self.lanes.live();
        self.puts = live.map(|(i, lane)| Put::start(i, lane, &key)).collect();
        self.keys.push(key);
        self.len = 0;
        Ok(())
    }

    /// One chunk to every sink: the slowest sets the pace, and one that takes nothing for too
    /// long is out.
    async fn send(&mut self, chunk: Bytes) -> Result<()> {
        self.len += chunk.len() as u64;
        let stall = self.limits.stall;
        let mut sends = Vec::with_capacity(self.puts.len());
        for put in &mut self.puts {
            sends.push(put.send(chunk.clone(), stall));
        }
        let sent = join_all(sends).await;
        if sent.iter().any(Result::is_err) {
            let puts = std::mem::take(&mut self.puts).into_iter().zip(sent);
            for (put, outcome) in puts {
                match outcome {
                    Ok(()) => self.puts.push(put),
                    Err(error) => self.lanes.0[put.lane].fail(error, self.observer),
                }
            }
            self.lanes.require_one()?;
        }
        Ok(())
    }

    /// Says how the object ended and waits until every sink has made it durable, or dropped it.
    async fn close(&mut self, outcome: Result<()>) -> Result<()> {
        let stall = self.limits.stall;
        let puts = std::mem::take(&mut self.puts);
        let failure = outcome.as_ref().err();
        let (mut lanes, mut ends) = (Vec::new(), Vec::new());
        for put in puts {
            let word = failure.map_or(Ok(()), |error| Err(error.duplicate()));
            lanes.push(&self.lanes.0[put.lane]);
            ends.push(put.finish(word, stall));
        }
        let ended = join_all(ends).await;
        if failure.is_some() {
            return Ok(());
        }
        for (lane, outcome) in lanes.into_iter().zip(ended) {
            let checked = outcome.and_then(|object| {
                document::check_len(&object, self.len)?;
                Ok(object)
            });
            match checked {
                Ok(object) => lane.stored(object),
                Err(error) => lane.fail(error, self.observer),
            }
        }
        self.lanes.require_one()
    }
}

/// One object on its way into one sink. Dropping it drops the put, and nothing becomes visible.
struct Put {
    lane: usize,
    key: Key,
    feed: PipeWriter,
    task: AbortOnDrop<Result<Object>>,
}

impl Put {
    fn start(index: usize, lane: &Lane, key: &Key) -> Self {
        let (feed, data) = pipe();
        let (sink, name) = (Arc::clone(&lane.sink), key.clone());
        let options = lane.options.clone();
        let task = spawn(async move { sink.put(&name, data.into_stream(), &options).await });
        Self {
            lane: index,
            key: key.clone(),
            feed,
            task: AbortOnDrop(task),
        }
    }

    async fn send(&mut self, chunk: Bytes, stall: Duration) -> Result<()> {
        match timeout(stall, self.feed.send(chunk)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => match self.outcome(stall).await {
                Err(error) => Err(error),
                Ok(_) => Err(Error::new(
                    ErrorKind::Sink,
                    format!("the put of `{}` returned before its data ended", self.key),
                )),
            },
            Err(_) => Err(stalled(&self.key, stall)),
        }
    }

    async fn finish(mut self, word: Result<()>, stall: Duration) -> Result<Object> {
        let (closing, _) = pipe();
        let feed = std::mem::replace(&mut self.feed, closing);
        if timeout(stall, feed.finish(word)).await.is_err() {
            return Err(stalled(&self.key, stall));
        }
        self.outcome(stall).await
    }

    /// What the sink says at last.
    async fn outcome(&mut self, stall: Duration) -> Result<Object> {
        let put = format!("put `{}`", self.key);
        match timeout(stall, &mut self.task).await {
            Ok(Ok(outcome)) => outcome.map_err(|e| e.context(put)),
            Ok(Err(broken)) => {
                Err(Error::new(ErrorKind::Sink, format!("{put} broke off")).with_source(broken))
            }
            Err(_) => Err(stalled(&self.key, stall)),
        }
    }
}

fn stalled(key: &Key, stall: Duration) -> Error {
    let seconds = stall.as_secs_f64();
    Error::new(
        ErrorKind::Unavailable,
        format!("put `{key}`: the sink took nothing for {seconds} seconds"),
    )
}
