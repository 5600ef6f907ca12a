//! The other side of replication: what a server needs that takes us for its primary.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use backup_core::{ByteStream, Error, ErrorKind, Result};
use futures::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, interval, timeout, timeout_at};

use crate::connection::{Connection, request, silent};

/// Waits for one server, and gives it one snapshot.
#[derive(Debug)]
pub(crate) struct Primary {
    listener: TcpListener,
    address: SocketAddr,
}

/// A server that came for a snapshot.
#[derive(Debug)]
pub(crate) struct Replica(Connection);

/// How often a replica hears that we are there: `repl-ping-replica-period`.
const PING: Duration = Duration::from_secs(10);

/// How long somebody may take to say who they are: meanwhile others wait.
const GREETING: Duration = Duration::from_secs(5);

impl Primary {
    /// Listens on `address`, by default on `ours` and any port.
    pub(crate) async fn listen(address: Option<SocketAddr>, ours: IpAddr) -> Result<Self> {
        let address = address.unwrap_or((ours, 0).into());
        let failed = |e| Error::io(format!("listen on {address} for the server to restore"), e);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where the server finds it, if nobody says otherwise.
    pub(crate) fn address(&self) -> (String, u16) {
        (self.address.ip().to_string(), self.address.port())
    }

    /// Waits for the server whose replication id is `replid`. It offers that id, since it was a
    /// primary until now (`replicationCacheMasterUsingMyself`), and nobody but it and its users
    /// knows it: who comes without is sent away, and sees no byte of the backup.
    pub(crate) async fn accept(&self, replid: &str, patience: Duration) -> Result<Replica> {
        let deadline = Instant::now() + patience;
        let never = || {
            let (host, port) = self.address();
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the server did not come to {host}:{port} within {patience:?}: it must reach \
                     this host; see `listen` and `advertise`"
                ),
            )
        };
        loop {
            let accepted = timeout_at(deadline, self.listener.accept()).await;
            let (stream, peer) = accepted
                .map_err(|_| never())?
                .map_err(|e| Error::io("wait for the server to restore", e))?;
            let greeting = self.greet(stream, peer, replid, patience);
            let greeted = timeout(GREETING.min(patience), greeting).await;
            match greeted.unwrap_or_else(|_| Err(silent(&format!("replica {peer}"), GREETING))) {
                Ok(replica) => return Ok(replica),
                // It would try for ever.
                Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
                Err(error) => {
                    let error = error.chain();
                    tracing::warn!(%peer, error, "somebody else asked for the backup, and was sent away");
                }
            }
        }
    }

    /// Answers what a replica says ahead (`syncWithMaster`): each with a line, whether it waits for
    /// it or not.
    async fn greet(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        replid: &str,
        patience: Duration,
    ) -> Result<Replica> {
        let mut first = [0];
        let peeked = stream.peek(&mut first).await;
        if peeked.is_ok() && first[0] == 0x16 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the server wants TLS for replication: set `tls-replication no` for the restore, \
                 or restore its dump.rdb",
            ));
        }
        let name = format!("replica {peer}");
        let mut connection =
            Connection::over(Box::new(stream), (self.address, peer), name, patience);
        loop {
            let command = connection.command().await?;
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let name = words.first().map(|name| name.to_ascii_uppercase());
            let answer: &[u8] = match (name.as_deref(), &words[..]) {
                (None, _) => continue,
                (Some("PING"), _) => b"+PONG\r\n",
                (Some("AUTH" | "REPLCONF"), _) => b"+OK\r\n",
                (Some("PSYNC"), [_, offered, _]) if offered.eq_ignore_ascii_case(replid) => {
                    return Ok(Replica(connection));
                }
                _ => return Err(connection.broken("it is not the server to restore")),
            };
            connection.send(answer).await?;
        }
    }
}

impl Replica {
    /// Sends the snapshot, of `length` bytes. Until the first of them is there the replica hears
    /// every second that we are; later a pause is one for it too, and after its `repl-timeout` (a
    /// minute) it gives up.
    pub(crate) async fn send(&mut self, mut bytes: ByteStream, length: u64) -> Result<()> {
        let id = random_id()?;
        self.0
            .send(format!("+FULLRESYNC {id} 0\r\n").as_bytes())
            .await?;
        let mut second = interval(Duration::from_secs(1));
        let mut chunk = loop {
            tokio::select! {
                chunk = bytes.next() => break chunk.transpose()?,
                _ = second.tick() => self.0.send(b"\n").await?,
            }
        };
        self.0.send(format!("${length}\r\n").as_bytes()).await?;
        let mut sent = 0;
        while let Some(part) = &chunk {
            sent += part.len() as u64;
            self.0.send(part).await?;
            chunk = bytes.next().await.transpose()?;
        }
        match sent == length {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Corrupt,
                format!("the RDB has {sent} bytes, and {length} were announced"),
            )),
        }
    }

    /// Stays its primary until dropped: an error, when it goes away or says nothing any more.
    /// While it loads it sends line ends, and then once a second how far it is.
    pub(crate) async fn keep(&mut self) -> Error {
        let ping = request(&["PING"]);
        let (mut next, mut heard) = (Instant::now() + PING, Instant::now());
        loop {
            self.0.buffer.clear();
            if heard.elapsed() > self.0.patience {
                return silent(&self.0.name, self.0.patience);
            }
            if next <= Instant::now() {
                next += PING;
                if let Err(error) = self.0.send(&ping).await {
                    return error;
                }
            }
            match timeout_at(next.min(heard + self.0.patience), self.0.fill()).await {
                Err(_) => {}
                Ok(Ok(true)) => heard = Instant::now(),
                Ok(Ok(false)) => {
                    let why = "it gave up after it had all of the backup: its log says why";
                    return self.0.broken(why);
                }
                Ok(Err(error)) => return error,
            }
        }
    }
}

/// The id of a history that nobody else has: no replica may ever go on from it.
fn random_id() -> Result<String> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(ErrorKind::Other, format!("random id: {e}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Whoever says nothing, or far too much, keeps the server waiting for a few seconds at most.
    #[tokio::test]
    async fn strangers_do_not_use_up_the_time_of_the_server() {
        let primary = Primary::listen(None, Ipv4Addr::LOCALHOST.into())
            .await
            .unwrap();
        let call = async |said: &str| {
            let mut stream = TcpStream::connect(primary.address()).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            stream
        };
        let begun = Instant::now();
        // They stay connected: only what they say can send them away at once.
        let _silent = call("").await;
        let _words = call("*17\r\n").await;
        let _word = call("*1\r\n$1025\r\n").await;
        let _nested = call("*1\r\n*1\r\n").await;
        let server = request(&["PSYNC", "id", "1"]);
        let _server = call(std::str::from_utf8(&server).unwrap()).await;
        primary.accept("id", PING).await.unwrap();
        assert!(begun.elapsed() < GREETING * 3, "{:?}", begun.elapsed());
    }
}
