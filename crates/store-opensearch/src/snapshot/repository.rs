//! A repository that is ours for a while.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Error, Result, blocking, undo};
use reqwest::Method;
use serde_json::json;

use super::named::{Named, delete};
use crate::client::{Call, Client};

const NAME: &str = "snapshot";
const PAUSE: Duration = Duration::from_millis(100);

/// A repository of type `fs`. It is taken from the cluster and its files are deleted at the end,
/// and when this is dropped.
#[derive(Debug)]
pub(crate) struct Repository {
    client: Arc<Client>,
    name: String,
    files: PathBuf,
    has_snapshot: bool,
}

impl Repository {
    /// Files that will be a repository, and are not known to the cluster yet.
    pub(crate) fn of(client: &Arc<Client>, name: &str, files: PathBuf) -> Self {
        Self {
            client: Arc::clone(client),
            name: name.to_owned(),
            files,
            has_snapshot: false,
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

    /// The only snapshot in it.
    pub(crate) fn snapshot(&self) -> Named {
        Named::new(&self.client, &self.name, NAME)
    }

    /// The same, before it is made: from now on the cluster has to delete one, or stop it.
    pub(crate) fn making(&mut self) -> Named {
        self.has_snapshot = true;
        self.snapshot()
    }

    pub(crate) async fn remove(mut self) -> Result<()> {
        let (files, snapshot) = (std::mem::take(&mut self.files), self.has_snapshot);
        remove(&self.client, &self.name, snapshot, files).await
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let (client, name, snapshot) = (
            Arc::clone(&self.client),
            self.name.clone(),
            self.has_snapshot,
        );
        let files = std::mem::take(&mut self.files);
        if files.as_os_str().is_empty() {
            return;
        }
        // Without a runtime nobody can: its name tells whose it is.
        undo(async move {
            if let Err(error) = remove(&client, &name, snapshot, files).await {
                tracing::warn!("a repository of ours is left: {}", error.chain());
            }
        });
    }
}

/// The first failure counts, and ends nothing.
async fn remove(client: &Arc<Client>, name: &str, snapshot: bool, files: PathBuf) -> Result<()> {
    let mut outcome = Ok(());
    if snapshot {
        outcome = Named::new(client, name, NAME).delete().await;
    }
    outcome = outcome.and(delete(client, &format!("/_snapshot/{name}")).await);
    let removed = blocking(move || {
        clear(&files).map_err(|error| {
            let what = format!("delete folder {}: do it as a user who may", files.display());
            Error::io(what, error)
        })
    });
    outcome.and(removed.await)
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
            Err(_) => std::thread::sleep(PAUSE),
            Ok(()) => {}
        }
        tries -= 1;
    }
}
