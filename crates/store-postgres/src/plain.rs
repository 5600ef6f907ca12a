//! What a dump in plain SQL says of itself, seen as it flows by.

use backup_core::{Error, ErrorKind, Result};

/// How much of each line is looked at, at its beginning and at its end.
const LOOK: usize = 64;

/// How much of the whole is looked at, at its beginning and at its end: the trailer, and what
/// follows it, an empty comment and `\unrestrict` with its key.
const ENDS: usize = 512;

/// How `pg_dump` says that it has written everything (`pg_backup_archiver.c`).
const TRAILER: &str = "-- PostgreSQL database dump complete";

/// How `pg_dumpall` begins, and how it ends (`pg_dumpall.c`). In between, each database has the
/// trailer of `pg_dump`.
const CLUSTER: &str = "-- PostgreSQL database cluster dump";
const CLUSTER_TRAILER: &str = "-- PostgreSQL database cluster dump complete";

/// Looks at plain SQL in whatever chunks it comes; holds a few hundred bytes.
#[derive(Default)]
pub(crate) struct Plain {
    /// Of the line that is coming: how it begins and how it ends.
    begin: Vec<u8>,
    end: Vec<u8>,
    /// Rows are coming, which are no statements.
    in_copy: bool,
    own_database: bool,
    /// The first bytes of all, and the last.
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Plain {
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<()> {
        let room = ENDS - self.head.len();
        self.head.extend_from_slice(&chunk[..room.min(chunk.len())]);
        if self.head.starts_with(b"PGDMP") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "it is an archive of pg_dump, compressed once more: decompress it first",
            ));
        }
        keep_last(&mut self.tail, chunk, ENDS);
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LOOK - self.begin.len();
            self.begin.extend_from_slice(&text[..room.min(text.len())]);
            keep_last(&mut self.end, text, LOOK);
            if ended {
                self.line();
            }
        }
        Ok(())
    }

    fn line(&mut self) {
        let begin = String::from_utf8_lossy(&self.begin).to_ascii_lowercase();
        let begin = begin.trim_start();
        if self.in_copy {
            self.in_copy = begin != "\\.";
        } else if begin.starts_with("copy ") {
            let end = String::from_utf8_lossy(&self.end).to_ascii_lowercase();
            self.in_copy = end.trim_end().ends_with("from stdin;");
        } else {
            let words = ["create database ", "drop database ", "\\connect", "\\c "];
            self.own_database |= words.iter().any(|word| begin.starts_with(word));
        }
        self.begin.clear();
        self.end.clear();
    }

    /// Whether it makes or enters databases by itself, wherever it is restored to. Without its
    /// trailer it is `Source`: somebody stopped writing.
    pub(crate) fn finish(mut self) -> Result<bool> {
        self.line();
        let has = |text: &[u8], line| String::from_utf8_lossy(text).contains(line);
        let ends = has(&self.tail, CLUSTER_TRAILER)
            || (has(&self.tail, TRAILER) && !has(&self.head, CLUSTER));
        match ends {
            true => Ok(self.own_database),
            false => Err(Error::new(
                ErrorKind::Source,
                "it does not end as a dump in plain SQL ends: it is cut off, or no dump of pg_dump",
            )),
        }
    }
}

/// The last `most` bytes of `kept` and `more`.
fn keep_last(kept: &mut Vec<u8>, more: &[u8], most: usize) {
    let more = &more[more.len().saturating_sub(most)..];
    let surplus = (kept.len() + more.len()).saturating_sub(most);
    kept.drain(..surplus);
    kept.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n";

    /// Whatever the chunks, the same is seen.
    fn look(text: &str) -> Result<bool> {
        let mut seen = Vec::new();
        for size in [1, 7, 64, text.len().max(1)] {
            let mut plain = Plain::default();
            for chunk in text.as_bytes().chunks(size) {
                plain.push(chunk)?;
            }
            seen.push(plain.finish().map_err(|e| e.kind()));
        }
        assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
        seen[0].map_err(|kind| Error::new(kind, ""))
    }

    #[test]
    fn databases_of_its_own_are_seen_and_rows_are_not_taken_for_them() {
        for own in [
            "CREATE DATABASE shop WITH TEMPLATE = template0;\n",
            "  drop database shop;\n",
            "\\connect shop\n",
            "COPY t (a) FROM stdin;\nx\n\\.\n\\c shop\n",
        ] {
            assert!(look(&format!("select 1;\n{own}{END}")).unwrap(), "{own}");
        }
        let long = "x".repeat(500);
        for none in [
            "select 'CREATE DATABASE';\n",
            "COPY public.log (text) FROM stdin;\nCREATE DATABASE shop;\n\\connect shop\n\\.\n",
            &format!("COPY public.{long} (text) FROM stdin;\n\\connect shop\n\\.\n"),
        ] {
            assert!(!look(&format!("{none}{END}")).unwrap(), "{none}");
        }
    }

    #[test]
    fn a_dump_of_a_cluster_ends_with_its_own_trailer() {
        let shop = format!("\\connect shop\n{}{END}", "select 1;\n".repeat(100));
        let half = format!("--\n-- PostgreSQL database cluster dump\n--\n\n{shop}");
        assert_eq!(look(&half).unwrap_err().kind(), ErrorKind::Source);
        let trailer = "--\n-- PostgreSQL database cluster dump complete\n--\n\n";
        assert!(look(&format!("{half}{trailer}")).unwrap());
        // In one database it is only a text.
        let text = format!("{shop}-- PostgreSQL database cluster dump\n{END}");
        assert!(look(&text).is_ok());
    }

    #[test]
    fn what_does_not_end_as_a_dump_ends_is_no_dump() {
        let whole = format!("create table t (a int);\n{END}");
        assert!(look(&whole).is_ok());
        let cut = &whole[..whole.len() - 70];
        assert_eq!(look(cut).unwrap_err().kind(), ErrorKind::Source);
        assert_eq!(look("").unwrap_err().kind(), ErrorKind::Source);
        let late = format!("{whole}{}", "select 1;\n".repeat(100));
        assert!(look(&late).is_err(), "something was added after its end");
    }
}
