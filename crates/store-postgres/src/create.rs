//! Databases that a restore makes, and drops again unless it ends well.

use backup_core::{Error, ErrorKind, Facts, Result, undo};
use serde_json::Value;

use crate::server::Server;
use crate::sql::{Session, failed, ident, literal};

/// A database that is dropped, with whoever is connected, unless it was [kept](Self::keep).
pub(crate) struct Temporary {
    pub(crate) server: Server,
    /// The database beside which it was made.
    beside: Server,
    kept: bool,
}

impl Temporary {
    /// Makes a database beside `server`'s, of the encoding and locale that `facts` name.
    pub(crate) async fn create(session: &Session, server: &Server, facts: &Facts) -> Result<Self> {
        let temporary = Self {
            server: server.database(&name(&server.database, "restoring")?),
            beside: server.clone(),
            kept: false,
        };
        let mut create = format!(
            "create database {} template template0",
            ident(&temporary.server.database)
        );
        for (option, value) in locale(facts) {
            create.push_str(&format!(" {option} {}", literal(value)));
        }
        let made = session.run("create a database", &create).await;
        made.map_err(|error| match error.kind() {
            ErrorKind::Denied => error.context(format!(
                "the role `{}` must have CREATEDB, or restore in place into a database that exists",
                server.user
            )),
            _ => error,
        })?;
        Ok(temporary)
    }

    /// It has another name now.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Drops the database now.
    pub(crate) async fn remove(mut self) {
        self.kept = true;
        remove(&self.beside, &self.server.database).await;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (beside, name) = (self.beside.clone(), self.server.database.clone());
        // Without a runtime nobody can: it stays, and its name says what it is.
        undo(async move { remove(&beside, &name).await });
    }
}

/// Drops a database that nobody needs. If that fails the work is done nevertheless, and this is
/// only room to be won back. No connection to `beside` is made: a swap ends those.
pub(crate) async fn remove(beside: &Server, name: &str) {
    if let Err(error) = drop_database(beside, name).await {
        let (error, server) = (error.chain(), beside.database(name));
        tracing::warn!(database = %server, error, "a database that the restore no longer needs stays behind: drop it");
    }
}

async fn drop_database(beside: &Server, name: &str) -> Result<()> {
    let statement = format!("drop database if exists {} with (force)", ident(name));
    let session = Session::beside(beside).await?;
    session.run("drop it", &statement).await
}

/// `orders_restoring_5f3a9c01`: as much of `database` as a name has room for.
pub(crate) fn name(database: &str, what: &str) -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|e| Error::new(ErrorKind::Other, format!("random name: {e}")))?;
    let suffix = format!("_{what}_{:08x}", u32::from_be_bytes(random));
    // 63 bytes: NAMEDATALEN - 1.
    let mut end = database.len().min(63 - suffix.len());
    while !database.is_char_boundary(end) {
        end -= 1;
    }
    Ok(format!("{}{suffix}", &database[..end]))
}

fn locale(facts: &Facts) -> Vec<(&'static str, &str)> {
    let text = |name| facts.get(name).and_then(Value::as_str);
    let (Some(encoding), Some(collate), Some(ctype)) =
        (text("encoding"), text("collate"), text("ctype"))
    else {
        return Vec::new();
    };
    let mut options = vec![
        ("encoding", encoding),
        ("lc_collate", collate),
        ("lc_ctype", ctype),
    ];
    match (text("locale_provider"), text("locale")) {
        (Some("i"), Some(locale)) => {
            options.extend([("locale_provider", "icu"), ("icu_locale", locale)]);
        }
        (Some("b"), Some(locale)) => {
            options.extend([("locale_provider", "builtin"), ("builtin_locale", locale)]);
        }
        (Some("c"), _) => options.push(("locale_provider", "libc")),
        _ => {}
    }
    options
}

/// Gives `new` what a dump does not have and belongs to the database itself: owner, settings and
/// privileges of `old`.
pub(crate) async fn inherit(session: &Session, old: &str, new: &str) -> Result<()> {
    let what = format!("take over the settings of `{old}`");
    let read = |e| failed(&what, e);
    let to = ident(new);
    let row = session
        .query_one(
            "select pg_get_userbyid(datdba)::text, datconnlimit from pg_database
            where datname = $1::text",
            &[&old],
        )
        .await
        .map_err(read)?;
    let (owner, limit): (String, i32) = (row.get(0), row.get(1));
    let mut statements = format!(
        "alter database {to} owner to {}; alter database {to} connection limit {limit};",
        ident(&owner)
    );
    let grants = session
        .query(
            "select r.rolname::text, a.privilege_type, a.is_grantable
            from pg_database d, aclexplode(d.datacl) a left join pg_roles r on r.oid = a.grantee
            where d.datname = $1::text",
            &[&old],
        )
        .await
        .map_err(read)?;
    if !grants.is_empty() {
        statements.push_str(&format!("revoke all on database {to} from public;"));
    }
    for row in grants {
        let role = row.get::<_, Option<String>>(0);
        let role = role.map_or("public".into(), |role| ident(&role));
        let option = if row.get(2) { " with grant option" } else { "" };
        let right: String = row.get(1);
        statements.push_str(&format!(
            "grant {right} on database {to} to {role}{option};"
        ));
    }
    let settings = session
        .query(
            "select r.rolname::text, s.setting from pg_db_role_setting x
            join pg_database d on d.oid = x.setdatabase left join pg_roles r on r.oid = x.setrole,
            unnest(x.setconfig) s (setting) where d.datname = $1::text",
            &[&old],
        )
        .await
        .map_err(read)?;
    for row in settings {
        let (role, setting): (Option<String>, String) = (row.get(0), row.get(1));
        let Some((name, value)) = setting.split_once('=') else {
            continue;
        };
        let whose = match role {
            Some(role) => format!("role {} in database {to}", ident(&role)),
            None => format!("database {to}"),
        };
        // The value is stored as one text, lists included: FROM CURRENT needs no quoting of it.
        let (text, words) = (literal(name), ident(name).replace('.', "\".\""));
        statements.push_str(&format!(
            "select set_config({text}, {}, true); alter {whose} set {words} from current;",
            literal(value)
        ));
    }
    session
        .run(&what, &format!("begin; {statements} commit"))
        .await
}
