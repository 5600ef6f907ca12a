use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::settings::percent_encode;
use backup_core::{
    Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target, async_trait,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::kept::Receipt;
use super::named::Named;
use super::repository::Repository;
use super::{KIND, OpenSearchSnapshotTarget, REPOSITORY, archive};
use crate::FINISH;
use crate::client::{Call, Client};
use crate::count::count;
use crate::options::{Conflict, Restoring};
use crate::requests::What;
use crate::schema::Names;
use crate::server::invalid;
use crate::target::finish;
use crate::unfinished::{Unfinished, remove};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[async_trait]
impl Target for OpenSearchSnapshotTarget {
    fn kind(&self) -> &str {
        KIND
    }

    /// Empty: no index and no data stream has a name that a restored one may get. Others do not
    /// count.
    async fn occupancy(&self) -> Result<Occupancy> {
        let client = Client::new(&self.server, Duration::from(self.timeout))?;
        Ok(self.restoring.occupancy(&Names::of(&client).await?))
    }

    /// Several indices cannot appear at once.
    fn publishes_atomically(&self) -> bool {
        false
    }

    fn takes_receipts(&self) -> bool {
        true
    }

    /// Finds the snapshot by its receipt, or lays its repository down in the shared folder and makes
    /// that known to the cluster, to be read only. Has what is wanted of it restored without aliases
    /// and without the state of the cluster, waits until every primary shard is there, and last sets
    /// the aliases, all in one step.
    ///
    /// Refused before anything is touched: a name that is taken, unless the caller agreed to
    /// replace and [`Conflict`] allows it; a receipt for a snapshot that is gone, or not whole.
    ///
    /// Options: `indices`, `rename`, `conflict`, `aliases`, as the setters of the same names.
    ///
    /// On an error, and when dropped, indices that it made are deleted again. A repository that it
    /// laid down is taken away in any case.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        let how = self.restoring.with(options, KIND)?;
        let client = Arc::new(Client::new(&self.server, Duration::from(self.timeout))?);
        let wanted = wanted(parts, &how)?;
        let ours: BTreeSet<String> = wanted.iter().map(|(_, name)| how.renamed(name)).collect();
        let taken = how.taken(&Names::of(&client).await?, &ours, options.replace)?;

        let (snapshot, repository) = match &parts.manifest().receipt {
            Some(receipt) => (Receipt::read(receipt)?.require(&client).await?, None),
            None => {
                let (snapshot, repository) = self.lay_down(parts, &client).await?;
                (snapshot, Some(repository))
            }
        };

        let mut unfinished = Unfinished::new(&client);
        let work = async {
            let mut closed = BTreeSet::new();
            let asked = async {
                for (what, name) in taken {
                    match how.conflict {
                        Conflict::Close if what == What::Index => {
                            turn(&client, &name, "_close").await?;
                            closed.insert(name);
                        }
                        _ => remove(&client, what, &name).await?,
                    }
                }
                for (what, name) in &wanted {
                    let name = how.renamed(name);
                    // What was closed stays, with what it had or has now.
                    if !closed.contains(&name) {
                        unfinished.making(*what, &name);
                    }
                }
                snapshot.restore(&asked(&wanted, &how)).await
            };
            match asked.await {
                // It said no, or nothing.
                Err(error) if error.kind() != ErrorKind::Unavailable => {
                    unfinished.none_made();
                    return Err(open_again(&client, &closed, error).await);
                }
                asked => asked?,
            }
            self.wait(&client, &ours).await?;
            finish(&client, parts, &how).await?;
            parts.require_complete([FINISH])
        };
        match work.await {
            Ok(()) => unfinished.keep(),
            Err(error) => return Err(unfinished.give_up(error).await),
        }
        match repository {
            Some(repository) => repository.remove().await,
            None => Ok(()),
        }
    }
}

/// Indices and streams that are wanted, by their old names.
fn wanted(parts: &PartReader, how: &Restoring) -> Result<Vec<(What, String)>> {
    let list = |fact: &str| -> Vec<String> {
        let names = parts.facts().get(fact).and_then(Value::as_array);
        names
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    };
    let streams = list("data_streams");
    // `.ds-STREAM-000001`: indices of a stream come with it.
    let of_a_stream = |name: &str| {
        let stream = name
            .strip_prefix(".ds-")
            .and_then(|rest| rest.rsplit_once('-'));
        stream.is_some_and(|(stream, _)| streams.iter().any(|known| known == stream))
    };
    let indices = list("indices")
        .into_iter()
        .filter(|name| !of_a_stream(name));
    let all: Vec<_> = indices.map(|name| (What::Index, name)).collect();
    let all = all
        .into_iter()
        .chain(streams.iter().map(|name| (What::Stream, name.clone())));
    let wanted: Vec<_> = all.filter(|(_, name)| how.indices.want(name)).collect();
    let missing = how
        .indices
        .exact()
        .find(|exact| !wanted.iter().any(|(_, name)| name == exact));
    match (missing, wanted.is_empty()) {
        (Some(name), _) => Err(Error::new(
            ErrorKind::NotFound,
            format!("the backup has no index and no data stream `{name}`"),
        )),
        (None, true) => Err(Error::new(
            ErrorKind::NotFound,
            "the backup has none of the indices that are asked for",
        )),
        _ => Ok(wanted),
    }
}

