//! Documents on their way into a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::{ByteStream, Error, ErrorKind, Result};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Call, Client, TOO_LONG};
use crate::failure::{Failure, Reason};
use crate::requests::Lines;

/// How many bytes are sent at once: "5–15 MB" are advised; each takes memory here and there.
const BATCH: usize = 4 << 20;
/// How many are under way for one part.
const AT_ONCE: usize = 2;
/// How often documents that the server has no room for just now are sent again: for some two
/// minutes.
const TRIES: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Answer {
    errors: bool,
    #[serde(default)]
    items: Vec<BTreeMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    status: u16,
    error: Option<Reason>,
}

/// Sends the documents of a part, in lines as `_bulk` takes them, and tells how many there were. A
/// document goes where its line says, or into what `rename` makes of that.
pub(crate) async fn load(
    client: &Client,
    bytes: ByteStream,
    rename: impl Fn(&str) -> Option<String> + Clone + Send + 'static,
) -> Result<u64> {
    let batches = futures::stream::try_unfold(Lines::of(bytes), move |mut lines| {
        let rename = rename.clone();
        async move {
            let batch = batch(&mut lines, rename).await?;
            Ok((batch.documents > 0).then_some((batch, lines)))
        }
    });
    batches
        .map(|batch: Result<Batch>| async {
            let batch = batch?;
            let documents = batch.documents;
            send(client, batch.lines.freeze()).await?;
            Ok(documents)
        })
        .buffered(AT_ONCE)
        .try_fold(0, async |all, documents| Ok(all + documents))
        .await
}

#[derive(Default)]
struct Batch {
    lines: BytesMut,
    documents: u64,
}

async fn batch(lines: &mut Lines, rename: impl Fn(&str) -> Option<String>) -> Result<Batch> {
    let mut batch = Batch::default();
    while batch.lines.len() < BATCH {
        let Some(action) = lines.next().await? else {
            break;
        };
        let Some(source) = lines.next().await? else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "a line that says where a document goes, and no document",
            ));
        };
        put_action(&action, &rename, &mut batch.lines)?;
        batch.lines.put_slice(&source);
        batch.lines.put_u8(b'\n');
        batch.documents += 1;
    }
    Ok(batch)
}

#[derive(Deserialize)]
struct Action<'a> {
    #[serde(borrow)]
    index: Option<Place<'a>>,
    #[serde(borrow)]
    create: Option<Place<'a>>,
}

#[derive(Deserialize)]
struct Place<'a> {
    _index: String,
    #[serde(borrow)]
    _id: &'a RawValue,
    #[serde(borrow)]
    routing: Option<&'a RawValue>,
}

fn put_action(
    line: &[u8],
    rename: &impl Fn(&str) -> Option<String>,
    lines: &mut BytesMut,
) -> Result<()> {
    let wrong = || {
        Error::new(
            ErrorKind::Corrupt,
            "a line does not say where its document goes",
        )
    };
    let action: Action<'_> = serde_json::from_slice(line).map_err(|e| wrong().with_source(e))?;
    let (verb, place) = match action {
        Action {
            index: Some(place),
            create: None,
        } => ("index", place),
        Action {
            index: None,
            create: Some(place),
        } => ("create", place),
        _ => return Err(wrong()),
    };
    match rename(&place._index) {
        None => lines.put_slice(line),
        Some(name) => {
            let name = serde_json::Value::from(name);
            let head = format!("{{\"{verb}\":{{\"_index\":{name},\"_id\":{}", place._id);
            lines.put_slice(head.as_bytes());
            if let Some(routing) = place.routing {
                lines.put_slice(format!(",\"routing\":{routing}").as_bytes());
            }
            lines.put_slice(b"}}");
        }
    }
    lines.put_u8(b'\n');
    Ok(())
}

/// Sends until the server has every document, or will not have one.
async fn send(client: &Client, lines: Bytes) -> Result<()> {
    let mut rest = vec![lines];
    let (mut tries, mut pause) = (TRIES, FIRST_PAUSE);
    // Whether some of it may be there already.
    let mut again = false;
    while let Some(lines) = rest.pop() {
        // Pipelines of the index did their work when the document came first.
        let path = "/_bulk?pipeline=_none&filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";
        let call = Call::new(Method::POST, path).lines(lines.clone()).once();
        let answer = match client.try_send(&call).await {
            Ok(answer) => answer,
            Err(failure) if failure.status == TOO_LONG => {
                rest.extend(
                    halves(&lines).ok_or_else(|| failure.into_error(&client.named(&call)))?,
                );
                continue;
            }
            Err(failure) if tries > 0 && (failure.is_transient() || failure.broken) => {
                again |= failure.status != 429;
                tries -= 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                rest.push(lines);
                continue;
            }
            Err(failure) => return Err(failure.into_error(&client.named(&call))),
        };
        let answer: Answer = serde_json::from_slice(&answer).map_err(|e| {
            Error::new(
                ErrorKind::Other,
                "the answer to `_bulk` is none of OpenSearch",
            )
            .with_source(e)
        })?;
        if !answer.errors {
            continue;
        }
        let refused = refused(&lines, answer, again)?;
        if refused.is_empty() {
            continue;
        }
        if tries == 0 {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the cluster has no room for documents in its queues, and had none for minutes",
            ));
        }
        tries -= 1;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        rest.push(refused);
    }
    Ok(())
}

