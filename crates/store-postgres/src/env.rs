//! A connection from the variables that people have set anyway.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use backup_core::{Error, Result, Secret};

use crate::programs::Programs;
use crate::server::{Pieces, Server, SslMode, invalid, parse_port};

/// Variables by name.
pub(crate) struct Vars(Get);

type Get = Box<dyn Fn(&str) -> Option<String>>;

impl Vars {
    pub(crate) fn of_process() -> Self {
        Self(Box::new(|name| std::env::var(name).ok()))
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    pub(crate) fn programs(&self) -> Programs {
        Programs {
            pg_dump: self.get("BACKUP_PGDUMP_PATH").map(Into::into),
            pg_restore: self.get("BACKUP_PGRESTORE_PATH").map(Into::into),
            ..Programs::default()
        }
    }

    pub(crate) fn pieces(&self) -> Result<Pieces> {
        let url = self.get("DATABASE_URL");
        let of_url = match &url {
            Some(url) => Pieces::of_url(url).map_err(|e| e.context("variable DATABASE_URL"))?,
            None => Pieces::default(),
        };
        let text = |secret: &Option<Secret>| secret.as_ref().map(|s| s.expose().to_owned());
        let mode = of_url.sslmode.map(|mode| mode.word().to_owned());
        let mut pieces = Pieces {
            host: self.piece(of_url.host.clone(), &["PGHOST", "POSTGRES_HOST"])?,
            port: self
                .piece(
                    of_url.port.map(|port| port.to_string()),
                    &["PGPORT", "POSTGRES_PORT"],
                )?
                .map(|port| parse_port(&port))
                .transpose()?,
            user: self.piece(of_url.user.clone(), &["PGUSER", "POSTGRES_USER"])?,
            password: self
                .piece(text(&of_url.password), &["PGPASSWORD", "POSTGRES_PASSWORD"])?
                .map(Secret::new),
            database: self.piece(of_url.database.clone(), &["PGDATABASE", "POSTGRES_DB"])?,
            sslmode: self
                .piece(mode, &["PGSSLMODE"])?
                .map(|mode| SslMode::parse(&mode))
                .transpose()?,
            sslrootcert: self.piece(of_url.sslrootcert.clone(), &["PGSSLROOTCERT"])?,
            url: None,
        };
        if pieces.password.is_none()
            && let Some(file) = self.passfile()
        {
            let place = [
                pieces.host.as_deref().unwrap_or("localhost"),
                &pieces.port.unwrap_or(5432).to_string(),
                pieces.database.as_deref().unwrap_or_default(),
                pieces.user.as_deref().unwrap_or_default(),
            ];
            pieces.password = passfile(Path::new(&file), place)?;
        }
        Ok(pieces)
    }

    /// What libpq would take for a `server` without a password.
    pub(crate) fn password(&self, server: &Server) -> Result<Option<Secret>> {
        if let Some(password) = self.get("PGPASSWORD") {
            return Ok(Some(Secret::new(password)));
        }
        let Some(file) = self.passfile() else {
            return Ok(None);
        };
        let port = server.port.to_string();
        passfile(
            Path::new(&file),
            [&server.host, &port, &server.database, &server.user],
        )
    }

    /// `PGPASSFILE`, else `~/.pgpass` where there is one.
    fn passfile(&self) -> Option<String> {
        self.get("PGPASSFILE").or_else(|| {
            let usual = format!("{}/.pgpass", self.get("HOME")?);
            Path::new(&usual).exists().then_some(usual)
        })
    }

    /// The one value that all of these give.
    fn piece(&self, of_url: Option<String>, names: &[&str]) -> Result<Option<String>> {
        let variables = names
            .iter()
            .filter_map(|name| Some((*name, self.get(name)?)));
        let mut found: Option<(&str, String)> = of_url.map(|value| ("DATABASE_URL", value));
        for (name, value) in variables {
            match &found {
                Some((other, known)) if *known != value => {
                    return Err(invalid(format!(
                        "variables {other} and {name} say different things: unset one of them"
                    )));
                }
                _ => found = Some((name, value)),
            }
        }
        Ok(found.map(|(_, value)| value))
    }
}

/// The password in a file of `host:port:database:user:password` lines, `*` for any, that nobody
/// else can read (PostgreSQL documentation, 34.16).
fn passfile(file: &Path, place: [&str; 4]) -> Result<Option<Secret>> {
    let failed = |e| Error::io(format!("password file `{}`", file.display()), e);
    let mode = fs::metadata(file).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let file = file.display();
        return Err(invalid(format!(
            "password file `{file}` is open to others: chmod 600 {file}"
        )));
    }
    let text = fs::read_to_string(file).map_err(failed)?;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields = fields(line);
        if fields.len() == 5
            && fields
                .iter()
                .zip(place)
                .all(|(field, place)| field == "*" || field == place)
        {
            return Ok(Some(Secret::new(&*fields[4])));
        }
    }
    Ok(None)
}

