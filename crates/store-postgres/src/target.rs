use std::collections::BTreeMap;

use backup_core::{
    ByteStream, Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target,
    async_trait,
};
use futures::StreamExt;
use serde_json::Value;

use crate::create::Temporary;
use crate::options::Restoring;
use crate::programs::Tool;
use crate::server::Server;
use crate::snapshot::Version;
use crate::sql::{Session, failed, ident};
use crate::swap::swap;
use crate::{DUMP, KIND, POST_DATA, PRE_DATA, PostgresDatabase};

#[async_trait]
impl Target for PostgresDatabase {
    fn kind(&self) -> &str {
        KIND
    }

    /// Empty: no such database, or nothing in it that somebody made.
    async fn occupancy(&self) -> Result<Occupancy> {
        let session = match Session::open(&self.server).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Occupancy::Empty),
            opened => opened?,
        };
        let row = session
            .query_one(HELD, &[])
            .await
            .map_err(|e| failed(&format!("look into {self}"), e))?;
        let (tables, objects): (i64, i64) = (row.get(0), row.get(1));
        let size: String = row.get(2);
        Ok(match (tables, objects) {
            (0, 0) => Occupancy::Empty,
            (0, objects) => Occupancy::Holds(format!("{objects} objects, {size}")),
            (1, _) => Occupancy::Holds(format!("1 table, {size}")),
            (tables, _) => Occupancy::Holds(format!("{tables} tables, {size}")),
        })
    }

    /// A new database gets its name when everything in it was checked. In place it does not.
    fn publishes_atomically(&self) -> bool {
        !self.restoring.in_place
    }

    /// Restores into a database of another name, compares the number of rows of every table with
    /// the backup's, ends the connections to the database that is replaced, swaps the names and
    /// drops the old one. Owner, settings and privileges of the old database are taken over.
    ///
    /// Options: `with_owners`, `schemas`, `tables`, as the setters of the same names. Dropped: the
    /// new database goes away; once the names are being swapped, that is done to its end. A killed
    /// process leaves a database `NAME_restoring_XXXXXXXX`.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        let how = self.restoring.with(options)?;
        if how.in_place {
            return self.restore_in_place(parts, &how).await;
        }
        if options.replace && how.is_partial() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "a part of the backup is no replacement for {self}: restore it into a new database, or in place"
                ),
            ));
        }
        let session = Session::beside(&self.server).await?;
        let version = Version::of(&session, &self.server).await?;
        // Before anything is made: it may be missing.
        self.programs
            .tool("pg_restore", &self.server, version.major)
            .await?;
        let temporary = Temporary::create(&session, &self.server, parts.facts()).await?;
        drop(session);
        let filled = async {
            let into = &temporary.server;
            let tool = self
                .programs
                .tool("pg_restore", into, version.major)
                .await?;
            self.fill(into, tool, parts, &how).await?;
            parts.require_complete(parts.names())?;
            // It took a while. Nobody agreed to lose what came meanwhile.
            match self.occupancy().await? {
                Occupancy::Holds(what) if !options.replace => Err(Error::new(
                    ErrorKind::Refused,
                    format!("{self} was empty when the restore began, and now holds {what}"),
                )),
                _ => Ok(()),
            }
        };
        if let Err(error) = filled.await {
            temporary.remove().await;
            return Err(error);
        }
        let swapped = tokio::spawn(swap(temporary, self.server.clone()));
        let swapped = swapped.await;
        swapped
            .map_err(|e| Error::new(ErrorKind::Other, "swap the databases").with_source(e))??;
        tracing::info!(url = %self.server, "restored: point applications here, run ANALYZE, and watch their errors before what they used is dropped");
        Ok(())
    }
}

