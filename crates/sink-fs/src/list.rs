//! Listings, walked on a blocking thread and handed over in batches.

use std::io;
use std::time::{Duration, SystemTime};

use backup_core::{Error, ErrorKind, Key, Object, Result};
use futures::stream::{self, BoxStream, StreamExt};
use rustix::fs::{Dir, FileType, Stat};
use tokio::sync::mpsc;

use crate::FsSink;
use crate::folder::{Folder, is_absent};

/// Items that go over at once: a wake-up for each would cost more than the walk.
const BATCH: usize = 512;

enum Message<T> {
    Batch(Vec<T>),
    End(Result<()>),
}

/// Where a walk puts what it finds.
pub(crate) struct Found<T> {
    sender: mpsc::Sender<Message<T>>,
    batch: Vec<T>,
}

impl<T> Found<T> {
    fn push(&mut self, item: T) -> Result<()> {
        self.batch.push(item);
        if self.batch.len() < BATCH {
            Ok(())
        } else {
            self.flush()
        }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.sender
            .blocking_send(Message::Batch(batch))
            .map_err(|_| Error::new(ErrorKind::Cancelled, "nobody reads this listing"))
    }
}

/// Runs `walk` on a blocking thread, when the stream is first polled. A walk that vanishes is an
/// error, never an end.
pub(crate) fn on_thread<T: Send + 'static>(
    walk: impl FnOnce(&mut Found<T>) -> Result<()> + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let start = async move {
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let mut found = Found {
                sender,
                batch: Vec::new(),
            };
            let outcome = walk(&mut found);
            // A reader that is gone needs neither.
            let _ = found.flush();
            let _ = found.sender.blocking_send(Message::End(outcome));
        });
        stream::unfold(Some(receiver), |receiver| async {
            let mut receiver = receiver?;
            let (items, more) = match receiver.recv().await {
                Some(Message::Batch(batch)) => {
                    (batch.into_iter().map(Ok).collect(), Some(receiver))
                }
                Some(Message::End(Ok(()))) => (Vec::new(), None),
                Some(Message::End(Err(error))) => (vec![Err(error)], None),
                None => {
                    let error = Error::new(ErrorKind::Cancelled, "a listing stopped half way");
                    (vec![Err(error)], None)
                }
            };
            Some((stream::iter(items), more))
        })
        .flatten()
    };
    stream::once(start).flatten().boxed()
}

/// Every object under `prefix`. What can be none is named in the `Err` at the end.
pub(crate) fn objects(
    sink: &FsSink,
    prefix: Option<&Key>,
    found: &mut Found<Object>,
) -> Result<()> {
    let mut walk = Walk {
        sink,
        found,
        strangers: 0,
        first: String::new(),
    };
    let Some(root) = sink.root()? else {
        return Ok(());
    };
    match prefix {
        None => walk.folder(&root, "")?,
        Some(prefix) => {
            let failed = |e| sink.failed(&format!("list `{prefix}`"), e);
            let Some(parent) = absent(root.parent_of(prefix)).map_err(failed)? else {
                return Ok(());
            };
            walk.entry(&parent, prefix.name(), prefix.as_str(), FileType::Unknown)?;
        }
    }
    match walk.strangers {
        0 => Ok(()),
        n => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{sink} holds {n} that cannot be objects, the first is {}: move them elsewhere",
                walk.first
            ),
        )),
    }
}

struct Walk<'a> {
    sink: &'a FsSink,
    found: &'a mut Found<Object>,
    strangers: u64,
    first: String,
}

impl Walk<'_> {
    /// `at` is empty for the root, else it ends in `/`.
    fn folder(&mut self, folder: &Folder, at: &str) -> Result<()> {
        let failed = |e: io::Error| self.sink.failed(&format!("list `{at}`"), e);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&folder.0).map_err(|e| failed(e.into()))? {
            let entry = entry.map_err(|e| failed(e.into()))?;
            let name = entry.file_name().to_bytes();
            if !is_hidden(name, at) {
                entries.push((name.to_vec(), entry.file_type()));
            }
        }
        for (name, kind) in entries {
            match std::str::from_utf8(&name) {
                Ok(name) if Key::check(name).is_ok() => {
                    self.entry(folder, name, &format!("{at}{name}"), kind)?;
                }
                _ => self.stranger(&format!("{at}{}", name.escape_ascii())),
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: &Folder, name: &str, key: &str, kind: FileType) -> Result<()> {
        let failed = |e: io::Error| self.sink.failed(&format!("list `{key}`"), e);
        if kind == FileType::Directory {
            // A delete may have removed it since.
            return match absent(folder.open(name)).map_err(failed)? {
                Some(inner) => self.folder(&inner, &format!("{key}/")),
                None => Ok(()),
            };
        }
        let Some(stat) = absent(folder.stat(name)).map_err(failed)? else {
            return Ok(());
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => match Key::parse(key) {
                Ok(key) => self.found.push(object(key, &stat))?,
                Err(_) => self.stranger(key),
            },
            // A file system that does not tell kinds in its listing.
            FileType::Directory if kind == FileType::Unknown => {
                return self.entry(folder, name, key, FileType::Directory);
            }
            _ => self.stranger(key),
        }
        Ok(())
    }

    fn stranger(&mut self, name: &str) {
        self.strangers += 1;
        if self.strangers == 1 {
            self.first = format!("{name:?}");
        }
    }
}

/// The next segments under `prefix`.
pub(crate) fn children(
    sink: &FsSink,
    prefix: Option<&Key>,
    found: &mut Found<String>,
) -> Result<()> {
    let at = prefix.map_or(String::new(), |prefix| format!("{prefix}/"));
    let failed = |e: io::Error| sink.failed(&format!("list `{at}`"), e);
    let Some(root) = sink.root()? else {
        return Ok(());
    };
    let folder = match prefix {
        None => root,
        Some(prefix) => {
            let below = root
                .parent_of(prefix)
                .and_then(|parent| parent.open(prefix.name()));
            match absent(below).map_err(failed)? {
                Some(folder) => folder,
                None => return Ok(()),
            }
        }
    };
    for entry in Dir::read_from(&folder.0).map_err(|e| failed(e.into()))? {
        let entry = entry.map_err(|e| failed(e.into()))?;
        let name = entry.file_name().to_bytes();
        if is_hidden(name, &at) {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match absent(folder.stat(entry.file_name())).map_err(failed)? {
                Some(stat) => FileType::from_raw_mode(stat.st_mode),
                None => continue,
            },
            kind => kind,
        };
        let usable = matches!(kind, FileType::Directory | FileType::RegularFile);
        match std::str::from_utf8(name) {
            Ok(name) if usable && Key::check(name).is_ok() => found.push(name.to_owned())?,
            _ => tracing::warn!(sink = %sink, name = %name.escape_ascii(), "cannot be an object"),
        }
    }
    Ok(())
}

/// An object as its file tells it.
pub(crate) fn object(key: Key, stat: &Stat) -> Object {
    let mut object = Object::new(key, u64::try_from(stat.st_size).unwrap_or_default());
    object.modified = u64::try_from(stat.st_mtime)
        .ok()
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    object
}

/// Hidden names are not ours to judge, and `lost+found` belongs to the file system.
fn is_hidden(name: &[u8], at: &str) -> bool {
    name.starts_with(b".") || (at.is_empty() && name == b"lost+found")
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e),
    }
}
