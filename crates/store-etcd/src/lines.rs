//! Changes as they are kept: a line for each revision, which is a transaction as `POST /v3/kv/txn` of
//! etcd takes it, so that `curl` can bring it back. What etcd ignores there makes it exact: in which
//! revision a key was made, how often it was written since, and its lease.

use backup_core::{Error, ErrorKind, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};

use crate::rpc::{Event, KeyValue};

pub(crate) const BEGIN: &[u8] = b"{\"success\":[";
pub(crate) const END: &[u8] = b"]}\n";

/// The part with the changes of these revisions, both included.
pub(crate) fn part(first: i64, last: i64) -> String {
    format!("changes-{first}-{last}.jsonl")
}

/// The revisions of a part with changes.
pub(crate) fn revisions(part: &str) -> Option<(i64, i64)> {
    let numbers = part.strip_prefix("changes-")?.strip_suffix(".jsonl")?;
    let (first, last) = numbers.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[derive(Serialize, Deserialize)]
struct Transaction {
    success: Vec<Operation>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Operation {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_put: Option<Put>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_delete_range: Option<Delete>,
    #[serde(skip_serializing_if = "is_zero")]
    created: i64,
    #[serde(skip_serializing_if = "is_zero")]
    version: i64,
    #[serde(skip_serializing_if = "is_zero")]
    lease: i64,
}

#[derive(Serialize, Deserialize)]
struct Put {
    key: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
struct Delete {
    key: String,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Appends one change of a revision.
pub(crate) fn write(event: &Event, text: &mut Vec<u8>) -> serde_json::Result<()> {
    let kv = event.kv.clone().unwrap_or_default();
    let key = BASE64_STANDARD.encode(&kv.key);
    let operation = match event.kind {
        0 => Operation {
            request_put: Some(Put {
                key,
                value: BASE64_STANDARD.encode(&kv.value),
            }),
            created: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            ..Operation::default()
        },
        _ => Operation {
            request_delete_range: Some(Delete { key }),
            ..Operation::default()
        },
    };
    serde_json::to_writer(text, &operation)
}

/// A row of the bucket `key`: one change of one key, as etcd keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) at: At,
    pub(crate) is_deletion: bool,
    pub(crate) content: KeyValue,
}

/// When a row was written: the transaction, and where in it. Ordered as etcd orders rows.
pub(crate) type At = [u8; 17];

/// `main_sub`, big-endian (`etcd/server/storage/mvcc/revision.go`).
fn at(main: i64, sub: usize) -> At {
    let mut at = [b'_'; 17];
    at[..8].copy_from_slice(&main.to_be_bytes());
    at[9..].copy_from_slice(&(sub as u64).to_be_bytes());
    at
}

/// The revision of a row.
pub(crate) fn main(at: &At) -> i64 {
    let mut main = [0; 8];
    main.copy_from_slice(&at[..8]);
    i64::from_be_bytes(main)
}

/// The rows in the lines of one part, whose bytes come in order. Holds one line at a time.
pub(crate) struct Lines {
    buffer: BytesMut,
    next: i64,
    last: i64,
}

impl Lines {
    /// Of the part with the revisions from `first` to `last`.
    pub(crate) fn new((first, last): (i64, i64)) -> Self {
        Self {
            buffer: BytesMut::new(),
            next: first,
            last,
        }
    }

    /// The rows of the lines that are complete now.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Row>> {
        let mut begin = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        let mut rows = Vec::new();
        while let Some(end) = self.buffer[begin..].iter().position(|&byte| byte == b'\n') {
            let line = self.buffer.split_to(begin + end);
            self.buffer.advance(1);
            begin = 0;
            let read = self.read(&line);
            rows.extend(read.ok_or_else(|| self.corrupt("cannot be read"))?);
            self.next += 1;
        }
        Ok(rows)
    }

    /// All bytes were fed.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.buffer.is_empty() && self.next == self.last + 1 {
            true => Ok(()),
            false => Err(self.corrupt("is missing")),
        }
    }

    fn read(&self, line: &[u8]) -> Option<Vec<Row>> {
        let transaction: Transaction = serde_json::from_slice(line).ok()?;
        let operations = transaction.success.into_iter().enumerate();
        let rows = operations.map(|(sub, it)| {
            let at = at(self.next, sub);
            let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
            match (it.request_put, it.request_delete_range) {
                (Some(put), None) => Some(Row {
                    at,
                    is_deletion: false,
                    content: KeyValue {
                        key: decode(&put.key)?,
                        value: decode(&put.value)?,
                        create_revision: it.created,
                        mod_revision: self.next,
                        version: it.version,
                        lease: it.lease,
                    },
                }),
                (None, Some(delete)) => Some(Row {
                    at,
                    is_deletion: true,
                    content: KeyValue {
                        key: decode(&delete.key)?,
                        ..KeyValue::default()
                    },
                }),
                _ => None,
            }
        });
        rows.collect()
    }

    fn corrupt(&self, what: &str) -> Error {
        let message = format!(
            "the etcd changes are damaged: that of revision {} {what}",
            self.next
        );
        Error::new(ErrorKind::Corrupt, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: i64, key: &str) -> Event {
        let kv = KeyValue {
            key: key.into(),
            value: b"\0\n\"".to_vec(),
            create_revision: 3,
            mod_revision: revision,
            version: 2,
            lease: 0,
        };
        Event {
            kind: 0,
            kv: Some(kv),
        }
    }

    fn lines() -> Vec<u8> {
        let mut text = BEGIN.to_vec();
        write(&put(7, "a"), &mut text).unwrap();
        text.push(b',');
        let mut deletion = put(7, "b");
        deletion.kind = 1;
        write(&deletion, &mut text).unwrap();
        text.extend([END, BEGIN].concat());
        write(&put(8, ""), &mut text).unwrap();
        text.extend(END);
        text
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<Row>> {
        let mut lines = Lines::new((7, 8));
        let mut rows = Vec::new();
        for piece in pieces {
            rows.extend(lines.feed(piece)?);
        }
        lines.finish().map(|()| rows)
    }

    #[test]
    fn what_was_written_is_read() {
        let text = lines();
        let rows = read(&[&text]).unwrap();
        let content = |n: usize| &rows[n].content;
        assert_eq!(Some(content(0)), put(7, "a").kv.as_ref());
        assert_eq!(Some(content(2)), put(8, "").kv.as_ref());
        assert!(rows[1].is_deletion && content(1).key == b"b");
        let ats: Vec<_> = rows.iter().map(|row| (main(&row.at), row.at[16])).collect();
        assert_eq!(ats, [(7, 0), (7, 1), (8, 0)]);
        for cut in 0..text.len() {
            let (begin, end) = text.split_at(cut);
            assert_eq!(read(&[begin, end]).unwrap(), rows);
            assert!(read(&[begin]).is_err(), "{cut}");
        }
        let error = read(&[&text, b"{\"success\":[]}\n"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_part_says_which_revisions_it_has() {
        assert_eq!(revisions(&part(7, 123)), Some((7, 123)));
        for other in ["snapshot.db", "changes-7.jsonl", "changes-a-b.jsonl"] {
            assert_eq!(revisions(other), None, "{other}");
        }
    }
}
