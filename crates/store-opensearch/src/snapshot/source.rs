use std::path::Path;

use backup_core::{
    ByteStream, Delegated, Error, ErrorKind, Facts, PartWriter, Request, RestoreStep, Result,
    Source, async_trait,
};
use serde_json::{Value, json};

use super::archive::Archive;
use super::kept::Receipt;
use super::named::{Named, Unkept};
use super::repository::Repository;
use super::state::Snapshot;
use super::{KIND, OpenSearchSnapshot, Place, REPOSITORY, RESTORE};
use crate::FINISH;
use crate::client::Call;
use crate::schema::{self, Names};
use crate::source::{REQUESTS, identified};

#[async_trait]
impl Source for OpenSearchSnapshot {
    fn kind(&self) -> &str {
        KIND
    }

    /// Facts: `server`, `server_version`, `system_id` (the cluster's UUID), `cluster` (its name),
    /// `snapshot` (its UUID), `state`, `indices`, `data_streams`, `shards`, `bytes` (of all files, where
    /// they are in the backup).
    ///
    /// A snapshot that ends as anything but `SUCCESS`, lacks a shard or one of the indices that were
    /// meant, or takes longer than the deadline, is an error. So is one that is not to be found in
    /// the shared folder, and a repository that is not what it should be. On an error, and when
    /// dropped, the cluster deletes it. Of what went through the pipeline it does so afterwards too,
    /// and the files are deleted.
    async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
        let client = self.client()?;
        let about: Value = client.ask(&Call::get("/")).await?;
        let chosen = Names::of(&client).await?.choose(&self.indices)?;
        // Before the snapshot: what an alias points to then is in it.
        let aliases = schema::aliases(&client, &chosen).await?;
        let expected: Vec<String> = chosen.iter().map(|index| index.name.clone()).collect();
        let name = format!("lifebelt-{}", request.id).to_lowercase();
        let body = json!({
            // By their streams, where they have one: those are in it then too.
            "indices": asked(&chosen), "ignore_unavailable": false, "include_global_state": false,
            "partial": self.allow_partial,
            "metadata": {"tool": "lifebelt", "job": request.job, "backup": request.id.as_str()},
        });
        let facts = match &self.place {
            Place::Shared(shared) => {
                let mut repository = Repository::of(&client, &name, shared.mounted.join(&name));
                let location = shared.folder.join(&name);
                repository.register(&location, false).await?;
                let snapshot = repository.making();
                let snapshot = snapshot.make(&body, self.deadline.into()).await?;
                snapshot.require_whole(&expected, self.allow_partial)?;
                let bytes = stream(&repository, &location, out).await?;
                out.write(FINISH, ByteStream::from_bytes(aliases)).await?;
                repository.remove().await?;
                facts(&snapshot).with("bytes", bytes)
            }
            Place::Kept(kept) => {
                kept.require(&client, &about["version"]).await?;
                let named = Named::new(&client, &kept.repository, &name);
                let unkept = Unkept::new(&named);
                let work = async {
                    let snapshot = named.make(&body, self.deadline.into()).await?;
                    snapshot.require_whole(&expected, self.allow_partial)?;
                    let request = named.restore_request();
                    out.write(RESTORE, ByteStream::from_bytes(request)).await?;
                    out.write(FINISH, ByteStream::from_bytes(aliases)).await?;
                    Ok(snapshot)
                };
                let snapshot = match work.await {
                    Ok(snapshot) => snapshot,
                    Err(error) => return Err(unkept.give_up(error).await),
                };
                unkept.keep();
                out.receipt(Receipt::new(kept, &name, &snapshot).to_value());
                facts(&snapshot)
            }
        };
        Ok(identified(facts, &about))
    }

    fn delegated(&self) -> Option<&dyn Delegated> {
        match self.place {
            Place::Shared(_) => None,
            Place::Kept(_) => Some(self),
        }
    }

    /// Through a shared folder: `$TARGET` is a new folder below `path.repo`, `$OPENSEARCH_URL` the
    /// cluster. Of what the cluster keeps: `$TARGET` is the cluster.
    fn restore_steps(&self) -> Vec<RestoreStep> {
        let step = |part: &str, what: &str, script: &str| {
            RestoreStep::new(part, what, ["sh", "-c", script, "sh", "$TARGET"])
        };
        let aliases = "all aliases, in one step";
        match self.place {
            Place::Shared(_) => vec![
                step(
                    REPOSITORY,
                    "the files of a repository. TARGET is an empty folder below `path.repo` of every node, which has the same name \
                     there; OPENSEARCH_URL is a cluster without these indices. What else curl needs to know, such as `user` and \
                     `cacert`, goes into ~/.curlrc",
                    LAY_DOWN,
                )
                .needs(["chmod", "curl", "tar"]),
                step(
                    FINISH,
                    aliases,
                    &format!("set -- \"${{OPENSEARCH_URL:?the URL of the cluster}}\"; {REQUESTS}"),
                )
                .needs(["curl"]),
            ],
            Place::Kept(_) => vec![
                step(
                    RESTORE,
                    "has the snapshot in the receipt restored. TARGET is a cluster with its repository and without these indices, as \
                     https://HOST:9200. What else curl needs to know, such as `user` and `cacert`, goes into ~/.curlrc",
                    &format!("{REQUESTS} | {WHOLE}"),
                )
                .needs(["curl"]),
                step(FINISH, aliases, REQUESTS).needs(["curl"]),
            ],
        }
    }
}

/// The files of a repository, and how many bytes they are.
async fn stream(repository: &Repository, location: &Path, out: &PartWriter) -> Result<u64> {
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
    Ok(bytes)
}

/// The answer to a restore that lacks shards is a 200 as well.
const WHOLE: &str = r#"grep -F "\"failed\":0""#;

/// Has the repository on standard input restored, in the folder `$1`.
const LAY_DOWN: &str = r#"set -e; : "${OPENSEARCH_URL:?the URL of the cluster}"; tar -xf - -C "$1"; chmod -R a+rX "$1"
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
