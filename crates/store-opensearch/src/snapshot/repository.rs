//! A repository that is ours for a while.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::state::Snapshot;
use crate::client::{Call, Client};

/// The only snapshot in it.
pub(crate) const NAME: &str = "snapshot";
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A repository of type `fs`. It is taken from the cluster and its files are deleted at the end,
/// and when this is dropped.
#[derive(Debug)]
pub(crate) struct Repository {
    client: Arc<Client>,
    name: String,
    files: PathBuf,
    /// The cluster has to delete a snapshot, or stop it.
    snapshot: bool,
}

#[derive(Deserialize)]
struct Found {
    snapshots: Vec<Snapshot>,
}

impl Repository {
    /// Files that will be a repository, and are not known to the cluster yet.
    pub(crate) fn of(client: &Arc<Client>, name: &str, files: PathBuf) -> Self {
        Self {
            client: Arc::clone(client),
            name: name.to_owned(),
            files,
            snapshot: false,
        }
    }

    pub(crate) fn files(&self) -> &Path {
        &self.files
    }

    /// Makes it known: every node looks whether it can write there, if it may write.
    pub(crate) async fn register(&self, location: &Path, readonly: bool) -> Result<()> {
        // "0" is no limit; by itself the server takes 40 MB/s, whatever the disk can do.
        let body = json!({"type": "fs", "settings": {
            "location": location, "readonly": readonly, "compress": true,
            "max_snapshot_bytes_per_sec": "0", "max_restore_bytes_per_sec": "0",
        }});
        let call = Call::new(Method::PUT, format!("/_snapshot/{}", self.name)).json(&body);
        self.client.send(&call).await.map(drop).map_err(|error| {
            let hint = "the folder must lie below `path.repo` of every node, and all of them must be able to write there";
            error.context(format!("use {} as a repository: {hint}", location.display()))
        })
    }

    /// Makes the snapshot, and waits until the server says how it ended.
    pub(crate) async fn make(&mut self, body: &Value, limit: Duration) -> Result<Snapshot> {
        self.snapshot = true;
        let path = format!("/_snapshot/{}/{NAME}?wait_for_completion=false", self.name);
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

    /// What the server says of the snapshot.
    pub(crate) async fn look(&self) -> Result<Snapshot> {
        let call = Call::get(format!("/_snapshot/{}/{NAME}", self.name));
        let found: Found = self.client.ask(&call).await?;
        found.snapshots.into_iter().next().ok_or_else(|| {
            Error::new(
                ErrorKind::Source,
                "the server does not know the snapshot that it made",
            )
        })
    }

    /// Asks to bring it back.
    pub(crate) async fn restore(&self, body: &Value) -> Result<()> {
        let path = format!(
            "/_snapshot/{}/{NAME}/_restore?wait_for_completion=false",
            self.name
        );
        self.client
            .send(&Call::new(Method::POST, path).json(body).once())
            .await
            .map(drop)
    }

    pub(crate) async fn remove(mut self) -> Result<()> {
        let (files, snapshot) = (std::mem::take(&mut self.files), self.snapshot);
        remove(&self.client, &self.name, snapshot, files).await
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let (client, name, snapshot) = (Arc::clone(&self.client), self.name.clone(), self.snapshot);
        let files = std::mem::take(&mut self.files);
        if files.as_os_str().is_empty() {
            return;
        }
        // Without a runtime nobody can: its name tells whose it is.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = remove(&client, &name, snapshot, files).await {
                    tracing::warn!("a repository of ours is left: {}", error.chain());
                }
            });
        }
    }
}

/// The first failure counts, and ends nothing.
async fn remove(client: &Client, name: &str, snapshot: bool, files: PathBuf) -> Result<()> {
    let delete = async |path: String| {
        let call = Call::new(Method::DELETE, path);
        let mut tries = 300;
        loop {
            match client.send(&call).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                // For a moment after all shards are there, the restore is not over for the server.
                Err(error) if tries > 0 && error.to_string().contains("currently used") => {
                    tries -= 1
                }
                answer => return answer.map(drop),
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    };
    let mut outcome = Ok(());
    if snapshot {
        outcome = delete(format!("/_snapshot/{name}/{NAME}")).await;
    }
    outcome = outcome.and(delete(format!("/_snapshot/{name}")).await);
    let removed = tokio::task::spawn_blocking(move || match clear(&files) {
        Err(error) => {
            let what = format!("delete folder {}: do it as a user who may", files.display());
            Err(Error::io(what, error))
        }
        Ok(()) => Ok(()),
    });
    outcome.and(removed.await.unwrap_or_else(|e| {
        Err(Error::new(ErrorKind::Cancelled, "delete the files of a repository").with_source(e))
    }))
}

/// Deletes a folder. A thread that wrote there when a restore was given up may do so for a moment
/// more.
fn clear(folder: &Path) -> io::Result<()> {
    let mut tries = 20;
    loop {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if tries == 0 => return Err(error),
            // Also when it went well: somebody may make it again.
            Err(_) => std::thread::sleep(FIRST_PAUSE),
            Ok(()) => {}
        }
        tries -= 1;
    }
}
