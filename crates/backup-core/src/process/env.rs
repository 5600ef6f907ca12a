use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

/// Environment variables of a program, whose values nobody prints: the place for secrets.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Env {
    set: BTreeMap<String, String>,
    #[serde(skip)]
    hidden: BTreeSet<String>,
}

impl Env {
    /// Adds a variable; a second one of a name replaces the first.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set.insert(name.into(), value.into());
        self
    }

    /// Keeps from the program what this process has in variables that look like secrets, by their
    /// names or as a URL with a password: those of other stores are no business of it. What was
    /// [added](Self::with) stays.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        let variables = std::env::vars_os();
        let text = variables
            .map(|(name, value)| (name.into_string(), value.to_string_lossy().into_owned()));
        let secret = text.filter_map(|(name, value)| {
            let name = name.ok()?;
            is_secret(&name, &value).then_some(name)
        });
        self.hidden.extend(secret);
        self
    }

    /// Keeps from the program what this process has in these variables, unless it was
    /// [added](Self::with).
    #[must_use]
    pub fn without(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hidden.extend(names.into_iter().map(Into::into));
        self
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Variables of this process that the program does not get.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &str> {
        self.hidden.iter().map(String::as_str)
    }
}

fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let speaks = [
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "TOKEN",
        "_KEY",
    ];
    let mut urls = value.split("://").skip(1);
    urls.any(has_password) || speaks.iter().any(|word| name.contains(word))
}

/// Whether what follows the scheme of a URL logs in by more than a name (RFC 3986, 3.2).
fn has_password(url: &str) -> bool {
    let authority = url.split(['/', '?', '#']).next().unwrap_or(url);
    authority
        .rsplit_once('@')
        .is_some_and(|(login, _)| login.contains(':'))
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.set.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_name_and_by_what_a_url_holds() {
        for (name, value) in [
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_SESSION_TOKEN", "x"),
            ("redis_password", "x"),
            ("DATABASE_URL", "postgres://u:p@h/d"),
            ("REDIS_URL", "redis://:p@h"),
            ("PROXIES", "http://a/,http://u:p@b:80?x"),
        ] {
            assert!(is_secret(name, value), "{name}");
        }
        for (name, value) in [
            ("PATH", "/usr/bin"),
            ("PGPASSFILE", "/root/.pgpass"),
            ("DOCKER_HOST", "unix:///run/docker.sock"),
            ("DOCKER_HOST", "ssh://deploy@db1"),
            ("DOCKER_HOST", "ssh://deploy@db1:22/run/docker.sock"),
            ("PAGE", "http://h:80/a@b?c=d:e@f"),
            ("PGSSLMODE", "require"),
        ] {
            assert!(!is_secret(name, value), "{name}");
        }
    }
}
