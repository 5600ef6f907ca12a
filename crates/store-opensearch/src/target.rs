use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backup_core::settings::percent_encode;
use backup_core::{
    Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target, async_trait,
};
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::bulk;
use crate::client::{Call, Client};
use crate::count::count;
use crate::names::{DOCUMENTS, part};
use crate::options::Restoring;
use crate::requests::{Lines, Request, What};
use crate::schema::{Names, TIMESTAMP, add_fields, entries, keeps_source};
use crate::unfinished::{Unfinished, remove};
use crate::{CREATE, Conflict, FINISH, KIND, OpenSearchCluster};

#[async_trait]
impl Target for OpenSearchCluster {
    fn kind(&self) -> &str {
        KIND
    }

    /// Empty: no index and no data stream has a name that a restored one may get. Others do not
    /// count.
    async fn occupancy(&self) -> Result<Occupancy> {
        let client = Client::new(&self.server, Duration::from(self.timeout))?;
        let names = Names::of(&client).await?;
        Ok(self.restoring.occupancy(&names))
    }

    /// Several indices cannot appear at once.
    fn publishes_atomically(&self) -> bool {
        false
    }

    /// Makes what documents need (scripts, pipelines and templates that the cluster has already stay
    /// as they are), then the indices without copies, refreshes and the pipelines and aliases that
    /// templates give them, then loads the documents past all ingest pipelines, counts them, and last
    /// sets what had to wait and the aliases, all of those in one step.
    ///
    /// Refused before anything is touched: a name that is taken, unless the caller agreed to
    /// replace and [`Conflict`] allows it.
    ///
    /// Options: `indices`, `state`, `rename`, `conflict`, `aliases`, as the setters of the same
    /// names.
    ///
    /// On an error, and when dropped, indices that it made are deleted again. What it replaced is
    /// gone then: restore beside it ([`rename`](Self::rename)) and swap the aliases, where that must
    /// not be.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        let how = self.restoring.with(options, KIND)?;
        if how.conflict == Conflict::Close {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "documents cannot be loaded into an index that is closed: conflict `close` is for snapshots",
            ));
        }
        let client = Arc::new(Client::new(&self.server, Duration::from(self.timeout))?);
        let plan = Plan::of(parts, &how).await?;
        let ours = plan.wanted.keys().map(|name| how.renamed(name)).collect();
        let taken = how.taken(&Names::of(&client).await?, &ours, options.replace)?;
        let mut unfinished = Unfinished::new(&client);
        let work = async {
            for (what, name) in taken {
                remove(&client, what, &name).await?;
            }
            create(&client, parts, &how, &mut unfinished).await?;
            self.load(&client, parts, &plan, &how).await?;
            plan.compare(&client, &how).await?;
            finish(&client, parts, &how).await?;
            parts.require_complete([CREATE, FINISH].into_iter().chain(plan.parts()))
        };
        match work.await {
            Ok(()) => unfinished.keep(),
            Err(error) => return Err(unfinished.give_up(error).await),
        }
        Ok(())
    }
}

/// What of a backup is restored.
struct Plan {
    /// Indices and streams by their old names, with the number of their documents.
    wanted: BTreeMap<String, Wanted>,
}

#[derive(Default)]
struct Wanted {
    documents: u64,
    parts: Vec<String>,
}

