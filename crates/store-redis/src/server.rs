//! Where a server is, and as whom to talk to it.

use std::fmt;
use std::path::PathBuf;

use backup_core::settings::{one, percent_decode};
use backup_core::{Error, ErrorKind, Result, Secret};
use serde::Deserialize;

/// What is known of a server before it is complete: from a URL and what stands beside it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pieces {
    pub(crate) url: Option<Secret>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// One server. `Display` is its URL without user, password and database: the name that a caller
/// repeats, the same for everybody.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) tls: Option<Tls>,
}

/// Files of certificates, as `redis-cli` has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    /// Of those that may have signed the server's; without it, the system's.
    pub(crate) cacert: Option<PathBuf>,
    /// Ours, for servers that ask for one, and its key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

impl Pieces {
    /// One server out of all pieces. Two that say different things are `Invalid`.
    pub(crate) fn server(self) -> Result<Server> {
        let url = self.url.as_ref();
        let url = url.ok_or_else(|| invalid("no server: write `url = \"redis://HOST\"`"))?;
        let server = Server::of_url(url.expose())?;
        self.beside(server)
    }

    /// The server with what stands beside its URL.
    pub(crate) fn beside(self, mut server: Server) -> Result<Server> {
        server.user = one("user", server.user, self.user)?;
        let text = |secret: Option<Secret>| secret.map(|secret| secret.expose().to_owned());
        let password = one("password", text(server.password), text(self.password))?;
        server.password = password.map(Secret::new);
        let client = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(invalid("`cert` and `key` come together")),
        };
        match &mut server.tls {
            Some(tls) => {
                tls.cacert = self.cacert;
                tls.client = client;
            }
            None if self.cacert.is_some() || client.is_some() => {
                return Err(invalid(
                    "certificates are for a `rediss://` URL; this one asks for no TLS",
                ));
            }
            None => {}
        }
        Ok(server)
    }
}

impl Server {
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://` for TLS, names percent-encoded (the
    /// schemes of IANA's registry). The database is read over: a snapshot is of all of them.
    pub(crate) fn of_url(url: &str) -> Result<Self> {
        // The text itself may hold a password: no error repeats it.
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| invalid("a server is given as redis://HOST:PORT"))?;
        let tls = match scheme {
            "redis" | "valkey" => None,
            "rediss" | "valkeys" => Some(Tls::default()),
            _ => {
                return Err(invalid(format!(
                    "scheme `{scheme}` is none of a server: write redis://, or rediss:// for TLS"
                )));
            }
        };
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        if !database.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(invalid(
                "behind the port of a redis:// URL may stand the number of a database, and nothing else",
            ));
        }
        let (login, place) = place.rsplit_once('@').unwrap_or(("", place));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let some =
            |text: &str| -> Result<_> { Ok((!text.is_empty()).then_some(percent_decode(text)?)) };
        let (host, port) = split_port(place, 6379)?;
        Ok(Self {
            host,
            port,
            user: some(user)?,
            password: some(password)?.map(Secret::new),
            tls,
        })
    }

    /// Another server for whom the same login and certificates are good.
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            ..self.clone()
        }
    }

    /// `host:port`, as it is dialled.
    pub(crate) fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() {
            "rediss"
        } else {
            "redis"
        };
        let address = self.address().to_lowercase();
        let address = address.strip_suffix(":6379").unwrap_or(&address);
        write!(f, "{scheme}://{address}")
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{self} as {user}"),
            None => write!(f, "{self}"),
        }
    }
}

/// `host:port`, `[::1]:port` or a bare host.
pub(crate) fn split_port(place: &str, default: u16) -> Result<(String, u16)> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (place, ""),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() || bare.contains([',', '[', ']']) || (bare == host && bare.contains(':')) {
        return Err(invalid(
            "a server is given as HOST:PORT, or [ADDRESS]:PORT for IPv6",
        ));
    }
    let port = match port {
        "" => default,
        port => port
            .parse()
            .map_err(|_| invalid("what stands behind the host of a server is no port"))?,
    };
    Ok((percent_decode(bare)?, port))
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_redis_cli_reads_it() {
        let server = Server::of_url("redis://us%40er:p%3Aw%25d@DB.example:6000/3").unwrap();
        assert_eq!(server.user.as_deref(), Some("us@er"));
        assert_eq!(server.password.as_ref().unwrap().expose(), "p:w%d");
        assert_eq!(server.address(), "DB.example:6000");
        assert_eq!(server.to_string(), "redis://db.example:6000");
        let server = Server::of_url("rediss://:secret@[::1]").unwrap();
        assert!(server.user.is_none() && server.tls.is_some());
        assert_eq!(server.address(), "[::1]:6379");
        assert_eq!(server.to_string(), "rediss://[::1]");
    }

    #[test]
    fn the_name_is_the_same_for_every_user_and_the_secret_shows_nowhere() {
        let a = Server::of_url("redis://a:canary@h/1").unwrap();
        let b = Server::of_url("redis://H:6379").unwrap();
        assert_eq!(a.to_string(), b.to_string());
        assert!(!format!("{a:?} {a}").contains("canary"));
    }

    #[test]
    fn what_cannot_be_right_is_refused_without_the_password() {
        for bad in [
            "h",
            "http://u:canary@h",
            "redis://u:canary@",
            "redis://u:canary%zz@h",
            "redis://u:canary@h:port",
            "redis://u:canary@h,i",
            "redis://u:canary@::1",
            "redis://u:canary@h/name",
            "redis://u:canary@h/0?x=canary",
        ] {
            let error = Server::of_url(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(!error.chain().contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn a_piece_beside_the_url_must_agree_with_it() {
        let pieces = |url: &str| Pieces {
            url: Some(Secret::new(url)),
            password: Some(Secret::new("p")),
            ..Pieces::default()
        };
        let server = pieces("redis://h").server().unwrap();
        assert_eq!(server.password.unwrap().expose(), "p");
        let error = pieces("redis://:q@h").server().unwrap_err();
        assert!(
            error.to_string().contains("`password` is given twice"),
            "{error}"
        );
        let mut plain = pieces("redis://h");
        plain.cacert = Some("ca.crt".into());
        assert!(plain.server().is_err());
    }
}
