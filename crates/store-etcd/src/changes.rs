//! What changed since a backup, as etcd tells it to whoever watches.
//!
//! Every transaction that changes anything gets the revision after the one before it
//! (`etcd/server/storage/mvcc/kvstore_txn.go`). So changes are whole if their revisions have no gap,
//! and they go on from a backup if they begin with the very change that it ended with.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::{ByteStream, Error, ErrorKind, Id, Manifest, Request, Result};
use futures::stream;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::codec::Streaming;

use crate::client::{Client, WATCH};
use crate::lines;
use crate::rpc::{Event, WatchResponse};
use crate::snapshot::PIECE;

/// Where a backup ended: what the next one needs to go on from it. Lies in the job's local folder,
/// as its hash would let a guess at the last value be proven.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    backup: Id,
    pub(crate) cluster: u64,
    /// Of users and roles, which have revisions of their own, where the server tells them.
    #[serde(default)]
    pub(crate) auth: Option<u64>,
    pub(crate) revision: i64,
    /// SHA-256 of the changes of that revision.
    change: String,
}

impl Mark {
    /// That of the backup which may be built on. Taken away: until a backup left another one, nobody
    /// goes on from there, so that what failed once is not tried for ever.
    pub(crate) fn take(request: &Request, parent: &Manifest) -> Option<Self> {
        let path = file(request.state_dir.as_deref()?);
        let bytes = fs::read(&path).ok()?;
        fs::remove_file(&path).ok()?;
        let mark: Self = serde_json::from_slice(&bytes).ok()?;
        (mark.backup == parent.id).then_some(mark)
    }

    /// For the backup after this one, which is a full one if that fails.
    pub(crate) fn leave(request: &Request, cluster: u64, auth: Option<u64>, last: &Last) {
        let Some(folder) = &request.state_dir else {
            return;
        };
        let mark = Self {
            backup: request.id.clone(),
            cluster,
            auth,
            revision: last.revision,
            change: hex(last.hash.clone()),
        };
        let path = file(folder);
        let written = serde_json::to_vec(&mark).map_err(Into::into);
        if let Err(error) = written.and_then(|mark| fs::write(&path, mark)) {
            let path = path.display();
            tracing::warn!("write {path}: {error}; the next backup is a full one");
        }
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("last-change.json")
}

fn unwritten(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Other, "write a change").with_source(error)
}

