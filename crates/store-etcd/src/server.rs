//! Where a server is, and as whom to talk to it.

use std::fmt;
use std::path::PathBuf;

use backup_core::{Error, ErrorKind, Result, Secret};
use http::Uri;
use serde::Deserialize;

/// One member of a cluster. `Display` is its URL.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) tls: Tls,
}

/// Files of certificates, as `etcdctl` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Of those that may have signed the server's; without it, the system's.
    pub(crate) cacert: Option<PathBuf>,
    /// Ours, for servers that ask for one, and its key.
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// `http://HOST:2379`, or `https://`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Endpoint(pub(crate) Uri);

impl Server {
    pub(crate) fn from_url(url: impl Into<String>) -> Result<Self> {
        Ok(Self {
            endpoint: url.into().try_into()?,
            user: None,
            password: None,
            tls: Tls::default(),
        })
    }

    pub(crate) fn login_from_env(&mut self) {
        if self.user.is_none()
            && let Some(login) = variable("ETCDCTL_USER")
        {
            let (name, password) = match login.split_once(':') {
                Some((name, password)) => (name.to_owned(), Some(password.to_owned())),
                None => (login, variable("ETCDCTL_PASSWORD")),
            };
            self.user = Some(name);
            self.password = password.map(Secret::new);
        }
    }

    /// Refuses what cannot go together.
    pub(crate) fn checked(self) -> Result<Self> {
        if self.user.is_some() != self.password.is_some() {
            return Err(invalid("`user` and `password` come together"));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(invalid("`cert` and `key` come together"));
        }
        if self.tls != Tls::default() && !self.endpoint.is_tls() {
            return Err(invalid(
                "certificates are for an https:// URL; this one asks for no TLS",
            ));
        }
        Ok(self)
    }
}

impl Endpoint {
    pub(crate) fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let written = match text.contains("://") {
            true => text,
            // As `etcdctl` takes it.
            false => format!("http://{text}"),
        };
        let bad = || invalid("a member is given as http://HOST:2379, or https:// for TLS");
        let uri: Uri = written.parse().map_err(|_| bad())?;
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let host = uri.host().filter(|host| !host.is_empty());
        let (true, true, Some(host)) = (is_known, is_bare, host) else {
            return Err(bad());
        };
        if uri.authority().is_some_and(|at| at.as_str().contains('@')) {
            return Err(invalid(
                "a URL has no login here: `user` and `password` stand beside it",
            ));
        }
        let (scheme, port) = (
            uri.scheme_str().unwrap_or("http"),
            uri.port_u16().unwrap_or(2379),
        );
        format!("{scheme}://{}:{port}", host.to_lowercase())
            .parse()
            .map(Self)
            .map_err(|_| bad())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

/// All keys that begin with `prefix`, as a request names them: the first, and the one behind the last.
pub(crate) fn range(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let first = if prefix.is_empty() { &[0] } else { prefix };
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX);
    let end = kept.map_or(vec![0], |last| {
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        end
    });
    (first.to_vec(), end)
}

pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_all_keys_that_begin_with_its_prefix() {
        for (prefix, first, end) in [
            (&b""[..], &b"\0"[..], &b"\0"[..]),
            (b"/app/", b"/app/", b"/app0"),
            (b"a\xff\xff", b"a\xff\xff", b"b"),
            (b"\xff", b"\xff", b"\0"),
        ] {
            assert_eq!(range(prefix), (first.to_vec(), end.to_vec()));
        }
    }

    #[test]
    fn a_url_is_read_as_etcdctl_reads_it() {
        for (text, name) in [
            ("127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("https://ETCD-1.internal", "https://etcd-1.internal:2379"),
            ("http://[::1]:1/", "http://[::1]:1"),
        ] {
            assert_eq!(Server::from_url(text).unwrap().to_string(), name);
        }
        for bad in ["", "http://", "redis://h", "http://h/path", "http://h?x=1"] {
            assert!(Server::from_url(bad).is_err(), "{bad}");
        }
        let error = Server::from_url("http://root:canary@h").unwrap_err();
        assert!(!error.chain().contains("canary"), "{error:?}");
    }
}
