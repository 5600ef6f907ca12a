//! Filling a database from the parts of a backup.

use std::collections::BTreeMap;

use backup_core::{ByteStream, Error, ErrorKind, PartReader, RestoreOptions, Result};
use futures::StreamExt;
use serde_json::Value;

use crate::options::Restoring;
use crate::programs::{Programs, Tool};
use crate::server::Server;
use crate::sql::{Session, failed, ident};
use crate::{DUMP, KIND, LARGE_OBJECTS, POST_DATA, PRE_DATA, SQL};

/// What the database is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One archive.
    Whole,
    /// One for the schema before the data, several for data, one for the schema after it.
    Sharded,
    /// A program for `psql`.
    Sql,
}

impl Form {
    /// What kind of dump `parts` are, if a restore may touch it.
    pub(crate) fn of(parts: &PartReader, how: &Restoring) -> Result<Self> {
        let forms = [
            (DUMP, Self::Whole),
            (PRE_DATA, Self::Sharded),
            (SQL, Self::Sql),
        ];
        let found = forms
            .into_iter()
            .find(|(part, _)| parts.manifest().part(part).is_some());
        let Some((_, form)) = found else {
            let message = format!("the backup has no part `{DUMP}`");
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let refused = |why: &str| Err(Error::new(ErrorKind::Refused, why));
        if form == Self::Sql && !how.trust_sql {
            return refused(
                "the dump is plain SQL, a program that may do whatever your role may: with \
                 --trust-sql you say that you know where it is from",
            );
        }
        if form == Self::Sql && how.is_partial() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "plain SQL is restored whole: schemas and tables cannot be chosen",
            ));
        }
        // In an archive that is an entry, which `pg_restore` passes over unless it is told.
        if form == Self::Sql && parts.facts().get("creates_database") != Some(&Value::Bool(false)) {
            return refused(
                "the dump makes or enters a database of its own, wherever it is restored to: dump \
                 without --create, or as an archive, or feed it to psql by hand",
            );
        }
        Ok(form)
    }

    /// The program that takes it.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Whole | Self::Sharded => "pg_restore",
            Self::Sql => "psql",
        }
    }

    /// That program, connected to `server`, with what it is always told.
    pub(crate) async fn tool(
        self,
        programs: &Programs,
        server: &Server,
        major: u32,
        how: &Restoring,
    ) -> Result<Tool> {
        let tool = programs.tool(self.program(), server, major).await?;
        let tell = |tool: Tool, words: &[&str]| words.iter().copied().fold(tool, Tool::arg);
        if self == Self::Sql {
            let words = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"];
            return Ok(tell(tool, &words));
        }
        let mut tool = tell(tool, &["--exit-on-error"]);
        if !how.with_owners {
            tool = tell(tool, &["--no-owner", "--no-privileges"]);
        }
        for (option, names) in [("schema", &how.schemas), ("table", &how.tables)] {
            for name in names {
                tool = tool.arg(format!("--{option}={name}"));
            }
        }
        tool.chooses = how.is_partial();
        Ok(tool)
    }

    /// Refuses a schema or a table that the backup does not have. The first archive has a table of
    /// contents with all of them, and only that is read.
    async fn check_names(self, tool: &Tool, parts: &PartReader, how: &Restoring) -> Result<()> {
        let part = match self {
            Self::Sharded => PRE_DATA,
            Self::Whole | Self::Sql => DUMP,
        };
        let list = ["--list", "--strict-names"];
        let tool = list.into_iter().fold(tool.clone(), Tool::arg).in_english();
        let data = parts.open(part).await?;
        let Err(error) = tool.program().feed_some(data).await else {
            return Ok(());
        };
        let said = error.chain();
        let schemas = how.schemas.iter().map(|name| ("schema", name));
        let mut names = schemas.chain(how.tables.iter().map(|name| ("table", name)));
        let missing =
            names.find(|(what, name)| said.contains(&format!("{what} \"{name}\" not found")));
        Err(match missing {
            Some((what, name)) => {
                let message = format!("the backup has no {what} `{name}`");
                Error::new(ErrorKind::NotFound, message)
            }
            None => error.context(format!("look for the names in part `{part}`")),
        })
    }

    /// Brings all parts into the database `into` by `tool`, and compares the counts.
    pub(crate) async fn fill(
        self,
        into: &Server,
        tool: &Tool,
        parts: &PartReader,
        how: &Restoring,
    ) -> Result<()> {
        if how.is_partial() {
            self.check_names(tool, parts, how).await?;
        }
        if !how.schemas.is_empty() {
            // `pg_restore --schema` brings what is in it, and not the schema.
            let session = Session::open(into).await?;
            for name in &how.schemas {
                let statement = format!("create schema if not exists {}", ident(name));
                session.run("create a schema", &statement).await?;
            }
        }
        let feed_in_jobs = async |part: &str, jobs| {
            let fed = tool.feed_in_jobs(parts.open(part).await?, jobs).await;
            fed.map_err(|e| e.context(format!("restore part `{part}`")))
        };
        let feed = async |part| feed_in_jobs(part, 1).await;
        let is_data =
            |name: &&str| name.ends_with(".dump") && ![PRE_DATA, POST_DATA].contains(name);
        match self {
            Self::Whole => feed(DUMP).await?,
            Self::Sql => feed(SQL).await?,
            Self::Sharded => {
                feed(PRE_DATA).await?;
                let data: Vec<_> = parts.names().filter(is_data).collect();
                let shards = data.iter().filter(|name| **name != LARGE_OBJECTS).count();
                futures::future::try_join_all(data.into_iter().map(&feed)).await?;
                feed_in_jobs(POST_DATA, shards).await?;
            }
        }
        // Roles belong to the server: who wants them feeds them to psql. A damaged part is found.
        for name in parts
            .names()
            .filter(|name| !name.ends_with(".dump") && *name != SQL)
        {
            drain(parts.open(name).await?).await?;
        }
        match how.is_partial() {
            true => Ok(()),
            false => check_counts(into, parts).await,
        }
    }
}

