//! A dump that was made elsewhere.

use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use backup_core::process::{Env, Program};
use backup_core::{
    ByteStream, Error, ErrorKind, Facts, PartWriter, Request, RestoreStep, Result, Source,
    async_trait,
};
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::plain::Plain;
use crate::programs::Programs;
use crate::source::restore_archive;
use crate::{DUMP, KIND, SQL};

/// A file that `pg_dump` wrote somewhere else, taken in as a backup of this kind: an archive
/// (`--format=custom`), or plain SQL, which may be compressed by gzip or zstd. A tar is
/// `Unsupported`: `pg_restore` does not read all of it from a stream, and 15 turns in circles on one
/// that is cut off.
///
/// It is read whole and must be complete: an archive for `pg_restore`, plain SQL by its trailer. It
/// must not change meanwhile.
/// Plain SQL is a program, which is restored only for who
/// [trusts](crate::PostgresDatabase::trust_sql) it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresDump {
    path: PathBuf,
    bin: Option<PathBuf>,
    pg_restore: Option<PathBuf>,
}

impl PostgresDump {
    /// The dump in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            bin: None,
            pg_restore: None,
        }
    }

    /// The folder with `pg_restore`.
    #[must_use]
    pub fn bin(mut self, folder: impl Into<PathBuf>) -> Self {
        self.bin = Some(folder.into());
        self
    }
}

/// What is in the file.
enum Form {
    /// For `pg_restore`.
    Archive,
    /// For `psql`, once this program has decompressed it.
    Plain(Option<&'static str>),
}

#[async_trait]
impl Source for PostgresDump {
    fn kind(&self) -> &str {
        KIND
    }

    /// Facts: of an archive `database` and `server_version`, of plain SQL `creates_database`
    /// (whether it makes or enters databases of its own).
    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        let facts = self.take(out).await;
        facts.map_err(|e| e.context(format!("dump `{}`", self.path.display())))
    }

    /// `$TARGET` is the connection string of a new, empty database.
    fn restore_steps(&self) -> Vec<RestoreStep> {
        let psql = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "$TARGET"];
        let what = "the database as a program in SQL, which may do whatever its role may: read it \
                    first; into a new and empty database (`createdb`), of which TARGET is the \
                    connection string";
        vec![restore_archive(DUMP), RestoreStep::new(SQL, what, psql)]
    }
}

impl PostgresDump {
    /// What is checked is read by its path, and in another reading than what is stored.
    async fn take(&self, out: &PartWriter) -> Result<Facts> {
        let failed = |e| Error::io(format!("read `{}`", self.path.display()), e);
        let file = File::open(&self.path).map_err(failed)?;
        let before = identity(&file.metadata().map_err(failed)?);
        let facts = match form(&file)? {
            Form::Archive => self.archive(&file, out).await?,
            Form::Plain(unpack) => self.plain(&file, unpack, out).await?,
        };
        let (read, there) = (file.metadata(), self.path.metadata());
        let is_same =
            |now: std::io::Result<Metadata>| now.is_ok_and(|now| identity(&now) == before);
        match is_same(read) && is_same(there) {
            true => Ok(facts),
            false => Err(Error::new(
                ErrorKind::Source,
                "it changed while it was read: back it up again once nobody writes to it",
            )),
        }
    }

    async fn archive(&self, from: &File, out: &PartWriter) -> Result<Facts> {
        let programs = Programs {
            bin: self.bin.clone(),
            pg_restore: self.pg_restore.clone(),
            ..Programs::default()
        };
        let tool = programs.offline("pg_restore").await?;
        let file = self.path.to_string_lossy();
        // Its table of contents comes first, and says nothing of what is cut off behind it.
        let whole = tool.clone().arg("--file=/dev/null").arg(file.clone());
        let read = whole.program().output(ErrorKind::Source)?;
        read.collect(0).await?;
        let list = tool.arg("--list").arg(file);
        let list = list.program().output(ErrorKind::Source)?;
        let list = list.collect(64 << 20).await?;
        out.write(DUMP, stream(from)?).await?;
        Ok(contents(&String::from_utf8_lossy(&list)))
    }

