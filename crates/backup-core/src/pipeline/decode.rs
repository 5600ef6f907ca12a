//! One part on its way back.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use futures::StreamExt;

use super::Pipeline;
use super::thread::{self, PipeReader, PipeWriter, pipe};
use crate::digest::{Hasher, Hashing, Meter};
use crate::manifest::{ObjectRecord, PartRecord};
use crate::task::{self, AbortOnDrop};
use crate::transform::Reader;
use crate::{ByteStream, CHUNK, Coding, Error, ErrorKind, Result, Sink};

/// The plain bytes of a part. Stored and plain hashes are checked on the way: a difference ends
/// in `Corrupt`, never in an end.
pub(crate) fn plain(
    pipeline: &Pipeline,
    sink: Arc<dyn Sink>,
    part: &PartRecord,
) -> Result<ByteStream> {
    let stages = pipeline.stages_named(&part.transforms)?;
    let coding = Coding::new(pipeline.limits.threads);
    let (fetch, coded) = fetch_all(sink, part.objects.clone());
    let intact = Arc::clone(&coded.intact);
    let (out, plain) = pipe();
    let (name, expected) = (part.name.clone(), part.plain);
    let first = part
        .objects
        .first()
        .map_or_else(String::new, |o| format!(", `{}`", o.key));
    thread::spawn(&format!("open {name}"), move || {
        let meter = Meter::default();
        let outcome = (|| {
            let mut reader: Reader = Box::new(coded);
            for stage in stages.into_iter().rev() {
                reader = stage.decode(reader, &coding)?;
            }
            let mut reader = Hashing::new(reader, meter.clone());
            send_all(&mut reader, &out, expected.len)?;
            if meter.finished() != Some(expected) {
                return Err(corrupt("its plain bytes do not match the manifest"));
            }
            // A stage that stops early would leave the tail of the stored bytes unchecked.
            if !intact.load(Ordering::Acquire) {
                return Err(corrupt("its stored bytes go on after the end of its data"));
            }
            Ok(())
        })();
        out.blocking_finish(outcome.map_err(|e: Error| e.context(format!("part `{name}`{first}"))));
    })?;
    Ok(while_running(fetch, plain))
}

/// The stored bytes of `objects`, one after the other, with their hashes checked.
pub(crate) fn stored(sink: Arc<dyn Sink>, objects: Vec<ObjectRecord>) -> ByteStream {
    let (fetch, coded) = fetch_all(sink, objects);
    while_running(fetch, thread::pump("check", Box::new(coded)))
}

fn while_running(fetch: AbortOnDrop<()>, pipe: PipeReader) -> ByteStream {
    let mut stream = pipe.into_stream();
    ByteStream::new(futures::stream::poll_fn(move |cx| {
        let _ = &fetch;
        stream.poll_next_unpin(cx)
    }))
}

/// Reads every object in turn on a task, and checks them on whatever thread pulls the result.
fn fetch_all(sink: Arc<dyn Sink>, objects: Vec<ObjectRecord>) -> (AbortOnDrop<()>, Checked) {
    let (feed, pipe) = pipe();
    let checked = Checked {
        pipe,
        objects: objects.clone().into(),
        hasher: Hasher::default(),
        intact: Arc::default(),
    };
    let task = task::spawn(async move {
        let mut outcome = Ok(());
        for object in &objects {
            outcome = fetch(&*sink, object, &feed).await;
            if outcome.is_err() {
                break;
            }
        }
        // Who stopped reading does not want to know.
        let _ = feed.finish(outcome).await;
    });
    (AbortOnDrop(task), checked)
}

/// Passes on exactly as many bytes as the manifest gives the object.
async fn fetch(sink: &dyn Sink, object: &ObjectRecord, feed: &PipeWriter) -> Result<()> {
    let named = |e: Error| e.context(format!("read `{}`", object.key));
    let at = (&object.key).into();
    let mut data = sink.get(&at, None).await.map_err(missing).map_err(named)?;
    let mut left = object.measure.len;
    while let Some(chunk) = data.next().await {
        let chunk = chunk.map_err(named)?;
        left = left
            .checked_sub(chunk.len() as u64)
            .ok_or_else(|| named(corrupt("it is longer than its manifest says")))?;
        feed.send(chunk).await?;
    }
    match left {
        0 => Ok(()),
        _ => Err(named(corrupt("it is shorter than its manifest says"))),
    }
}

/// Hashes the objects on their way and compares each at its end.
struct Checked {
    pipe: PipeReader,
    objects: VecDeque<ObjectRecord>,
    hasher: Hasher,
    /// Set when every object was read and right.
    intact: Arc<AtomicBool>,
}

impl Checked {
    /// Compares the objects that end where the bytes so far end.
    fn compare(&mut self) -> Result<()> {
        while let Some(object) = self.objects.front()
            && object.measure.len == self.hasher.len()
        {
            if std::mem::take(&mut self.hasher).finish() != object.measure {
                return Err(corrupt(format!(
                    "`{}` has other bytes than its manifest says",
                    object.key
                )));
            }
            self.objects.pop_front();
        }
        Ok(())
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.compare()?;
        let room = self
            .objects
            .front()
            .map_or(u64::MAX, |o| o.measure.len - self.hasher.len());
        let room = buffer
            .len()
            .min(usize::try_from(room).unwrap_or(usize::MAX));
        let n = self.pipe.read(&mut buffer[..room])?;
        self.hasher.update(&buffer[..n]);
        self.compare()?;
        if n == 0 && !buffer.is_empty() {
            self.intact
                .store(self.objects.is_empty(), Ordering::Release);
        }
        Ok(n)
    }
}

/// An object that a manifest names and a sink lacks is damage, not a question of names.
fn missing(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => corrupt("it is missing").with_source(error),
        _ => error,
    }
}

/// Passes the plain bytes on, never more than the manifest allows: a bomb ends here.
fn send_all(reader: &mut dyn Read, out: &PipeWriter, limit: u64) -> Result<()> {
    let mut sent = 0;
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK);
        let n = thread::read_full(reader, &mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        sent += n as u64;
        if sent > limit {
            return Err(corrupt("it unpacks to more than its manifest says"));
        }
        chunk.truncate(n);
        out.blocking_send(chunk.freeze())?;
    }
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}