impl Restoring {
    pub(crate) fn is_partial(&self) -> bool {
        !self.schemas.is_empty() || !self.tables.is_empty()
    }

    /// What the caller asks for beyond what the target says.
    pub(crate) fn with(&self, options: &RestoreOptions) -> Result<Self> {
        let mut how = self.clone();
        for (name, value) in &options.extra {
            match name.as_str() {
                "with_owners" => how.with_owners = RestoreOptions::read(name, value)?,
                "schemas" => how.schemas = RestoreOptions::read(name, value)?,
                "tables" => how.tables = RestoreOptions::read(name, value)?,
                "trust_sql" => how.trust_sql = RestoreOptions::read(name, value)?,
                _ => return Err(RestoreOptions::unknown(KIND, name)),
            }
        }
        Ok(how)
    }
}

/// Every table has as many rows as the backup says. What was only estimated is not looked at.
async fn check_counts(server: &Server, parts: &PartReader) -> Result<()> {
    let Some(rows) = parts.facts().get("rows").and_then(Value::as_object) else {
        return Ok(());
    };
    let rows: BTreeMap<&str, i64> = rows
        .iter()
        .filter_map(|(table, rows)| Some((table.as_str(), rows.as_i64()?)))
        .collect();
    let session = Session::open(server).await?;
    session
        .run(
            "count the rows",
            "set row_security = off; set search_path = ''",
        )
        .await?;
    for (table, expected) in rows {
        let what = format!("count the rows of {table}");
        let count = session
            .query_one(&format!("select count(*) from only {table}"), &[])
            .await;
        let found: i64 = count.map_err(|e| failed(&what, e))?.get(0);
        if found != expected {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{table} has {found} rows, and {expected} were backed up"),
            ));
        }
    }
    Ok(())
}

pub(crate) async fn drain(mut bytes: ByteStream) -> Result<()> {
    while let Some(chunk) = bytes.next().await {
        chunk?;
    }
    Ok(())
}
