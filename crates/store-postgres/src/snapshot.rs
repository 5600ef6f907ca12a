//! One moment of a database, held open for as many programs as want to see it.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Facts, Result};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::server::Server;
use crate::sql::{Session, failed};

/// Tables that a dump holds: none of extensions, none of sessions.
const TABLES: &str = "
    select format('%I.%I', n.nspname, c.relname), c.relkind = 'r', c.reltuples::float8,
        case c.relkind when 'r' then pg_table_size(c.oid) else 0 end
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and c.relpersistence <> 't'
        and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
        and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass
            and d.objid = c.oid and d.deptype = 'e')
    order by 4, 1";

/// An exported snapshot. Dropping it ends the transaction and frees every lock.
pub(crate) struct Snapshot {
    session: Session,
    /// What `pg_dump --snapshot` takes.
    pub(crate) id: String,
    /// By size, the smallest first.
    pub(crate) tables: Vec<Table>,
    /// Whether there are any.
    pub(crate) large_objects: bool,
}

pub(crate) struct Table {
    /// As SQL takes it: `public."Odd name"`.
    pub(crate) name: String,
    /// Whether it has rows of its own; a partitioned table has none.
    pub(crate) rows: bool,
    estimate: f64,
    pub(crate) bytes: i64,
}

/// What kind of server this is.
pub(crate) struct Version {
    pub(crate) text: String,
    pub(crate) major: u32,
    pub(crate) superuser: bool,
}

impl Version {
    pub(crate) async fn of(session: &Session, server: &Server) -> Result<Self> {
        let what = format!("ask {server} for its version");
        let row = session
            .query_one(
                "select current_setting('server_version'),
                    current_setting('server_version_num')::int,
                    current_setting('is_superuser') = 'on'",
                &[],
            )
            .await
            .map_err(|e| failed(&what, e))?;
        Ok(Self {
            text: row.get(0),
            major: u32::try_from(row.get::<_, i32>(1)).unwrap_or(0) / 10_000,
            superuser: row.get(2),
        })
    }
}

impl Snapshot {
    /// Locks every table against changes of its shape, and then fixes the moment: in this order
    /// nobody can truncate or rewrite a table in between, which a snapshot does not hide
    /// (PostgreSQL documentation, 13.6).
    ///
    /// Nobody waits longer than `patience` for a lock, so that a change of the schema ends in an
    /// error, and not in two that wait for each other.
    pub(crate) async fn open(
        session: Session,
        server: &Server,
        patience: Duration,
    ) -> Result<Self> {
        let read = |e| failed(&format!("read the tables of {server}"), e);
        let mut tables = Vec::new();
        session
            .run(
                "set up the session",
                &format!(
                    "set statement_timeout = 0; set lock_timeout = {};
                    set idle_in_transaction_session_timeout = 0; set row_security = off;
                    select set_config(name, '0', false) from pg_settings
                    where name = 'transaction_timeout';
                    set search_path = ''",
                    patience.as_millis().max(1)
                ),
            )
            .await?;
        for row in session.query(TABLES, &[]).await.map_err(read)? {
            tables.push(Table {
                name: row.get(0),
                rows: row.get(1),
                estimate: row.get(2),
                bytes: row.get(3),
            });
        }
        let mut begin = "begin isolation level repeatable read, read only;".to_owned();
        if !tables.is_empty() {
            let names: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
            let names = names.join(", ");
            begin.push_str(&format!("lock table {names} in access share mode"));
        }
        session
            .run(&format!("lock the tables of {server}"), &begin)
            .await?;
        let export = "select pg_export_snapshot(), exists(select from pg_largeobject_metadata)";
        let row = session.query_one(export, &[]).await;
        let row = row.map_err(|e| failed("export the snapshot", e))?;
        Ok(Self {
            id: row.get(0),
            large_objects: row.get(1),
            session,
            tables,
        })
    }

    /// Identity and position of the server, and what a new database needs to be like this one.
    pub(crate) async fn facts(&self, server: &Server) -> Result<Facts> {
        let what = format!("read the facts of {server}");
        let row = self
            .session
            .query_one(
                "select pg_database_size(oid), pg_encoding_to_char(encoding), datcollate::text,
                    datctype::text, to_jsonb(d) ->> 'datlocprovider',
                    coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
                    (case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                        else pg_current_wal_lsn() end)::text
                from pg_database d where datname = current_database()",
                &[],
            )
            .await
            .map_err(|e| failed(&what, e))?;
        let mut facts = Facts::new()
            .with("database", server.database.as_str())
            .with("size", row.get::<_, i64>(0))
            .with("encoding", row.get::<_, String>(1))
            .with("collate", row.get::<_, String>(2))
            .with("ctype", row.get::<_, String>(3));
        for (name, column) in [("locale_provider", 4), ("locale", 5), ("lsn", 6)] {
            if let Some(value) = row.get::<_, Option<String>>(column) {
                facts = facts.with(name, value);
            }
        }
        // A server may keep it from everybody but its superuser.
        self.session.run("mark", "savepoint identity").await?;
        let system = "select system_identifier::text from pg_control_system()";
        match self.session.query_one(system, &[]).await {
            Ok(row) => facts = facts.with("system_id", row.get::<_, String>(0)),
            Err(_) => self.session.run("go on", "rollback to identity").await?,
        }
        Ok(facts)
    }

    /// Counts rows for as long as `budget` lasts, small tables first. Facts: `rows` by table, and
    /// `rows_estimated` for what was left.
    pub(crate) async fn count(&self, budget: Duration) -> Result<(Value, Value)> {
        let deadline = Instant::now() + budget;
        let (mut rows, mut estimated) = (Map::new(), Map::new());
        for table in self.tables.iter().filter(|table| table.rows) {
            match self.count_table(table, deadline).await? {
                Some(count) => rows.insert(table.name.clone(), count.into()),
                // Never analysed: -1.
                None => {
                    estimated.insert(table.name.clone(), (table.estimate.max(0.0) as u64).into())
                }
            };
        }
        Ok((rows.into(), estimated.into()))
    }

    async fn count_table(&self, table: &Table, deadline: Instant) -> Result<Option<i64>> {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .as_millis();
        if left == 0 {
            return Ok(None);
        }
        let what = format!("count the rows of {}", table.name);
        let begin = format!("savepoint count; set local statement_timeout = {left}");
        self.session.run(&what, &begin).await?;
        let count = format!("select count(*) from only {}", table.name);
        let count = match self.session.query_one(&count, &[]).await {
            Ok(row) => Some(row.get(0)),
            Err(e) if e.code() == Some(&SqlState::QUERY_CANCELED) => None,
            Err(e) => return Err(failed(&what, e)),
        };
        self.session.run(&what, "rollback to count").await?;
        Ok(count)
    }

    /// Ends the transaction: the server was there the whole time.
    pub(crate) async fn close(self) -> Result<()> {
        let ended = self.session.run("end the snapshot", "commit").await;
        ended.map_err(|e| Error::new(ErrorKind::Source, "the snapshot was lost").with_source(e))
    }
}