fn hex(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last revision so far, and the hash of its changes.
#[derive(Clone, Default)]
pub(crate) struct Last {
    pub(crate) revision: i64,
    hash: Sha256,
}

impl Last {
    /// Whether `event` is the first of its revision.
    fn add(&mut self, event: &Event) -> bool {
        let is_first = revision(event) != self.revision;
        if is_first {
            *self = Self {
                revision: revision(event),
                hash: Sha256::new(),
            };
        }
        self.hash.update(event.encode_length_delimited_to_vec());
        is_first
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// The changes of one revision after the other.
struct Watch {
    client: Arc<Client>,
    stream: Streaming<WatchResponse>,
    events: VecDeque<Event>,
    /// The last revision that the server told of, and whether it told all of it.
    told: i64,
    is_whole: bool,
    /// The last revision that is wanted.
    until: i64,
}

impl Watch {
    async fn open(client: Arc<Client>, from: i64, until: i64) -> Result<Self> {
        Ok(Self {
            stream: client.watch(from).await?,
            client,
            events: VecDeque::new(),
            told: 0,
            is_whole: false,
            until,
        })
    }

    /// What comes next, without taking it. `None` at the end of the last revision.
    ///
    /// [`NotFound`](ErrorKind::NotFound): the server does not have it any more.
    async fn peek(&mut self) -> Result<Option<&Event>> {
        while self.events.is_empty() {
            if self.is_whole && self.told >= self.until {
                return Ok(None);
            }
            let told = self.client.next(WATCH, &mut self.stream).await?;
            let told = told.ok_or_else(|| failed("the server ended its answer"))?;
            if told.compact_revision > 0 {
                let message = format!(
                    "etcd gave up its changes up to revision {} meanwhile",
                    told.compact_revision
                );
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            if told.canceled {
                let error = failed(&told.cancel_reason);
                return Err(match told.cancel_reason.contains("permission denied") {
                    true => Error::new(ErrorKind::Denied, "watch all keys").with_source(error),
                    false => error,
                });
            }
            self.is_whole = !told.fragment;
            self.told = told.events.last().map_or(self.told, revision);
            self.events.extend(told.events);
        }
        let next = self.events.front();
        Ok(next.filter(|event| revision(event) <= self.until))
    }

    async fn next(&mut self) -> Result<Option<Event>> {
        let is_there = self.peek().await?.is_some();
        Ok(self.events.pop_front().filter(|_| is_there))
    }

    /// All changes of `revision`, if that is what comes next.
    async fn one(&mut self, revision: i64) -> Result<Last> {
        let mut last = Last::default();
        while self.peek().await?.map(self::revision) == Some(revision) {
            last.add(&self.events.pop_front().unwrap_or_default());
        }
        Ok(last)
    }
}

fn failed(why: &str) -> Error {
    let message = format!("the changes since the last backup cannot be read: {why}");
    Error::new(ErrorKind::Source, message)
}

/// The changes of `revision` alone. `None`: the server does not have them any more, or there are none,
/// as in a cluster that nobody wrote to. Then it says nothing.
pub(crate) async fn last(client: Arc<Client>, revision: i64) -> Result<Option<Last>> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut watch = Watch::open(client, revision, revision).await?;
    let Ok(told) = timeout(PATIENCE, watch.one(revision)).await else {
        return Ok(None);
    };
    Ok(gone(told)?.filter(|last| last.revision == revision))
}

fn gone<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Changes that go on from a backup.
pub(crate) struct Changes {
    watch: Watch,
    last: Last,
    /// The revision that they go on from.
    from: i64,
}

impl Changes {
    /// Those since `mark`, up to the revision `until`. `None`: the server gave up some of them, or has
    /// another past than the backup, as after a restore.
    pub(crate) async fn since(
        client: Arc<Client>,
        mark: &Mark,
        until: i64,
    ) -> Result<Option<Self>> {
        if until < mark.revision {
            return Ok(None);
        }
        let mut watch = Watch::open(client, mark.revision, until).await?;
        let Some(last) = gone(watch.one(mark.revision).await)? else {
            return Ok(None);
        };
        let goes_on = last.revision == mark.revision && hex(last.hash.clone()) == mark.change;
        Ok(goes_on.then_some(Self {
            watch,
            from: last.revision,
            last,
        }))
    }

    /// The part that they are, if there are any.
    pub(crate) fn part(&self) -> Option<String> {
        let (from, until) = (self.from + 1, self.watch.until);
        (from <= until).then(|| lines::part(from, until))
    }

    /// Their last, where there is none: that of the backup before.
    pub(crate) fn last(&self) -> Last {
        self.last.clone()
    }

    /// Their lines, and, once these ended well, the last of them.
    pub(crate) fn into_lines(self) -> (ByteStream, oneshot::Receiver<Last>) {
        let (told, tell) = oneshot::channel();
        let pieces = stream::try_unfold(Some((self, told)), |state| async move {
            let Some((mut changes, told)) = state else {
                return Ok(None);
            };
            let mut text = Vec::new();
            while text.len() < PIECE {
                let next = changes.watch.next().await.map_err(|e| {
                    let kind = match e.kind() {
                        ErrorKind::NotFound => ErrorKind::Source,
                        kind => kind,
                    };
                    let message = "read the changes since the last backup; the next is a full one";
                    Error::new(kind, message).with_source(e)
                })?;
                match next {
                    Some(event) => changes.write(&event, &mut text)?,
                    None if changes.last.revision == changes.watch.until => {
                        text.extend(lines::END);
                        let _ = told.send(changes.last);
                        return Ok(Some((text.into(), None)));
                    }
                    None => return Err(changes.gap(changes.watch.until)),
                }
            }
            Ok(Some((text.into(), Some((changes, told)))))
        });
        (ByteStream::new(pieces), tell)
    }

    fn write(&mut self, event: &Event, text: &mut Vec<u8>) -> Result<()> {
        let (before, revision) = (self.last.revision, revision(event));
        if revision != before + 1 && (revision != before || before == self.from) {
            return Err(self.gap(revision));
        }
        match self.last.add(event) {
            true if before > self.from => text.extend([lines::END, lines::BEGIN].concat()),
            true => text.extend(lines::BEGIN),
            false => text.push(b','),
        }
        lines::write(event, text).map_err(unwritten)
    }

    fn gap(&self, next: i64) -> Error {
        failed(&format!(
            "after revision {} came {next}; the next backup is a full one",
            self.last.revision
        ))
    }
}
