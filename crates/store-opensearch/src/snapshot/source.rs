use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    ByteStream, Error, ErrorKind, Facts, PartWriter, Request, RestoreStep, Result, Source,
    async_trait,
};
use serde_json::{Value, json};

use super::archive::Archive;
use super::repository::Repository;
use super::state::Snapshot;
use super::{KIND, OpenSearchSnapshot, REPOSITORY};
use crate::FINISH;
use crate::client::{Call, Client};
use crate::schema::{self, Names};
use crate::source::{REQUESTS, identified};

#[async_trait]
impl Source for OpenSearchSnapshot {
    fn kind(&self) -> &str {
        KIND
    }

    /// Facts: `server`, `server_version`, `system_id` (the cluster's UUID), `cluster` (its name),
    /// `snapshot` (its UUID), `state`, `indices`, `data_streams`, `shards`, `bytes` (of all files).
    ///
    /// A snapshot that ends as anything but `SUCCESS`, lacks a shard or one of the indices that were
    /// meant, takes longer than the deadline, or is not to be found in the shared folder, is an
    /// error. Afterwards, on an error, and when dropped: the cluster forgets it, and its files
    /// are deleted.
    async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
        let client = Arc::new(Client::new(&self.server, Duration::from(self.timeout))?);
        let about: Value = client.ask(&Call::get("/")).await?;
        let chosen = Names::of(&client).await?.choose(&self.indices)?;
        // Before the snapshot: what an alias points to then is in it.
        let aliases = schema::aliases(&client, &chosen).await?;
        let expected: Vec<String> = chosen.iter().map(|index| index.name.clone()).collect();

        let name = format!("lifebelt-{}", request.id).to_lowercase();
        let (location, files) = self.shared.place(&name);
        let mut repository = Repository::of(&client, &name, files);
        repository.register(&location, false).await?;
        let body = json!({
            // By their streams, where they have one: those are in it then too.
            "indices": asked(&chosen), "ignore_unavailable": false, "include_global_state": false,
            "partial": self.allow_partial,
            "metadata": {"tool": "lifebelt", "job": request.job, "backup": request.id.as_str()},
        });
        let snapshot = repository.make(&body, self.deadline.into()).await?;
        snapshot.require_whole(&expected, self.allow_partial)?;
        if !repository.files().join("index.latest").is_file() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the nodes wrote into {}, and nothing of it is in {}: both must be the same folder, which this user may read",
                    location.display(),
                    repository.files().display()
                ),
            ));
        }
        let archive = Archive::of(repository.files())?;
        let bytes = archive
            .size()
            .map_err(|e| Error::io("measure the repository", e))?;
        out.write(REPOSITORY, ByteStream::from_reader("repository", archive))
            .await?;
        out.write(FINISH, ByteStream::from_bytes(aliases)).await?;
        repository.remove().await?;
        Ok(identified(facts(&snapshot).with("bytes", bytes), &about))
    }

    /// `$TARGET` is a new folder below `path.repo`, `$OPENSEARCH_URL` the cluster.
    fn restore_steps(&self) -> Vec<RestoreStep> {
        vec![
            RestoreStep::new(
                REPOSITORY,
                "the files of a repository. TARGET is an empty folder below `path.repo` of every node, which has the same name \
                 there; OPENSEARCH_URL is a cluster without these indices. What else curl needs to know, such as `user` and \
                 `cacert`, goes into ~/.curlrc",
                ["sh", "-c", RESTORE, "sh", "$TARGET"],
            )
            .needs(["chmod", "curl", "tar"]),
            RestoreStep::new(FINISH, "all aliases, in one step", [
                "sh",
                "-c",
                &format!("set -- \"${{OPENSEARCH_URL:?the URL of the cluster}}\"; {REQUESTS}"),
            ])
            .needs(["curl"]),
        ]
    }
}

/// The answer to a restore that lacks shards is a 200 as well.
const RESTORE: &str = r#"set -e; : "${OPENSEARCH_URL:?the URL of the cluster}"; tar -xf - -C "$1"; chmod -R a+rX "$1"
ask() { printf %s "$3" | curl -sS --fail-with-body -X "$1" -H "Content-Type: application/json" --data-binary @- "$OPENSEARCH_URL/_snapshot/lifebelt-restore$2"; }
ask PUT "" "{\"type\":\"fs\",\"settings\":{\"location\":\"$1\",\"readonly\":true,\"max_restore_bytes_per_sec\":\"0\"}}"
ask POST "/snapshot/_restore?wait_for_completion=true" "{\"include_global_state\":false,\"include_aliases\":false}" | grep -F "\"failed\":0"
ask DELETE "" """#;

/// What is asked for, of what is chosen.
fn asked(chosen: &[schema::Named]) -> Vec<&str> {
    let mut names: Vec<&str> = chosen
        .iter()
        .map(|index| index.data_stream.as_deref().unwrap_or(&index.name))
        .collect();
    names.dedup();
    names
}

fn facts(snapshot: &Snapshot) -> Facts {
    Facts::new()
        .with("snapshot", snapshot.uuid.as_str())
        .with("snapshot_version", snapshot.version.as_str())
        .with("state", snapshot.state.as_str())
        .with("indices", snapshot.indices.clone())
        .with("data_streams", snapshot.data_streams.clone())
        .with("shards", snapshot.shards.total)
}