/// Splits at colons; a backslash makes the next character a plain one.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(c) = letters.next() {
        match (c, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(letters.next()),
            (c, Some(field)) => field.push(c),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use backup_core::ErrorKind;

    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        Vars(Box::new(move |name| {
            let found = pairs.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        }))
    }

    #[test]
    fn the_variables_of_libpq_and_of_compose_files_are_read() {
        let libpq = vars(&[
            ("PGHOST", "h"),
            ("PGPORT", "6000"),
            ("PGUSER", "u"),
            ("PGPASSWORD", "p"),
            ("PGDATABASE", "d"),
            ("PGSSLMODE", "require"),
        ]);
        let compose = vars(&[
            ("POSTGRES_HOST", "h"),
            ("POSTGRES_PORT", "6000"),
            ("POSTGRES_USER", "u"),
            ("POSTGRES_PASSWORD", "p"),
            ("POSTGRES_DB", "d"),
        ]);
        let url = vars(&[
            ("DATABASE_URL", "postgresql+asyncpg://u:p@h:6000/d"),
            ("PGUSER", "u"),
        ]);
        for vars in [libpq, compose, url] {
            let server = vars.pieces().unwrap().server().unwrap();
            assert_eq!(format!("{server:?}"), "postgres://h:6000/d as u");
            assert_eq!(server.password.unwrap().expose(), "p");
        }
    }

    #[test]
    fn variables_that_disagree_are_named_and_their_values_are_not() {
        for (a, b) in [
            (("PGPASSWORD", "canary"), ("POSTGRES_PASSWORD", "other")),
            (
                ("DATABASE_URL", "postgres://u:canary@h/d"),
                ("PGPASSWORD", "other"),
            ),
            (("PGHOST", "a"), ("POSTGRES_HOST", "b")),
        ] {
            let error = vars(&[a, b]).pieces().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = error.chain();
            assert!(
                text.contains(a.0) && text.contains(b.0) && !text.contains("canary"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_password_file_is_read_unless_others_can() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pass");
        fs::write(&file, "# mine\nother:*:*:*:no\nh:*:d:us\\:er:pa\\:ss\n").unwrap();
        let set = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let vars = vars(&[
            ("PGPASSFILE", file.to_str().unwrap()),
            ("PGHOST", "h"),
            ("PGUSER", "us:er"),
            ("PGDATABASE", "d"),
        ]);
        set(0o644);
        assert!(
            vars.pieces()
                .unwrap_err()
                .to_string()
                .contains("open to others")
        );
        set(0o600);
        assert_eq!(vars.pieces().unwrap().password.unwrap().expose(), "pa:ss");
        fs::rename(&file, folder.path().join(".pgpass")).unwrap();
        let home = self::vars(&[
            ("HOME", folder.path().to_str().unwrap()),
            ("PGHOST", "h"),
            ("PGUSER", "us:er"),
            ("PGDATABASE", "d"),
        ]);
        assert_eq!(home.pieces().unwrap().password.unwrap().expose(), "pa:ss");
    }
}
