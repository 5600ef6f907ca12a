//! A snapshot of a server, over the replication protocol.

use std::path::Path;
use std::time::Duration;

use backup_core::{ByteStream, CHUNK, Error, ErrorKind, Result};
use bytes::BytesMut;
use futures::{StreamExt, stream};
use tokio::sync::oneshot;

use crate::connection::{Connection, refused, request};
use crate::framing::Framing;
use crate::rdb::{Summary, Visitor, Walker};
use crate::server::Server;

/// Valkey 9 writes an older format for replicas of older versions and of those that do not say
/// theirs, and breaks off at what that cannot hold. Others do not know the question.
const NEWEST: &str = "99.0.0";

/// A server sends 16 KiB at a time: less work for everybody in larger pieces. As much as the buffer of
/// a connection surely takes without growing, so what was read one after the other is not copied.
const PIECE: usize = CHUNK / 2;

/// A snapshot that a server has begun to send: all of its databases at one moment.
///
/// Dropping it closes the connection, and the server gives up.
#[derive(Debug)]
pub(crate) struct Capture {
    connection: Connection,
    framing: Framing,
    /// Where this is in the history of changes.
    pub(crate) offset: u64,
}

impl Capture {
    /// Asks for a snapshot, as a replica does that has nothing yet, and waits until it comes. A
    /// server that is silent for longer than `patience` is `Unavailable`; while it prepares the
    /// snapshot it sends a line end every second.
    ///
    /// `REPLCONF capa eof` lets it stream from the fork, without a file; `rdb-only` (since 6.2)
    /// spares it what changes meanwhile (`sendReplconf` of `redis-cli.c`). Each answer is awaited:
    /// "PSYNC invalid with pending output" (`replication.c`).
    pub(crate) async fn begin(server: &Server, patience: Duration) -> Result<Self> {
        let mut connection = Connection::open(server, patience).await?;
        let named = |error: Error| {
            let kind = match error.kind() {
                ErrorKind::Other => ErrorKind::Source,
                kind => kind,
            };
            Error::new(kind, format!("take a snapshot of {server}")).with_source(error)
        };
        let capabilities = ["REPLCONF", "capa", "eof", "capa", "psync2"];
        connection.ask(&capabilities).await.map_err(named)?;
        match connection.ask(&["REPLCONF", "rdb-only", "1"]).await {
            // Before 6.2: what changes meanwhile comes after the snapshot, and is not read.
            Err(error) if error.kind() == ErrorKind::Other => {}
            answer => drop(answer.map_err(named)?),
        }
        match connection.ask(&["REPLCONF", "version", NEWEST]).await {
            Err(error) if error.kind() == ErrorKind::Other => {}
            answer => drop(answer.map_err(named)?),
        }
        let psync = ["PSYNC", "?", "-1"];
        connection.send(&request(&psync)).await?;
        let line = announced(&mut connection).await?;
        let text = String::from_utf8_lossy(&line);
        let words: Vec<&str> = text.split(' ').collect();
        let offset = match words.as_slice() {
            ["+FULLRESYNC", _, offset] => offset.parse(),
            _ => return Err(named(refused(&psync, text.trim_start_matches('-')))),
        };
        let line = announced(&mut connection).await?;
        let (Some(framing), Ok(offset)) = (Framing::of_line(&line), offset) else {
            let said = String::from_utf8_lossy(&line).into_owned();
            return Err(named(refused(&psync, said.trim_start_matches('-'))));
        };
        Ok(Self {
            connection,
            framing,
            offset,
        })
    }

    /// The bytes of the snapshot. A connection that ends early is an error.
    pub(crate) fn bytes(self) -> ByteStream {
        ByteStream::new(stream::try_unfold(self, |mut this| async move {
            let mut piece = BytesMut::new();
            while piece.len() < PIECE && !this.framing.is_over() {
                let taken = this.framing.take(&mut this.connection.buffer);
                if taken.is_empty() && !this.framing.is_over() && !this.connection.fill().await? {
                    let cut = "it closed the connection before its snapshot was complete";
                    return Err(this.connection.broken(cut));
                }
                piece.unsplit(taken);
            }
            Ok((!piece.is_empty()).then(|| (piece.freeze(), this)))
        }))
    }
}

/// The next line that is not empty: line ends only say that the server is still there.
async fn announced(connection: &mut Connection) -> Result<bytes::Bytes> {
    loop {
        let line = connection.line().await?;
        if !line.is_empty() {
            return Ok(line);
        }
    }
}

/// The bytes of a file. One that a server replaces meanwhile is read on: it replaces by renaming.
pub(crate) fn file(path: &Path) -> Result<ByteStream> {
    let opened = std::fs::File::open(path);
    let file = opened.map_err(|e| Error::io(format!("open {}", path.display()), e))?;
    Ok(ByteStream::from_reader("read rdb", file))
}

/// The same bytes, walked through on their way. What they are is told once they ended well; a
/// snapshot that is not whole ends in an error in the place of its end.
pub(crate) fn walked<V: Visitor + Send + 'static>(
    bytes: ByteStream,
    walker: Walker<V>,
    unchecked: bool,
) -> (ByteStream, oneshot::Receiver<(Summary, V)>) {
    let (told, tell) = oneshot::channel();
    let state = Some((bytes, walker, told));
    let walked = stream::unfold(state, move |state| async move {
        let (mut bytes, mut walker, told) = state?;
        match bytes.next().await {
            Some(Ok(chunk)) => match walker.feed(&chunk) {
                Ok(()) => Some((Ok(chunk), Some((bytes, walker, told)))),
                Err(error) => Some((Err(error), None)),
            },
            Some(Err(error)) => Some((Err(error), None)),
            None => match walker.finish(unchecked) {
                Ok(done) => {
                    let _ = told.send(done);
                    None
                }
                Err(error) => Some((Err(error), None)),
            },
        }
    });
    (ByteStream::new(walked), tell)
}

/// What was told of a stream that ended well.
pub(crate) fn told<V>(mut tell: oneshot::Receiver<(Summary, V)>) -> Result<(Summary, V)> {
    tell.try_recv()
        .map_err(|_| Error::new(ErrorKind::Other, "the RDB was not read to its end"))
}
