//! One snapshot in a repository of the cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::settings::percent_encode;
use backup_core::{Error, ErrorKind, Result, undo};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::state::Snapshot;
use crate::client::{Call, Client};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A snapshot by its name, which there may be or not.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    client: Arc<Client>,
    path: String,
}

#[derive(Deserialize)]
struct Found {
    snapshots: Vec<Snapshot>,
}

impl Named {
    pub(crate) fn new(client: &Arc<Client>, repository: &str, name: &str) -> Self {
        Self {
            client: Arc::clone(client),
            path: format!(
                "/_snapshot/{}/{}",
                percent_encode(repository),
                percent_encode(name)
            ),
        }
    }

    /// Makes it, and waits until the server says how it ended.
    pub(crate) async fn make(&self, body: &Value, limit: Duration) -> Result<Snapshot> {
        let path = format!("{}?wait_for_completion=false", self.path);
        self.client
            .send(&Call::new(Method::PUT, path).json(body).once())
            .await?;
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let snapshot = self.look().await?;
            if !snapshot.is_running() {
                return Ok(snapshot);
            }
            if begun.elapsed() > limit {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the snapshot was not done after {} seconds, and was stopped",
                        limit.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// What the server says of it. `NotFound` where there is none.
    pub(crate) async fn look(&self) -> Result<Snapshot> {
        let found: Found = self.client.ask(&Call::get(self.path.clone())).await?;
        found
            .snapshots
            .into_iter()
            .next()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "the server does not know the snapshot"))
    }

    /// Asks to bring it back.
    pub(crate) async fn restore(&self, body: &Value) -> Result<()> {
        let path = format!("{}/_restore?wait_for_completion=false", self.path);
        self.client
            .send(&Call::new(Method::POST, path).json(body).once())
            .await
            .map(drop)
    }

    /// What `curl` asks for to have all of it back but the aliases, as a line of requests.
    pub(crate) fn restore_request(&self) -> String {
        let body = json!({"include_global_state": false, "include_aliases": false});
        format!(
            "POST {}/_restore?wait_for_completion=true {body}\n",
            self.path
        )
    }

    /// Has it deleted, or stopped if it is being made. Missing: `Ok`.
    pub(crate) async fn delete(&self) -> Result<()> {
        delete(&self.client, &self.path).await
    }
}

/// Deletes a snapshot or forgets a repository. Missing: `Ok`.
pub(crate) async fn delete(client: &Client, path: &str) -> Result<()> {
    let call = Call::new(Method::DELETE, path);
    let mut tries = 300;
    loop {
        match client.send(&call).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // For a moment after all shards are there, the restore is not over for the server.
            Err(error) if tries > 0 && error.to_string().contains("currently used") => tries -= 1,
            answer => return answer.map(drop),
        }
        tokio::time::sleep(FIRST_PAUSE).await;
    }
}

/// Deletes a snapshot that nobody will know of: on an error, and when dropped.
#[derive(Debug)]
pub(crate) struct Unkept(Option<Named>);

impl Unkept {
    pub(crate) fn new(named: &Named) -> Self {
        Self(Some(named.clone()))
    }

    pub(crate) fn keep(mut self) {
        self.0 = None;
    }

    /// Deletes it, and says in the error if it could not.
    pub(crate) async fn give_up(mut self, error: Error) -> Error {
        let Some(named) = &self.0 else { return error };
        let deleted = named.delete().await;
        self.0 = None;
        match deleted {
            Ok(()) => error,
            Err(why) => error.context(format!("a snapshot of ours is left: {why}")),
        }
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        let Some(named) = self.0.take() else { return };
        undo(async move {
            if let Err(error) = named.delete().await {
                tracing::warn!("a snapshot of ours is left: {}", error.chain());
            }
        });
    }
}