impl Plan {
    /// Reads the names of everything that the backup makes.
    async fn of(parts: &PartReader, how: &Restoring) -> Result<Self> {
        let mut wanted = BTreeMap::new();
        let mut lines = Lines::of(parts.open(CREATE).await?);
        while let Some(Request { what, name, .. }) = lines.request().await? {
            if matches!(what, What::Index | What::Stream) && how.indices.want(&name) {
                wanted.insert(name, Wanted::default());
            }
        }
        if let Some(missing) = how.indices.exact().find(|name| !wanted.contains_key(*name)) {
            let why = format!("the backup has no index and no data stream `{missing}`");
            return Err(Error::new(ErrorKind::NotFound, why));
        }
        if wanted.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                "the backup has none of the indices that are asked for",
            ));
        }
        let facts = parts.facts().get("indices").and_then(Value::as_object);
        for (index, fact) in facts.into_iter().flatten() {
            let stream = fact["stream"].as_str();
            let Some(wanted) = wanted.get_mut(stream.unwrap_or(index)) else {
                continue;
            };
            wanted.documents += fact["documents"].as_u64().unwrap_or_default();
            let shards = fact["shards"].as_u64().and_then(|n| u32::try_from(n).ok());
            wanted
                .parts
                .extend((0..shards.unwrap_or(1)).map(|shard| part(index, shard)));
        }
        let plan = Self { wanted };
        // Facts and parts are of one manifest: what one of them lacks is damage of ours.
        let known: BTreeSet<&str> = plan.parts().collect();
        let strange = parts.names().filter(|name| name.ends_with(DOCUMENTS));
        let whole = how
            .indices
            .is_all()
            .then(|| strange.into_iter().find(|name| !known.contains(name)));
        match whole.flatten() {
            Some(name) => Err(Error::new(
                ErrorKind::Corrupt,
                format!("part `{name}` belongs to no index of the backup"),
            )),
            None => Ok(plan),
        }
    }

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.wanted
            .values()
            .flat_map(|wanted| &wanted.parts)
            .map(String::as_str)
    }

    /// Whether every document is there.
    async fn compare(&self, client: &Client, how: &Restoring) -> Result<()> {
        for (name, wanted) in &self.wanted {
            let name = how.renamed(name);
            client
                .send(&Call::new(
                    Method::POST,
                    format!("/{}/_refresh", percent_encode(&name)),
                ))
                .await?;
            let found = count(client, &name).await?;
            if found != wanted.documents {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "`{name}` has {found} documents, and {} were backed up",
                        wanted.documents
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Everything that documents need.
async fn create(
    client: &Client,
    parts: &PartReader,
    how: &Restoring,
    unfinished: &mut Unfinished,
) -> Result<()> {
    let mut lines = Lines::of(parts.open(CREATE).await?);
    while let Some(mut request) = lines.request().await? {
        if request.what.is_state() {
            if how.state.want(&request.name) && !exists(client, &request).await? {
                put(client, &request).await?;
            }
            continue;
        }
        if !how.indices.want(&request.name) {
            continue;
        }
        request.name = how.renamed(&request.name);
        match request.what {
            What::Index | What::Stream => {
                unfinished.making(request.what, &request.name);
                if let Err(error) = make(client, &request).await {
                    // It said no, or nothing.
                    if error.kind() != ErrorKind::Unavailable {
                        unfinished.not_made();
                    }
                    return Err(error);
                }
                free(client, &request.name).await?;
            }
            What::Mapping => map(client, request).await?,
            _ => put(client, &request).await?,
        }
    }
    Ok(())
}

/// Gives a stream its mapping. Nobody can change the type that its template gave a field: that stays,
/// and documents have to fit.
async fn map(client: &Client, mut request: Request) -> Result<()> {
    match put(client, &request).await {
        Err(error) if error.to_string().contains("cannot be changed from type") => {}
        done => return done,
    }
    let path = format!("/{}/_mapping", percent_encode(&request.name));
    let said: Map<String, Value> = client.ask(&Call::get(path)).await?;
    let made = said.values().find_map(|said| said["mappings"].as_object());
    let mut mapping = made.cloned().unwrap_or_default();
    mapping.remove(TIMESTAMP);
    if let Value::Object(ours) = request.body {
        add_fields(&mut mapping, ours);
    }
    request.body = mapping.into();
    put(client, &request).await
}

async fn exists(client: &Client, request: &Request) -> Result<bool> {
    let path = request.what.path(&request.name);
    let found = client.find(&Call::get(path)).await?;
    if found.is_some() {
        tracing::info!(
            name = request.name,
            "{:?} is there already, and stays as it is",
            request.what
        );
    }
    Ok(found.is_some())
}

/// Makes what was not there a moment ago. An answer that is lost is asked for once more: then what
/// is there already is ours.
async fn make(client: &Client, request: &Request) -> Result<()> {
    match put(client, request).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => match put(client, request).await {
            Err(error) if error.to_string().contains("already_exists") => Ok(()),
            Err(error) if error.to_string().contains("already exists") => Ok(()),
            again => again,
        },
        made => made,
    }
}

/// Takes from an index what a template gave it and the backup does not: aliases. Refused where one
/// had it made so that documents would be lost.
async fn free(client: &Client, name: &str) -> Result<()> {
    let path = format!("/{}?flat_settings=true", percent_encode(name));
    let said: Map<String, Value> = client.ask(&Call::get(path)).await?;
    let mut actions = Vec::new();
    for (index, said) in &said {
        if !keeps_source(said) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "a template of the cluster keeps `{name}` from having the whole `_source` of its documents: change it, \
                     or restore under another name (`rename`)"
                ),
            ));
        }
        let aliases = entries(&said["aliases"]);
        let remove =
            |alias| json!({"remove": {"index": index, "alias": alias, "must_exist": false}});
        actions.extend(aliases.map(|(alias, _)| remove(alias)));
    }
    if actions.is_empty() {
        return Ok(());
    }
    let body = json!({"actions": actions});
    put(client, &Request::new(What::Aliases, "", body)).await
}

/// Sent once where it makes an index: a second one would find the first.
async fn put(client: &Client, request: &Request) -> Result<()> {
    let mut path = request.what.path(&request.name);
    if request.what == What::Index {
        path.push_str("?wait_for_active_shards=1");
    }
    let call = Call::new(request.what.method(), path).text(request.text());
    let call = match request.what {
        What::Index | What::Stream => call.once(),
        _ => call,
    };
    let answer: Value = client.ask(&call).await?;
    match answer["acknowledged"] == true && answer["shards_acknowledged"] != false {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{}: the cluster did not do it in time: look at its health",
                client.named(&call)
            ),
        )),
    }
}

/// What had to wait.
pub(crate) async fn finish(client: &Client, parts: &PartReader, how: &Restoring) -> Result<()> {
    let mut lines = Lines::of(parts.open(FINISH).await?);
    while let Some(mut request) = lines.request().await? {
        if request.what == What::Aliases {
            request.body = how.aliases(&request.body);
            if request.body["actions"]
                .as_array()
                .is_some_and(Vec::is_empty)
            {
                continue;
            }
        } else if how.indices.want(&request.name) {
            request.name = how.renamed(&request.name);
        } else {
            continue;
        }
        put(client, &request).await?;
    }
    Ok(())
}

impl OpenSearchCluster {
    async fn load(
        &self,
        client: &Client,
        parts: &PartReader,
        plan: &Plan,
        how: &Restoring,
    ) -> Result<()> {
        let loads = plan.parts().map(|name| async move {
            let rename = how.rename.clone();
            let renamed = move |name: &str| rename.as_ref().map(|rename| rename.apply(name));
            let loaded = bulk::load(client, parts.open(name).await?, renamed).await;
            loaded.map_err(|e| e.context(format!("restore part `{name}`")))
        });
        let loads: Vec<_> = loads.collect();
        stream::iter(loads)
            .buffer_unordered(self.parallel)
            .try_for_each(async |_| Ok(()))
            .await
    }
}
