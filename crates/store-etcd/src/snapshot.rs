//! A snapshot on its way: checked as it streams, and known at its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use backup_core::{ByteStream, Error, ErrorKind, PartWriter, Result};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::DB;
use crate::client::{Client, SNAPSHOT};
use crate::walker::{Summary, Walker};

/// What `etcdctl snapshot save` appends to the database, and `etcdutl snapshot restore` looks for.
const TRAILER: usize = 32;
/// A server sends 32 KiB at a time: less work for everybody in larger pieces.
pub(crate) const PIECE: usize = 256 * 1024;

/// The bytes of a server's snapshot, the trailer included. The stream of the server must end by
/// itself: `remaining_bytes` is 0 once before the trailer and once with it.
pub(crate) async fn of_server(client: Arc<Client>) -> Result<ByteStream> {
    let stream = client.snapshot().await?;
    let state = (client, stream, u64::MAX);
    let pieces = stream::try_unfold(Some(state), |state| async move {
        let Some((client, mut stream, mut remaining)) = state else {
            return Ok(None);
        };
        let mut bytes = BytesMut::new();
        while bytes.len() < PIECE {
            match client.next(SNAPSHOT, &mut stream).await? {
                Some(piece) => {
                    bytes.extend_from_slice(&piece.blob);
                    remaining = piece.remaining_bytes;
                }
                None if remaining == 0 => return Ok(Some((bytes.freeze(), None))),
                None => {
                    return Err(Error::new(
                        ErrorKind::Source,
                        "the server ended its snapshot before it was complete",
                    ));
                }
            }
        }
        Ok(Some((bytes.freeze(), Some((client, stream, remaining)))))
    });
    Ok(ByteStream::new(pieces))
}

/// Into a backup, and what it is. What is damaged here is the store's, and no backup of ours.
pub(crate) async fn write(bytes: ByteStream, out: &PartWriter) -> Result<Summary> {
    let (bytes, tell) = checked(bytes);
    match out.write(DB, bytes).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            Err(Error::new(ErrorKind::Source, "take a snapshot").with_source(error))
        }
        written => {
            written?;
            told(tell)
        }
    }
}

/// The same bytes, looked at on their way: the hash in the trailer, and the database before it.
/// What they are is told once they ended well; one that is not whole ends in an error in the place
/// of its end.
pub(crate) fn checked(bytes: ByteStream) -> (ByteStream, oneshot::Receiver<Summary>) {
    let (told, tell) = oneshot::channel();
    let state = Some((bytes, Checker::default(), told));
    let checked = stream::unfold(state, |state| async move {
        let (mut bytes, mut checker, told) = state?;
        match bytes.next().await {
            Some(Ok(chunk)) => match checker.feed(&chunk) {
                Ok(()) => Some((Ok(chunk), Some((bytes, checker, told)))),
                Err(error) => Some((Err(error), None)),
            },
            Some(Err(error)) => Some((Err(error), None)),
            None => match checker.finish() {
                Ok(summary) => {
                    let _ = told.send(summary);
                    None
                }
                Err(error) => Some((Err(error), None)),
            },
        }
    });
    (ByteStream::new(checked), tell)
}

/// Gives a database the hash at its end, and tells what it is.
pub(crate) fn seal(path: &Path) -> Result<Summary> {
    let failed = |e: io::Error| Error::io(format!("seal {}", path.display()), e);
    let file = File::options().read(true).append(true).open(path);
    let mut file = file.map_err(failed)?;
    let (mut hash, mut walker) = (Sha256::new(), Walker::default());
    let mut piece = vec![0; PIECE];
    loop {
        let len = file.read(&mut piece).map_err(failed)?;
        if len == 0 {
            break;
        }
        hash.update(&piece[..len]);
        walker.feed(&piece[..len])?;
    }
    file.write_all(&hash.finalize()).map_err(failed)?;
    walker.finish()
}

/// What was told of a stream that ended well.
pub(crate) fn told<T>(mut tell: oneshot::Receiver<T>) -> Result<T> {
    tell.try_recv()
        .map_err(|_| Error::new(ErrorKind::Other, "the backup was not read to its end"))
}

#[derive(Default)]
struct Checker {
    hash: Sha256,
    walker: Walker,
    /// The last bytes so far: the trailer, if nothing comes any more.
    tail: BytesMut,
}

impl Checker {
    fn feed(&mut self, chunk: &Bytes) -> Result<()> {
        let held = self.tail.len() + chunk.len();
        let data = held.saturating_sub(TRAILER);
        let of_tail = self.tail.split_to(data.min(self.tail.len()));
        let (of_chunk, rest) = chunk.split_at(data - of_tail.len());
        self.tail.extend_from_slice(rest);
        for piece in [&of_tail[..], of_chunk] {
            self.hash.update(piece);
            self.walker.feed(piece)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Summary> {
        if self.tail[..] != self.hash.finalize()[..] {
            let message = "the etcd snapshot is damaged: the SHA-256 at its end is not that of its \
                           bytes; a `member/snap/db` has none, and is no snapshot";
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        self.walker.finish()
    }
}
