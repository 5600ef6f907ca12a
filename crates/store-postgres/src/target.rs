use backup_core::{
    Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target, async_trait, finish,
};

use crate::create::Temporary;
use crate::fill::Form;
use crate::options::Restoring;
use crate::programs::Tool;
use crate::snapshot::Version;
use crate::sql::{Session, failed};
use crate::swap::swap;
use crate::{KIND, PostgresDatabase, room};

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
    async fn free_space(&self) -> Result<Option<u64>> {
        room::free(&self.server).await
    }

    fn publishes_atomically(&self) -> bool {
        !self.restoring.in_place
    }

    /// Restores into a database of another name, compares the number of rows of every table with
    /// the backup's, ends the connections to the database that is replaced, swaps the names and
    /// drops the old one. Owner, settings and privileges of the old database are taken over.
    ///
    /// Options: `with_owners`, `schemas`, `tables`, `trust_sql`, as the setters of the same names;
    /// a schema or table that the backup does not have is `NotFound`. Dropped: the new database goes
    /// away; once the names are being swapped, that is done to its end. A killed process leaves a
    /// database `NAME_restoring_XXXXXXXX`.
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
        let form = Form::of(parts, &how)?;
        let session = Session::beside(&self.server).await?;
        let major = Version::of(&session, &self.server).await?.major;
        // Before anything is made: it may be missing.
        self.programs
            .tool(form.program(), &self.server, major)
            .await?;
        let temporary = Temporary::create(&session, &self.server, parts.facts()).await?;
        drop(session);
        let filled = async {
            let into = &temporary.server;
            let tool = form.tool(&self.programs, into, major, &how).await?;
            form.fill(into, &tool, parts, &how).await?;
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
        finish(swap(temporary, self.server.clone())).await
    }

    fn next_steps(&self, options: &RestoreOptions) -> Vec<String> {
        let url = &self.server;
        let mut steps = vec![
            format!("the restored database is {url}"),
            format!("collect statistics, which dumps lack: psql -d {url} -c ANALYZE"),
        ];
        steps.push(match options.replace || self.restoring.in_place {
            true => "applications find it where they found the old one: look at their errors and \
                     latency for an hour"
                .to_owned(),
            false => format!(
                "run migrations and smoke tests on it; to cut over, stop what writes to the old \
                 database, point every application and job to {url}, start them, look at errors \
                 and latency for an hour, and only then drop the old one"
            ),
        });
        steps
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
        let form = Form::of(parts, how)?;
        let why = match form {
            Form::Whole => None,
            Form::Sharded => Some("a sharded backup is"),
            Form::Sql => Some("plain SQL, which does not say what it replaces, is"),
        };
        if let Some(what) = why {
            let message = format!("{what} not restored in place: restore it into a new database");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let session = Session::open(&self.server).await?;
        let major = Version::of(&session, &self.server).await?.major;
        drop(session);
        let tool = form.tool(&self.programs, &self.server, major, how).await?;
        let tool = ["--clean", "--if-exists", "--single-transaction"]
            .into_iter()
            .fold(tool, Tool::arg);
        form.fill(&self.server, &tool, parts, how).await
    }
}
