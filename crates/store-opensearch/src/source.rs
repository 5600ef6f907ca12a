use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::{
    ByteStream, Error, ErrorKind, Facts, PartWriter, Request, RestoreStep, Result, Source,
    async_trait,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value};

use crate::client::{Call, Client};
use crate::moment::Moment;
use crate::names::{self, DOCUMENTS};
use crate::pages::{self, Shard};
use crate::schema::{self, Index, Names, Shared};
use crate::{CREATE, FINISH, KIND, OpenSearch};

#[async_trait]
impl Source for OpenSearch {
    fn kind(&self) -> &str {
        KIND
    }

    fn parts_at_once(&self) -> usize {
        self.parallel
    }

    /// Facts: `server` (`opensearch`), `server_version`, `system_id` (the cluster's UUID), `cluster`
    /// (its name), `moment` (`one`, or `each` index its own), `indices` (of each `documents`,
    /// `shards` and, where it belongs to one, `stream`), `documents`, `left_out` (how many indices
    /// there are besides).
    ///
    /// An index that is closed, lacks a shard or does not keep the `_source` of its documents, a
    /// point in time that is lost, and a number of documents that is not that of the point in time,
    /// are errors. Dropped: the points in time are closed.
    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        let client = Arc::new(Client::new(&self.server, Duration::from(self.timeout))?);
        let about: Value = client.ask(&Call::get("/")).await?;
        let all = Names::of(&client).await?;
        let chosen = all.choose(&self.indices)?;
        let learned = Shared::default();
        let create = || {
            out.write(
                CREATE,
                schema::create(&client, &chosen, &self.state, &learned),
            )
        };
        let known = || schema::locked(&learned).indices.clone();

        let mut counted = Vec::new();
        if self.one_moment {
            let names: Vec<String> = chosen.iter().map(|index| index.name.clone()).collect();
            let moment = Moment::open(&client, &names).await?;
            let work = async {
                create().await?;
                self.write(&client, &moment, &known(), out).await
            };
            counted = during(&moment, work).await?;
            moment.close().await?;
        } else {
            create().await?;
            for index in known() {
                let moment = Moment::open(&client, std::slice::from_ref(&index.name)).await?;
                let work = self.write(&client, &moment, std::slice::from_ref(&index), out);
                counted.extend(during(&moment, work).await?);
                moment.close().await?;
            }
        }
        let finish = schema::locked(&learned).finish();
        out.write(FINISH, ByteStream::from_bytes(finish)).await?;

        let moment = if self.one_moment { "one" } else { "each" };
        let facts = counts(&counted)
            .with("moment", moment)
            .with("left_out", all.indices.len() - chosen.len());
        Ok(identified(facts, &about))
    }

    /// `$TARGET` is the URL of a cluster without these indices.
    fn restore_steps(&self) -> Vec<RestoreStep> {
        let step = |part: &str, what: &str, script: &str| {
            RestoreStep::new(part, what, ["sh", "-c", script, "sh", "$TARGET"])
        };
        vec![
            step(
                CREATE,
                "what has to be there before documents: scripts, pipelines, templates and empty indices, a request on each \
                 line. TARGET is a cluster as https://HOST:9200. What else curl needs to know, such as `user` and \
                 `cacert`, goes into ~/.curlrc. It ends at the first index that is there already. An alias that a template gives \
                 to an index stays",
                REQUESTS,
            )
            .needs(["curl"]),
            step(
                &format!("*{DOCUMENTS}"),
                "the documents of one shard, as `_bulk` takes them, 1000 at once; where they are large, write a smaller \
                 even number behind `split -l`",
                BULK,
            )
            .needs(["awk", "curl", "cut", "split"]),
            step(
                FINISH,
                "settings that had to wait, and the aliases, all in one step",
                REQUESTS,
            )
            .needs(["curl"]),
        ]
    }
}

/// Sends each line of standard input. `printf` is part of the shell: no body is too long for it.
pub(crate) const REQUESTS: &str = r#"while read -r method path body; do printf %s "$body" | curl -sS --fail-with-body -X "$method" -H "Content-Type: application/json" --data-binary @- "$1$path" || exit; echo; done"#;

/// An answer with an item that failed is a 200 as well. What it says is shown, and not all of it: there
/// may be a reason for each document.
const BULK: &str = r#"URL="$1/_bulk?pipeline=_none&filter_path=errors,items.*.error" split -l 2000 --filter "curl -sS --fail-with-body -H \"Content-Type: application/x-ndjson\" --data-binary @- \"\$URL\" | cut -c 1-1000 | awk \"{ print } /errors.:false/ { ok = 1 } END { exit !ok }\"""#;

impl OpenSearch {
    /// The documents of `indices`, and how many each has.
    async fn write(
        &self,
        client: &Arc<Client>,
        moment: &Moment,
        indices: &[Index],
        out: &PartWriter,
    ) -> Result<Vec<(Index, u64)>> {
        let mut shards = Vec::new();
        let mut counters = Vec::new();
        for index in indices {
            let Some(point) = moment.point(&index.name) else {
                continue;
            };
            let read = Arc::new(AtomicU64::new(0));
            shards.extend((0..index.shards).map(|number| Shard {
                client: Arc::clone(client),
                index: index.name.clone(),
                point: point.id.clone(),
                number,
                of: index.shards,
                action: pages::action(index.stream.as_deref(), &index.name),
                read: Arc::clone(&read),
            }));
            counters.push((index, point.documents, read));
        }
        stream::iter(shards)
            .map(|shard| async move {
                let part = names::part(&shard.index, shard.number);
                out.write(&part, shard.bytes()).await
            })
            .buffer_unordered(self.parallel)
            .try_for_each(async |()| Ok(()))
            .await?;
        let mut counted = Vec::new();
        for (index, documents, read) in counters {
            let read = read.load(Ordering::SeqCst);
            if read != documents {
                let name = &index.name;
                return Err(Error::new(
                    ErrorKind::Source,
                    format!(
                        "{read} documents of `{name}` were read, and its point in time has {documents}"
                    ),
                ));
            }
            counted.push((index.clone(), documents));
        }
        Ok(counted)
    }
}

/// Does `work` as long as the points in time are there.
async fn during<T>(moment: &Moment, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        lost = moment.keep() => Err(lost),
    }
}

fn counts(counted: &[(Index, u64)]) -> Facts {
    let each = counted.iter().map(|(index, documents)| {
        let mut fact = Map::new();
        fact.insert("documents".to_owned(), (*documents).into());
        fact.insert("shards".to_owned(), index.shards.into());
        if let Some(stream) = &index.stream {
            fact.insert("stream".to_owned(), stream.as_str().into());
        }
        (index.name.clone(), Value::Object(fact))
    });
    let all: u64 = counted.iter().map(|(_, documents)| documents).sum();
    Facts::new()
        .with("indices", each.collect::<Map<_, _>>())
        .with("documents", all)
}

/// Adds which cluster it was.
pub(crate) fn identified(facts: Facts, about: &Value) -> Facts {
    let version = &about["version"];
    facts
        .with(
            "server",
            version["distribution"].as_str().unwrap_or("opensearch"),
        )
        .with("server_version", version["number"].clone())
        .with("system_id", about["cluster_uuid"].clone())
        .with("cluster", about["cluster_name"].clone())
}