/// Tables and the like, everything that somebody made, and how large it is.
const HELD: &str = "
    with spaces as (
        select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
    ), made as (
        select 'pg_class'::regclass as class, oid from pg_class
            where relnamespace in (select oid from spaces) and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
        union all select 'pg_proc'::regclass, oid from pg_proc
            where pronamespace in (select oid from spaces)
        union all select 'pg_type'::regclass, oid from pg_type
            where typnamespace in (select oid from spaces) and typtype in ('d', 'e', 'r')
        union all select 'pg_namespace'::regclass, oid from pg_namespace
            where oid in (select oid from spaces) and nspname <> 'public'
        union all select 'pg_extension'::regclass, oid from pg_extension where extname <> 'plpgsql'
        union all select 'pg_largeobject'::regclass, oid from pg_largeobject_metadata
    ), own as (
        select * from made m where not exists (select from pg_depend d
            where d.classid = m.class and d.objid = m.oid and d.deptype = 'e')
    )
    select (select count(*) from own o join pg_class c on c.oid = o.oid
            where o.class = 'pg_class'::regclass and c.relkind in ('r', 'p', 'm', 'f')),
        (select count(*) from own), pg_size_pretty(pg_database_size(current_database()))";

impl PostgresDatabase {
    /// Everything in one transaction, where it is one dump.
    async fn restore_in_place(&self, parts: &PartReader, how: &Restoring) -> Result<()> {
        if parts.manifest().part(DUMP).is_none() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a sharded backup is not restored in place: restore it into a new database",
            ));
        }
        let session = Session::open(&self.server).await?;
        let version = Version::of(&session, &self.server).await?;
        drop(session);
        let tool = self
            .programs
            .tool("pg_restore", &self.server, version.major)
            .await?;
        let tool = ["--clean", "--if-exists", "--single-transaction"]
            .into_iter()
            .fold(tool, Tool::arg);
        self.fill(&self.server, tool, parts, how).await
    }

    /// Brings all parts into the database `into`, and compares the counts.
    async fn fill(
        &self,
        into: &Server,
        tool: Tool,
        parts: &PartReader,
        how: &Restoring,
    ) -> Result<()> {
        let mut tool = tool.arg("--exit-on-error");
        if !how.with_owners {
            tool = tool.arg("--no-owner").arg("--no-privileges");
        }
        for (option, names) in [("schema", &how.schemas), ("table", &how.tables)] {
            for name in names {
                tool = tool.arg(format!("--{option}={name}"));
            }
        }
        if !how.schemas.is_empty() {
            // `pg_restore --schema` brings what is in it, and not the schema.
            let session = Session::open(into).await?;
            for name in &how.schemas {
                let statement = format!("create schema if not exists {}", ident(name));
                session.run("create a schema", &statement).await?;
            }
        }
        let feed = async |part: &str| {
            let fed = tool.program().feed(parts.open(part).await?).await;
            fed.map_err(|e| e.context(format!("restore part `{part}`")))
        };
        let first = [DUMP, PRE_DATA]
            .into_iter()
            .find(|part| parts.manifest().part(part).is_some());
        let Some(first) = first else {
            let message = format!("the backup has no part `{DUMP}`");
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        feed(first).await?;
        if first == PRE_DATA {
            let data = parts.names().filter(|name| name.starts_with("data-"));
            futures::future::try_join_all(data.map(&feed)).await?;
            feed(POST_DATA).await?;
        }
        // Roles belong to the server: who wants them feeds them to psql. A damaged part is found.
        for name in parts.names().filter(|name| !name.ends_with(".dump")) {
            drain(parts.open(name).await?).await?;
        }
        if how.is_partial() {
            return Ok(());
        }
        check_counts(into, parts).await
    }
}

impl Restoring {
    fn is_partial(&self) -> bool {
        !self.schemas.is_empty() || !self.tables.is_empty()
    }

    /// What the caller asks for beyond what the target says.
    fn with(&self, options: &RestoreOptions) -> Result<Self> {
        let mut how = self.clone();
        for (name, value) in &options.extra {
            match name.as_str() {
                "with_owners" => how.with_owners = read(name, value)?,
                "schemas" => how.schemas = read(name, value)?,
                "tables" => how.tables = read(name, value)?,
                _ => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!("a restore of kind `{KIND}` has no option `{name}`"),
                    ));
                }
            }
        }
        Ok(how)
    }
}

fn read<T: serde::de::DeserializeOwned>(name: &str, value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|e| {
        Error::new(ErrorKind::Invalid, format!("restore option `{name}`")).with_source(e)
    })
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

async fn drain(mut bytes: ByteStream) -> Result<()> {
    while let Some(chunk) = bytes.next().await {
        chunk?;
    }
    Ok(())
}