fn asked(wanted: &[(What, String)], how: &Restoring) -> Value {
    let names: Vec<&str> = wanted.iter().map(|(_, name)| &**name).collect();
    let mut body = json!({
        "indices": names, "ignore_unavailable": false, "include_global_state": false,
        "include_aliases": false, "partial": false,
    });
    if how.rename.is_some() {
        body["rename_pattern"] = "(.+)".into();
        body["rename_replacement"] = how.renamed("$1").into();
    }
    body
}

async fn unpack(parts: &PartReader, files: PathBuf) -> Result<()> {
    let bytes = parts.open(REPOSITORY).await?;
    bytes
        .consume(move |data, _| archive::unpack(data, &files))
        .await
}

/// Opens or closes an index: `_open`, `_close`.
async fn turn(client: &Client, name: &str, how: &str) -> Result<()> {
    let path = format!("/{}/{how}", percent_encode(name));
    client.send(&Call::new(Method::POST, path)).await.map(drop)
}

/// What was closed for a restore that the server refuses. Says in the error if it cannot be opened.
async fn open_again(client: &Client, closed: &BTreeSet<String>, error: Error) -> Error {
    let mut left = Vec::new();
    for name in closed {
        if let Err(why) = turn(client, name, "_open").await {
            left.push(format!("`{name}` stays closed: {why}"));
        }
    }
    match left.is_empty() {
        true => error,
        false => error.context(left.join("; ")),
    }
}

impl OpenSearchSnapshotTarget {
    /// The repository of the backup, as one that the cluster reads.
    async fn lay_down(
        &self,
        parts: &PartReader,
        client: &Arc<Client>,
    ) -> Result<(Named, Repository)> {
        let shared = self.shared.as_ref().ok_or_else(|| {
            invalid("the files of a repository need a `folder` below `path.repo` of the nodes, which this host has too")
        })?;
        // The folder of one that was given up may be there for a moment more.
        let random = getrandom::u32().unwrap_or_default();
        let name = format!("lifebelt-restore-{}-{random:08x}", parts.manifest().id).to_lowercase();
        let files = shared.mounted.join(&name);
        let repository = Repository::of(client, &name, files.clone());
        unpack(parts, files).await?;
        parts.require_complete([REPOSITORY])?;
        repository
            .register(&shared.folder.join(&name), true)
            .await?;
        let snapshot = repository.snapshot();
        snapshot.look().await?.require_whole(&[], true)?;
        Ok((snapshot, repository))
    }

    /// Until every primary shard is there. One that cannot be restored leaves its index red.
    async fn wait(&self, client: &Client, names: &BTreeSet<String>) -> Result<()> {
        let (begun, limit) = (Instant::now(), Duration::from(self.deadline));
        for name in names {
            let mut pause = FIRST_PAUSE;
            loop {
                let path = format!(
                    "/_cluster/health/{}?level=indices&expand_wildcards=all",
                    percent_encode(name)
                );
                if is_there(&client.ask(&Call::get(path)).await?) {
                    break;
                }
                if let Some(why) = failed(client, name).await? {
                    return Err(Error::new(
                        ErrorKind::Other,
                        format!("`{name}` cannot be restored: {why}"),
                    ));
                }
                if begun.elapsed() > limit {
                    let why = format!(
                        "`{name}` was not restored within {} seconds",
                        limit.as_secs()
                    );
                    return Err(Error::new(ErrorKind::Unavailable, why));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            }
            count(client, name).await?;
        }
        Ok(())
    }
}

/// Whether every primary shard is there. The colour does not tell: an index is yellow while its
/// primary shards come from a snapshot.
fn is_there(health: &Value) -> bool {
    let indices = health["indices"].as_object();
    indices.is_some_and(|indices| {
        let has_all = |said: &Value| said["active_primary_shards"] == said["number_of_shards"];
        !indices.is_empty() && indices.values().all(has_all)
    })
}

/// Why a shard will not come.
async fn failed(client: &Client, name: &str) -> Result<Option<String>> {
    let path = format!(
        "/_cat/shards/{}?format=json&h=prirep,state,unassigned.reason,unassigned.details",
        percent_encode(name)
    );
    let shards: Vec<Value> = client.ask(&Call::get(path)).await?;
    let hopeless = |shard: &&Value| {
        shard["prirep"] == "p" && shard["unassigned.reason"] == "ALLOCATION_FAILED"
    };
    // What caused all the rest is told last.
    let cause = |shard: &Value| {
        let said = shard["unassigned.details"].as_str().unwrap_or_default();
        let (_, cause) = said.rsplit_once("nested: ").unwrap_or(("", said));
        cause.trim_end_matches([';', ' ']).to_owned()
    };
    Ok(shards.iter().find(hopeless).map(cause))
}
