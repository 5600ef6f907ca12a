//! Indices of a restore that has not ended well yet.

use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result, undo};
use reqwest::Method;

use crate::client::{Call, Client};
use crate::requests::What;

/// Deletes what a restore made, unless it is kept: on an error, and when dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    client: Arc<Client>,
    made: Vec<(What, String)>,
}

impl Unfinished {
    pub(crate) fn new(client: &Arc<Client>) -> Self {
        Self {
            client: Arc::clone(client),
            made: Vec::new(),
        }
    }

    /// From before it is asked for: an answer may not come.
    pub(crate) fn making(&mut self, what: What, name: &str) {
        self.made.push((what, name.to_owned()));
    }

    /// It was not made: somebody else may have.
    pub(crate) fn not_made(&mut self) {
        self.made.pop();
    }

    /// The same of all of them.
    pub(crate) fn none_made(&mut self) {
        self.made.clear();
    }

    pub(crate) fn keep(mut self) {
        self.made.clear();
    }

    /// Deletes everything, and says so in the error.
    pub(crate) async fn give_up(mut self, error: Error) -> Error {
        let made = std::mem::take(&mut self.made);
        if made.is_empty() {
            return error;
        }
        let count = made.len();
        error.context(match delete(&self.client, made).await {
            Ok(()) => format!(
                "the restore failed, and what it had made was deleted again ({count} indices)"
            ),
            Err(why) => {
                format!("the restore failed, and may have left indices that are not whole: {why}")
            }
        })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (client, made) = (Arc::clone(&self.client), std::mem::take(&mut self.made));
        if made.is_empty() {
            return;
        }
        // Without a runtime nobody can: then there are indices without aliases, and not refreshed.
        undo(async move {
            if let Err(error) = delete(&client, made).await {
                tracing::warn!("indices of a restore that was given up are left: {error}");
            }
        });
    }
}

/// Deletes each of them, the last one first; the first failure counts.
async fn delete(client: &Client, made: Vec<(What, String)>) -> Result<()> {
    let mut outcome = Ok(());
    for (what, name) in made.into_iter().rev() {
        let deleted = remove(client, what, &name).await;
        outcome = outcome.and(deleted);
    }
    outcome
}

/// Deletes an index or a stream. Missing: `Ok`.
pub(crate) async fn remove(client: &Client, what: What, name: &str) -> Result<()> {
    match client
        .send(&Call::new(Method::DELETE, what.path(name)))
        .await
    {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
