//! Where a database is, and as whom to talk to it.

use std::fmt;

use backup_core::settings::{one, percent_decode, percent_encode};
use backup_core::{Error, ErrorKind, Result, Secret};
use serde::Deserialize;

/// What is known of a connection before it is complete: from a URL, fields, or variables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pieces {
    pub(crate) url: Option<Secret>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: Option<String>,
    pub(crate) sslmode: Option<SslMode>,
    pub(crate) sslrootcert: Option<String>,
}

/// How much TLS a connection must have: the words of libpq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

/// One database of one server. `Display` is its URL without user and password: the name that a
/// caller repeats, the same for everybody.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) database: String,
    pub(crate) sslmode: SslMode,
    pub(crate) sslrootcert: Option<String>,
}

impl SslMode {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        [Self::Disable, Self::Prefer, Self::Require, Self::VerifyFull]
            .into_iter()
            .find(|mode| mode.word() == text)
            .ok_or_else(|| {
                invalid(format!(
                    "sslmode {text:?} is not known here: disable, prefer, require or verify-full"
                ))
            })
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl Pieces {
    /// The pieces of `postgres://user:password@host:port/database?sslmode=..`. Names in it are
    /// percent-encoded, as libpq reads them (PostgreSQL documentation, 34.1.1.2).
    pub(crate) fn of_url(url: &str) -> Result<Self> {
        // The text itself may hold a password: no error repeats it.
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| invalid("a database is given as postgres://USER@HOST/DATABASE"))?;
        // `postgresql+asyncpg`: through which driver others reach it is no business of ours.
        let scheme = scheme.split('+').next().unwrap_or(scheme);
        if !["postgres", "postgresql"].contains(&scheme) {
            return Err(invalid(format!(
                "scheme `{scheme}` is none of a database: write postgres://"
            )));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = place.rsplit_once('@').unwrap_or(("", place));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(percent_decode(password)?)),
            None => (login, None),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (place, None),
        };
        if place.contains(',') {
            return Err(invalid("one host per URL: a backup is of one server"));
        }
        let some =
            |text: &str| -> Result<_> { Ok((!text.is_empty()).then_some(percent_decode(text)?)) };
        let mut pieces = Self {
            host: some(host.trim_start_matches('[').trim_end_matches(']'))?,
            port: port
                .filter(|port| !port.is_empty())
                .map(parse_port)
                .transpose()?,
            user: some(user)?,
            password: password.map(Secret::new),
            database: some(database)?,
            ..Self::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode(value)?;
            match name {
                "host" => pieces.host = Some(value),
                "port" => pieces.port = Some(parse_port(&value)?),
                "user" => pieces.user = Some(value),
                "password" => pieces.password = Some(Secret::new(value)),
                "dbname" => pieces.database = Some(value),
                "sslmode" => pieces.sslmode = Some(SslMode::parse(&value)?),
                "sslrootcert" => pieces.sslrootcert = Some(value),
                _ => {
                    return Err(invalid(format!(
                        "parameter `{name}` of a URL is not known here"
                    )));
                }
            }
        }
        Ok(pieces)
    }

    /// One connection out of all pieces. Two that say different things are `Invalid`.
    pub(crate) fn server(self) -> Result<Server> {
        let url = match &self.url {
            Some(url) => Self::of_url(url.expose())?,
            None => Self::default(),
        };
        let secret = |secret: Option<Secret>| secret.map(|secret| secret.expose().to_owned());
        let password = one("password", secret(url.password), secret(self.password))?;
        let server = Server {
            host: one("host", url.host, self.host)?.unwrap_or_else(|| "localhost".into()),
            port: one("port", url.port, self.port)?.unwrap_or(5432),
            user: one("user", url.user, self.user)?.ok_or_else(|| {
                invalid("no user: write postgres://USER@HOST/DATABASE, or `user`")
            })?,
            password: password.map(Secret::new),
            database: one("database", url.database, self.database)?.ok_or_else(|| {
                invalid("no database: write postgres://USER@HOST/DATABASE, or `database`")
            })?,
            sslmode: one("sslmode", url.sslmode, self.sslmode)?.unwrap_or(SslMode::Prefer),
            sslrootcert: one("sslrootcert", url.sslrootcert, self.sslrootcert)?,
        };
        if server.sslmode == SslMode::VerifyFull && server.sslrootcert.is_none() {
            return Err(invalid(
                "sslmode verify-full needs `sslrootcert`: a file of certificates, or `system`",
            ));
        }
        if server.sslmode != SslMode::VerifyFull && server.sslrootcert.is_some() {
            return Err(invalid(format!(
                "with sslmode {} nobody looks at `sslrootcert`: write sslmode=verify-full, or leave it away",
                server.sslmode.word()
            )));
        }
        Ok(server)
    }
}

