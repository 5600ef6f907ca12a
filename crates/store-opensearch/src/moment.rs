//! Points in time: what is read does not change while it is read.
//!
//! "Point in Time API" of OpenSearch's documentation; since 2.4. One holds the segments of its
//! shards, for as long as somebody asks it something within its `keep_alive`. It is lost when a node
//! ends, and a search then says `search_context_missing_exception`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::settings::percent_encode;
use backup_core::{Error, ErrorKind, Result, undo};
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Call, Client};

/// How long the server keeps one of which it hears nothing more: what a backup that is killed
/// leaves behind.
pub(crate) const KEEP_ALIVE: &str = "5m";
/// How often those that wait for their turn are asked something.
const ASKED: Duration = Duration::from_secs(60);
/// How many are opened or asked at once.
const AT_ONCE: usize = 8;

/// Points in time, by index. They are closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Moment {
    client: Arc<Client>,
    points: BTreeMap<String, Point>,
}

#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) id: String,
    /// How many documents it has.
    pub(crate) documents: u64,
}

#[derive(Deserialize)]
struct Opened {
    pit_id: String,
    #[serde(rename = "_shards")]
    shards: Shards,
}

#[derive(Deserialize)]
struct Shards {
    total: u64,
    successful: u64,
}

impl Moment {
    /// One point for each index, as near to one another as the server answers.
    pub(crate) async fn open(client: &Arc<Client>, indices: &[String]) -> Result<Self> {
        let mut moment = Self {
            client: Arc::clone(client),
            points: BTreeMap::new(),
        };
        let mut opened = stream::iter(indices.to_vec())
            .map(|index| async move {
                let id = open(client, &index).await;
                (index, id)
            })
            .buffer_unordered(AT_ONCE);
        let mut failed = None;
        // All answers, also after one that failed: those have to be closed too.
        while let Some((index, id)) = opened.next().await {
            match id {
                Ok(id) => {
                    let point = Point { id, documents: 0 };
                    moment.points.insert(index, point);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        drop(opened);
        if let Some(error) = failed {
            return Err(error);
        }
        let counts: Vec<(String, u64)> = moment.ask(true).try_collect().await?;
        for (index, documents) in counts {
            if let Some(point) = moment.points.get_mut(&index) {
                point.documents = documents;
            }
        }
        Ok(moment)
    }

    pub(crate) fn point(&self, index: &str) -> Option<&Point> {
        self.points.get(index)
    }

    /// Keeps all of them open, until one is lost.
    pub(crate) async fn keep(&self) -> Error {
        loop {
            tokio::time::sleep(ASKED).await;
            if let Err(error) = self.ask(false).try_for_each(async |_| Ok(())).await {
                return error;
            }
        }
    }

    /// Asks each for its number of documents, if that is wanted; it is kept open either way.
    fn ask(&self, count: bool) -> impl stream::Stream<Item = Result<(String, u64)>> + '_ {
        stream::iter(self.points.clone())
            .map(move |(index, point)| async move {
                let search = json!({
                    "size": 0, "track_total_hits": count,
                    "pit": {"id": point.id, "keep_alive": KEEP_ALIVE},
                });
                let asked = self.client.ask(&search_call(&search.to_string())).await;
                let found: Value = asked.map_err(|e| lost(&index, e))?;
                if found["_shards"]["failed"] != 0 || found["timed_out"] != false {
                    return Err(partial(&index));
                }
                let documents = found["hits"]["total"]["value"].as_u64();
                Ok((index, documents.unwrap_or_default()))
            })
            .buffer_unordered(AT_ONCE)
    }

    pub(crate) async fn close(mut self) -> Result<()> {
        let points = std::mem::take(&mut self.points);
        close(&self.client, points).await
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        let (client, points) = (Arc::clone(&self.client), std::mem::take(&mut self.points));
        if points.is_empty() {
            return;
        }
        // Without a runtime nobody can: the server closes them by itself.
        undo(async move {
            if let Err(error) = close(&client, points).await {
                tracing::debug!("points in time stay open for {KEEP_ALIVE}: {error}");
            }
        });
    }
}

async fn open(client: &Client, index: &str) -> Result<String> {
    let path = format!(
        "/{}/_search/point_in_time?keep_alive={KEEP_ALIVE}&allow_partial_pit_creation=false",
        percent_encode(index)
    );
    let opened: Opened = client
        .ask(&Call::new(Method::POST, path))
        .await
        .map_err(|error| {
            // The message of `SearchService`: the setting has no other name.
            match error.to_string().contains("too many Point In Time") {
                true => error.context(
                    "the cluster has too few points in time for all shards at once: raise its setting \
                     search.max_open_pit_context, or set `one_moment = false`",
                ),
                false => error.context(format!("open a point in time of `{index}`")),
            }
        })?;
    match opened.shards.total == opened.shards.successful {
        true => Ok(opened.pit_id),
        false => Err(partial(index)),
    }
}

async fn close(client: &Client, points: BTreeMap<String, Point>) -> Result<()> {
    let ids: Vec<String> = points.into_values().map(|point| point.id).collect();
    for ids in ids.chunks(100) {
        let call = Call::new(Method::DELETE, "/_search/point_in_time");
        // One that is gone already is as good.
        client.find(&call.json(&json!({"pit_id": ids}))).await?;
    }
    Ok(())
}

/// A search of which half an answer is none, past the `index.search.default_pipeline` that an index
/// may have: it would leave documents out, and out of their number too.
pub(crate) fn search_call(body: &str) -> Call {
    let path = "/_search?allow_partial_search_results=false&search_pipeline=_none";
    Call::new(Method::POST, path).text(body.to_owned())
}

/// Why an index could not be read, where its point in time may be the reason.
pub(crate) fn lost(index: &str, error: Error) -> Error {
    match error.to_string().contains("search_context_missing") {
        true => Error::new(
            ErrorKind::Source,
            format!("the point in time of `{index}` was lost (a node that ended, or a pause of more than {KEEP_ALIVE}): run the backup again"),
        )
        .with_source(error),
        false => error.context(format!("read `{index}`")),
    }
}

pub(crate) fn partial(index: &str) -> Error {
    Error::new(
        ErrorKind::Source,
        format!("not every shard of `{index}` answers: look at the health of the cluster"),
    )
}
