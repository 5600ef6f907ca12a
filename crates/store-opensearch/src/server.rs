//! Where a cluster is, and as whom to talk to it.

use std::fmt;
use std::path::PathBuf;

use backup_core::settings::{one, percent_decode};
use backup_core::{Error, ErrorKind, Result, Secret};
use serde::Deserialize;

/// A cluster by one of its nodes, or by what balances between them. `Display` is its URL without
/// user and password: the name that a caller repeats, the same for everybody.
#[derive(Clone)]
pub(crate) struct Server {
    /// Without a slash at its end.
    pub(crate) base: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) tls: Tls,
}

/// Files of certificates, as `curl` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Of those that may have signed the server's, besides the system's.
    pub(crate) cacert: Option<PathBuf>,
    /// Ours, for servers that ask for one, and its key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

/// What configuration says of a server: a URL and what stands beside it.
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

impl Pieces {
    /// One server out of all pieces. Two that say different things are `Invalid`.
    pub(crate) fn server(self) -> Result<Server> {
        let url = self.url.as_ref();
        let url = url.ok_or_else(|| invalid("no server: write `url = \"https://HOST:9200\"`"))?;
        let mut server = Server::of_url(url.expose())?;
        server.user = one("user", server.user, self.user)?;
        let password = one("password", text(&server.password), text(&self.password))?;
        server.password = password.map(Secret::new);
        server.tls.cacert = self.cacert;
        server.tls.client = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(invalid("`cert` and `key` come together")),
        };
        if server.tls != Tls::default() && !server.base.starts_with("https:") {
            return Err(invalid(
                "certificates are for an https:// URL; this one asks for no TLS",
            ));
        }
        Ok(server)
    }
}

fn text(secret: &Option<Secret>) -> Option<&str> {
    secret.as_ref().map(Secret::expose)
}

impl Server {
    /// `https://USER:PASSWORD@HOST:PORT/PATH`, names percent-encoded. The path is that of a proxy.
    pub(crate) fn of_url(url: &str) -> Result<Self> {
        // The text itself may hold a password: no error repeats it.
        let wrong = || invalid("a cluster is given as https://HOST:9200, or http:// without TLS");
        let mut url = reqwest::Url::parse(url).map_err(|_| wrong())?;
        let whole = matches!(url.scheme(), "http" | "https") && url.has_host();
        if !whole || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong());
        }
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let user = user.map(percent_decode).transpose()?;
        let password = url
            .password()
            .map(percent_decode)
            .transpose()?
            .map(Secret::new);
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| wrong())?;
        Ok(Self {
            base: url.as_str().trim_end_matches('/').to_owned(),
            user,
            password,
            tls: Tls::default(),
        })
    }
}

impl Server {
    /// What is not there yet, from the variables that OpenSearch's own images read.
    pub(crate) fn login_from_env(&mut self) {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        self.user = self.user.take().or_else(|| variable("OPENSEARCH_USERNAME"));
        let password = || variable("OPENSEARCH_PASSWORD").map(Secret::new);
        self.password = self.password.take().or_else(password);
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
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

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let server = Server::of_url("https://us%40er:p%3Aw@ES.example:9200/").unwrap();
        assert_eq!(server.user.as_deref(), Some("us@er"));
        assert_eq!(text(&server.password), Some("p:w"));
        assert_eq!(server.to_string(), "https://es.example:9200");
        assert!(!format!("{server:?} {server}").contains("p:w"));
        let server = Server::of_url("http://h/search").unwrap();
        assert_eq!(server.to_string(), "http://h/search");
    }

    #[test]
    fn what_cannot_be_right_is_refused_without_the_password() {
        for bad in [
            "h",
            "ftp://u:canary@h",
            "http://u:canary@",
            "http://u:canary@h?x",
            "http://u:can%zzary@h",
        ] {
            let error = Server::of_url(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(!error.chain().contains("canary"), "{error:?}");
        }
    }
}