impl Server {
    /// The same server, another database.
    pub(crate) fn database(&self, name: &str) -> Self {
        Self {
            database: name.to_owned(),
            ..self.clone()
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(['/', ':', '%']) {
            true => write!(f, "postgres://{}", percent_encode(&self.host))?,
            false => write!(f, "postgres://{}", self.host.to_lowercase())?,
        }
        if self.port != 5432 {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}", percent_encode(&self.database))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} as {}", self.user)
    }
}

pub(crate) fn parse_port(text: &str) -> Result<u16> {
    text.parse()
        .map_err(|_| invalid(format!("{text:?} is no port")))
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<Server> {
        Pieces::of_url(url)?.server()
    }

    #[test]
    fn a_url_is_read_as_libpq_reads_it() {
        let read = server("postgres://us%40er:p%3Aw%25d@DB.example:6000/my%20db?sslmode=require");
        let read = read.unwrap();
        assert_eq!(
            (&*read.user, &*read.host, read.port),
            ("us@er", "DB.example", 6000)
        );
        assert_eq!(read.password.as_ref().unwrap().expose(), "p:w%d");
        assert_eq!(read.database, "my db");
        assert_eq!(read.sslmode, SslMode::Require);
        assert_eq!(read.to_string(), "postgres://db.example:6000/my%20db");
        let socket = server("postgresql://a@%2Frun%2Fpg/b").unwrap();
        assert_eq!(socket.host, "/run/pg");
        assert_eq!(socket.to_string(), "postgres://%2Frun%2Fpg/b");
        let six = server("postgres://a@[::1]:7/b").unwrap();
        assert_eq!((&*six.host, six.port), ("::1", 7));
    }

    #[test]
    fn the_name_is_the_same_for_every_user_and_the_secret_shows_nowhere() {
        let (a, b) = (
            server("postgres://a:canary@h/d"),
            server("postgres://b@h:5432/d"),
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.to_string(), b.to_string());
        assert!(!format!("{a:?} {a}").contains("canary"));
    }

    #[test]
    fn what_cannot_be_right_is_refused_without_the_password() {
        for bad in [
            "db",
            "mysql://u:canary@h/d",
            "postgres://u:canary@h",
            "postgres://h/d",
            "postgres://u:canary%zz@h/d",
            "postgres://u:canary@h:port/d",
            "postgres://u:canary@h,i/d",
            "postgres://u:canary@h/d?sslmode=allow",
            "postgres://u:canary@h/d?sslmode=verify-full",
            "postgres://u:canary@h/d?sslmode=require&sslrootcert=ca.pem",
            "postgres://u:canary@h/d?sslmode=disable&sslrootcert=ca.pem",
            "postgres://u:canary@h/d?sslrootcert=ca.pem",
            "postgres://u:canary@h/d?gssencmode=disable",
        ] {
            let error = server(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(!error.chain().contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn a_piece_beside_the_url_must_agree_with_it() {
        let url = || Some(Secret::new("postgres://u@h/d"));
        let pieces = |database: &str| Pieces {
            url: url(),
            password: Some(Secret::new("p")),
            database: Some(database.into()),
            ..Pieces::default()
        };
        assert_eq!(
            pieces("d").server().unwrap().password.unwrap().expose(),
            "p"
        );
        let error = pieces("e").server().unwrap_err();
        assert!(
            error.to_string().contains("`database` is given twice"),
            "{error}"
        );
    }
}
