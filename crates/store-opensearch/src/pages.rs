//! The documents of one shard at one moment, as the lines that `_bulk` takes.
//!
//! A page is asked for by the last sort value of the one before. `_doc` is the order in which a shard
//! has its documents: the cheapest there is, on every version (`_shard_doc` exists from 3.3 on), and
//! without ties as long as a slice is one shard. That it is: "slice" with as many slices as there
//! are shards gives each of them one (`SliceBuilder`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::{ByteStream, Error, ErrorKind, Result};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, TOO_LONG};
use crate::moment::{KEEP_ALIVE, lost, partial, search_call};

/// How many bytes a page should have.
const PAGE: usize = 2 << 20;
/// How many it may have, where documents differ in size. A single document may have 100 MB
/// (`http.max_content_length`).
const LONGEST: usize = 16 << 20;
const LONGEST_DOCUMENT: usize = 128 << 20;
/// `index.max_result_window`, as every index has it that does not say otherwise.
const MOST: usize = 10_000;

/// One shard of an index.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) client: Arc<Client>,
    pub(crate) index: String,
    pub(crate) point: String,
    pub(crate) number: u32,
    pub(crate) of: u32,
    /// The beginning of each line that says where its document goes.
    pub(crate) action: String,
    /// Counts documents.
    pub(crate) read: Arc<AtomicU64>,
}

#[derive(Deserialize)]
struct Page<'a> {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    #[serde(borrow)]
    hits: Hits<'a>,
}

#[derive(Deserialize)]
struct Shards {
    failed: u64,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow, rename = "_id")]
    id: &'a RawValue,
    #[serde(borrow, rename = "_routing")]
    routing: Option<&'a RawValue>,
    #[serde(borrow, rename = "_source")]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    sort: &'a RawValue,
}

/// The action of a line, up to the id.
pub(crate) fn action(stream: Option<&str>, index: &str) -> String {
    // A data stream takes new documents only.
    let (verb, name) = match stream {
        Some(stream) => ("create", stream),
        None => ("index", index),
    };
    let name = serde_json::Value::from(name);
    format!("{{\"{verb}\":{{\"_index\":{name},\"_id\":")
}

impl Shard {
    pub(crate) fn bytes(self) -> ByteStream {
        let state = (self, String::new(), 100);
        ByteStream::new(futures::stream::try_unfold(
            state,
            |(shard, after, size)| async move {
                let page = shard.page(&after, size).await?;
                Ok(page.map(|(bytes, after, size)| (bytes, (shard, after, size))))
            },
        ))
    }

    /// The next page of about `size` documents behind the sort value `after`, the last value of
    /// it, and how many to ask for next.
    async fn page(&self, after: &str, mut size: usize) -> Result<Option<(Bytes, String, usize)>> {
        let answer = loop {
            let call = search_call(&self.search(after, size));
            let longest = if size == 1 { LONGEST_DOCUMENT } else { LONGEST };
            match self.client.try_send(&call.clone().longest(longest)).await {
                Ok(answer) => break answer,
                Err(failure) if failure.status == TOO_LONG && size > 1 => size = (size / 4).max(1),
                Err(failure) => {
                    let error = failure.into_error(&self.client.named(&call));
                    return Err(lost(&self.index, error));
                }
            }
        };
        let page: Page<'_> = serde_json::from_slice(&answer).map_err(|e| {
            let what = format!("read `{}`: the answer is none of OpenSearch", self.index);
            Error::new(ErrorKind::Source, what).with_source(e)
        })?;
        if page.timed_out || page.shards.failed > 0 {
            return Err(partial(&self.index));
        }
        let hits = page.hits.hits;
        let Some(last) = hits.last() else {
            return Ok(None);
        };
        let mut lines = BytesMut::with_capacity(answer.len());
        for hit in &hits {
            self.put(hit, &mut lines)?;
        }
        self.read.fetch_add(hits.len() as u64, Ordering::SeqCst);
        let next = hits.len() * PAGE / answer.len().max(1);
        // Not too fast: the next documents may be larger.
        let next = next.clamp(1, MOST.min(size.saturating_mul(8)));
        Ok(Some((lines.freeze(), last.sort.get().to_owned(), next)))
    }

    fn search(&self, after: &str, size: usize) -> String {
        let slice = match self.of {
            1 => String::new(),
            of => format!(r#""slice":{{"id":{},"max":{of}}},"#, self.number),
        };
        let after = match after {
            "" => String::new(),
            after => format!(r#""search_after":{after},"#),
        };
        format!(
            r#"{{"size":{size},{slice}{after}"sort":["_doc"],"track_total_hits":false,"pit":{{"id":"{}","keep_alive":"{KEEP_ALIVE}"}}}}"#,
            self.point
        )
    }

    fn put(&self, hit: &Hit<'_>, lines: &mut BytesMut) -> Result<()> {
        let source = hit.source.ok_or_else(|| {
            let id = hit.id.get();
            Error::new(
                ErrorKind::Source,
                format!("document {id} of `{}` has no `_source`", self.index),
            )
        })?;
        lines.put_slice(self.action.as_bytes());
        lines.put_slice(hit.id.get().as_bytes());
        if let Some(routing) = hit.routing {
            lines.put_slice(b",\"routing\":");
            lines.put_slice(routing.get().as_bytes());
        }
        lines.put_slice(b"}}\n");
        one_line(source.get().as_bytes(), lines);
        lines.put_u8(b'\n');
        Ok(())
    }
}

/// JSON without the ends of lines that may stand between its words. Within a text there are none:
/// they are escaped there (RFC 8259, section 7).
fn one_line(json: &[u8], lines: &mut BytesMut) {
    let begin = lines.len();
    lines.put_slice(json);
    let mut at = begin;
    while let Some(next) = memchr::memchr2(b'\n', b'\r', &lines[at..]) {
        lines[at + next] = b' ';
        at += next + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_one_line() {
        let mut lines = BytesMut::from("before\n");
        one_line(b"{\r\n \"a\":\n 1}\n", &mut lines);
        assert_eq!(&lines[..], b"before\n{   \"a\":  1} ");
    }

    #[test]
    fn an_action_names_its_place() {
        assert_eq!(action(None, "a"), r#"{"index":{"_index":"a","_id":"#);
        assert_eq!(
            action(Some("s"), ".ds-s-1"),
            r#"{"create":{"_index":"s","_id":"#
        );
    }
}
