//! How many documents there are.

use backup_core::settings::percent_encode;
use backup_core::{Error, ErrorKind, Result};
use serde_json::Value;

use crate::client::{Call, Client};

/// The documents of an index or a stream, whatever its searches leave out.
///
/// A count of the server's is a search too, and goes through `index.search.default_pipeline`.
/// Servers from before there were such pipelines do not know how to go past them.
pub(crate) async fn count(client: &Client, name: &str) -> Result<u64> {
    let path = |rest| Call::get(format!("/{}/{rest}", percent_encode(name)));
    let search = path(
        "_search?size=0&track_total_hits=true&search_pipeline=_none&allow_partial_search_results=false",
    );
    let (said, count) = match client.ask::<Value>(&search).await {
        Err(error) if error.to_string().contains("unrecognized parameter") => {
            let said: Value = client.ask(&path("_count")).await?;
            let count = said["count"].as_u64();
            (said, count)
        }
        said => {
            let said = said?;
            let count = said["hits"]["total"]["value"].as_u64();
            (said, count)
        }
    };
    match count {
        Some(count) if said["_shards"]["failed"] == 0 && said["timed_out"] != true => Ok(count),
        _ => Err(Error::new(
            ErrorKind::Other,
            format!("not every shard of `{name}` can be searched"),
        )),
    }
}
