//! A server that is our replica for a while.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Result, undo};

use crate::connection::Connection;
use crate::preflight;
use crate::server::Server;
use crate::target::described;

/// A server that is told to be a primary again when this is dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    server: Server,
    patience: Duration,
    detached: bool,
}

/// How often a server that loads, and obeys nobody meanwhile, is asked again: for an hour.
const TRIES: u32 = 3600;

impl Attached {
    /// Sends `REPLICAOF`.
    pub(crate) async fn to(
        server: &Server,
        control: &mut Connection,
        (host, port): &(String, u16),
        patience: Duration,
    ) -> Result<Self> {
        // From here on, also when the answer does not come.
        let attached = Self {
            server: server.clone(),
            patience,
            detached: false,
        };
        match control.ask(&["REPLICAOF", host, &port.to_string()]).await {
            Ok(_) => Ok(attached),
            Err(error) => {
                let mut attached = attached;
                attached.detached = error.kind() != ErrorKind::Unavailable;
                Err(error.context(format!("make {server} a replica for the restore")))
            }
        }
    }

    /// Sends `REPLICAOF NO ONE`.
    pub(crate) async fn detach(mut self) -> Result<()> {
        detach(&self.server, self.patience).await?;
        self.detached = true;
        Ok(())
    }

    /// The same after an error, which then says in what state the server is.
    pub(crate) async fn give_up(mut self, error: Error) -> Error {
        let detached = detach(&self.server, self.patience).await;
        // Only now: dropped while it waited, this must try again.
        self.detached = true;
        let server = &self.server;
        let state = async {
            detached?;
            let mut connection = Connection::open(server, self.patience).await?;
            preflight::info(&mut connection).await
        };
        error.context(match state.await {
            Ok(info) => format!("{server} takes writes again and holds {}", described(&info)),
            Err(why) => format!(
                "{server} may still be a replica, and hold a part of the backup (send it REPLICAOF NO ONE): {why}"
            ),
        })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        let (server, patience) = (self.server.clone(), self.patience);
        // At once: the process may end before the server obeys.
        tracing::warn!(
            %server,
            "the restore was given up, and the server is made a primary again: where it stays a \
             replica, send it REPLICAOF NO ONE"
        );
        // Without a runtime nobody can: it stays a replica of nobody, and says so in its log.
        undo(async move {
            if let Err(error) = detach(&server, patience).await {
                let error = error.chain();
                tracing::warn!(%server, error, "the server may still be a replica: send it REPLICAOF NO ONE");
            }
        });
    }
}

/// Asks until it obeys: while it loads it refuses (`-LOADING`).
async fn detach(server: &Server, patience: Duration) -> Result<()> {
    let mut tries = 0;
    loop {
        let asked = async {
            let mut connection = Connection::open(server, patience).await?;
            connection.ask(&["REPLICAOF", "NO", "ONE"]).await
        };
        match asked.await {
            Ok(_) => return Ok(()),
            Err(error) if tries < TRIES && error.chain().contains("LOADING") => {}
            Err(error) => return Err(error.context(format!("make {server} a primary again"))),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_secs(1).min(patience)).await;
    }
}