/// The documents that the server has no room for just now. One that it will never take is an error.
fn refused(lines: &Bytes, answer: Answer, again: bool) -> Result<Bytes> {
    let mut refused = BytesMut::new();
    let mut pairs = pairs(lines);
    for item in answer.items.into_iter().flat_map(BTreeMap::into_values) {
        let pair = pairs.next().ok_or_else(uneven)?;
        let Some(error) = item.error else {
            continue;
        };
        let failure = Failure {
            status: item.status,
            name: error.name,
            reason: error.reason.unwrap_or_default(),
            broken: false,
        };
        match &*failure.name {
            _ if failure.is_transient() => refused.put_slice(pair),
            // Sent twice, because the first answer did not come: it is there.
            "version_conflict_engine_exception" if again => {}
            _ => {
                let line = pair.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let what = format!("document {}", String::from_utf8_lossy(line));
                return Err(failure.into_error(&what));
            }
        }
    }
    match pairs.next() {
        None => Ok(refused.freeze()),
        Some(_) => Err(uneven()),
    }
}

fn uneven() -> Error {
    Error::new(
        ErrorKind::Other,
        "the answer to `_bulk` does not speak of each document",
    )
}

/// Each document with the line before it.
fn pairs(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let first = memchr::memchr(b'\n', rest)? + 1;
        let second = first + memchr::memchr(b'\n', &rest[first..])? + 1;
        let (pair, behind) = rest.split_at(second);
        rest = behind;
        Some(pair)
    })
}

/// The same documents in two; `None` if there is only one.
fn halves(lines: &Bytes) -> Option<[Bytes; 2]> {
    let mut at = 0;
    for pair in pairs(lines) {
        // The last one may be larger than all before it.
        if at > 0 && (at >= lines.len() / 2 || at + pair.len() == lines.len()) {
            break;
        }
        at += pair.len();
    }
    (at < lines.len()).then(|| [lines.slice(at..), lines.slice(..at)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"{\"index\":{\"_index\":\"a\",\"_id\":\"1\",\"routing\":\"r\"}}\n{\"x\":1}\n{\"create\":{\"_index\":\"s\",\"_id\":\"2\"}}\n{}\n";

    fn answer(items: &str) -> Answer {
        serde_json::from_str(&format!("{{\"errors\":true,\"items\":{items}}}")).unwrap()
    }

    #[tokio::test]
    async fn documents_go_where_they_are_said_to_go() {
        for (rename, expected) in [
            (None, LINES.to_vec()),
            (
                Some("new-"),
                String::from_utf8(LINES.to_vec())
                    .unwrap()
                    .replace("_index\":\"", "_index\":\"new-")
                    .into(),
            ),
        ] {
            let mut lines = Lines::of(ByteStream::from_bytes(LINES));
            let renamed = |name: &str| rename.map(|begin| format!("{begin}{name}"));
            let batch = batch(&mut lines, renamed).await.unwrap();
            assert_eq!((batch.documents, batch.lines.to_vec()), (2, expected));
        }
        for bad in [
            &b"{\"delete\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{}\n"[..],
            b"{\"index\":{\"_index\":\"a\",\"_id\":\"1\"}}\n",
        ] {
            let mut lines = Lines::of(ByteStream::from_bytes(bad));
            assert!(batch(&mut lines, |_| None).await.is_err());
        }
    }

    #[test]
    fn only_what_was_refused_for_now_is_sent_again() {
        let lines = Bytes::from_static(LINES);
        let busy = r#"[{"index":{"status":201}},{"create":{"status":429,"error":{"type":"rejected_execution_exception","reason":"full"}}}]"#;
        let rest = refused(&lines, answer(busy), false).unwrap();
        assert_eq!(rest, pairs(LINES).nth(1).unwrap());
        let twice = r#"[{"index":{"status":200}},{"create":{"status":409,"error":{"type":"version_conflict_engine_exception"}}}]"#;
        assert!(refused(&lines, answer(twice), true).unwrap().is_empty());
        for (bad, line) in [
            (twice, "version_conflict_engine_exception"),
            (
                r#"[{"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"no"}}},{"create":{"status":201}}]"#,
                "\"_id\":\"1\"",
            ),
            (
                r#"[{"index":{"status":429,"error":{"type":"cluster_block_exception","reason":"disk usage exceeded flood-stage watermark"}}},{}]"#,
                "disk is full",
            ),
            (r#"[{"index":{"status":201}}]"#, "each document"),
        ] {
            let error = refused(&lines, answer(bad), false).unwrap_err();
            assert!(error.to_string().contains(line), "{error}");
        }
    }

    #[test]
    fn a_batch_is_halved_between_documents() {
        let (small, large) = ("{}\n{\"x\":1}\n", "{}\n{\"x\":\"a long one\"}\n");
        for lines in [[small, large], [large, small]] {
            let lines = Bytes::from(lines.concat());
            let [behind, before] = halves(&lines).unwrap();
            assert_eq!([before.to_vec(), behind.to_vec()].concat(), lines);
            assert_eq!((pairs(&before).count(), pairs(&behind).count()), (1, 1));
            assert!(halves(&before).is_none());
        }
        let [behind, before] = halves(&Bytes::from(small.repeat(4))).unwrap();
        assert_eq!((pairs(&before).count(), pairs(&behind).count()), (2, 2));
    }
}