    async fn plain(&self, from: &File, unpack: Option<&str>, out: &PartWriter) -> Result<Facts> {
        let bytes = match unpack {
            None => stream(from)?,
            Some(program) => {
                let path = self.path.to_string_lossy().into_owned();
                let argv = [program.to_owned(), "-dc".into(), "--".into(), path];
                let program = Program {
                    argv: &argv,
                    env: &Env::default(),
                    env_clear: false,
                    directory: None,
                };
                program.output(ErrorKind::Source)?
            }
        };
        let (bytes, seen) = looked_at(bytes);
        out.write(SQL, bytes).await?;
        let own = seen.await.unwrap_or(true);
        Ok(Facts::new().with("creates_database", own))
    }
}

fn form(file: &File) -> Result<Form> {
    let mut head = Vec::new();
    file.take(512).read_to_end(&mut head)?;
    match head.as_slice() {
        [b'P', b'G', b'D', b'M', b'P', ..] => Ok(Form::Archive),
        [0x1f, 0x8b, ..] => Ok(Form::Plain(Some("gzip"))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Form::Plain(Some("zstd"))),
        // A tar of `pg_dump` begins with its table of contents.
        tar if tar.starts_with(b"toc.dat\0") => Err(Error::new(
            ErrorKind::Unsupported,
            "a tar cannot be restored from a stream: dump with --format=custom",
        )),
        _ => Ok(Form::Plain(None)),
    }
}

/// All of it, whatever was read before.
fn stream(file: &File) -> Result<ByteStream> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(ByteStream::from_reader("dump", file))
}

/// Which file, in which state: device, inode, length and time of the last change.
fn identity(of: &Metadata) -> (u64, u64, u64, i64, i64) {
    (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec())
}

/// `bytes`, which end well only if they are a whole dump in SQL, and then whether it makes
/// databases of its own.
fn looked_at(bytes: ByteStream) -> (ByteStream, oneshot::Receiver<bool>) {
    let (tell, seen) = oneshot::channel();
    let state = (bytes, Some((Plain::default(), tell)));
    let bytes = futures::stream::try_unfold(state, |(mut bytes, mut look)| async {
        match bytes.next().await.transpose()? {
            Some(chunk) => {
                if let Some((plain, _)) = &mut look {
                    plain.push(&chunk)?;
                }
                Ok(Some((chunk, (bytes, look))))
            }
            None => {
                if let Some((plain, tell)) = look {
                    // Nobody waits where the backup was given up.
                    let _ = tell.send(plain.finish()?);
                }
                Ok(None)
            }
        }
    });
    (ByteStream::new(bytes), seen)
}

/// What `pg_restore --list` tells in its comments.
fn contents(list: &str) -> Facts {
    let comment = |name: &str| {
        let mut comments = list.lines().filter_map(|line| line.strip_prefix(';'));
        comments.find_map(|line| Some(line.trim().strip_prefix(name)?.trim().to_owned()))
    };
    let mut facts = Facts::new();
    for (fact, name) in [
        ("database", "dbname:"),
        ("server_version", "Dumped from database version:"),
    ] {
        if let Some(value) = comment(name) {
            facts = facts.with(fact, value);
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_contents_tells_what_was_dumped() {
        let list = ";\n; Archive created at 2026\n;     dbname: my shop\n;     Dumped from database \
                    version: 15.18 (Debian)\n;\n215; 1259 16387 TABLE public database postgres\n";
        let facts = contents(list);
        assert_eq!(facts.get("database").unwrap(), "my shop");
        assert_eq!(facts.get("server_version").unwrap(), "15.18 (Debian)");
    }
}
