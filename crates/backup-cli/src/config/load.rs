//! From a file to a checked configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result, Secret};
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::de::{self, Mistake};
use super::environment::Environment;
use super::options::{Origin, SecretFields};
use super::{Config, check};
use crate::Registry;

/// A configuration file that was read and checked.
#[derive(Debug)]
pub struct Loaded {
    /// What it says, with variables replaced and paths made absolute.
    pub config: Config,
    pub(crate) origin: Arc<Origin>,
    pub(crate) environment: Environment,
}

impl Loaded {
    /// Reads and checks `file`. Types of sources, sinks and targets are those of `registry`.
    pub fn from_file(file: &Path, registry: &Registry) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::new(
                ErrorKind::Invalid,
                format!("{}: cannot be read: {error}", file.display()),
            )
        })?;
        Self::from_text(&text, file, registry)
    }

    /// Checks `text` as if it stood in `file`, which need not exist: relative paths and `.env`
    /// are looked for beside it.
    pub fn from_text(text: &str, file: &Path, registry: &Registry) -> Result<Self> {
        let dir = std::path::absolute(file)
            .ok()
            .and_then(|f| f.parent().map(Path::to_owned))
            .unwrap_or_default();
        let environment = Environment::beside(&dir)?;
        Self::parse(text, file, dir, environment, registry)
    }

    pub(crate) fn parse(
        text: &str,
        file: &Path,
        dir: PathBuf,
        environment: Environment,
        registry: &Registry,
    ) -> Result<Self> {
        let mut origin = Origin {
            file: file.to_owned(),
            dir,
            ..Origin::default()
        };
        let table = toml::from_str::<toml::Table>(text)
            .and_then(|table| {
                lines(text, &mut origin.lines)?;
                Ok(table)
            })
            .map_err(|error| {
                let at = error.span().map_or(0, |span| span.start);
                let message = error.message().replace('\n', "; ");
                Error::new(
                    ErrorKind::Invalid,
                    format!("{}:{}: {message}", file.display(), line_of(text, at)),
                )
            })?;
        let mut value = Value::Table(table);
        let mut variables = BTreeMap::new();
        expand(&mut value, "", &environment, &mut variables).map_err(|m| origin.wrong(&m))?;
        origin.variables = variables;
        let origin = Arc::new(origin);
        Self::build(&value, &origin)
            .and_then(|config| {
                check::check(&config, registry)?;
                Ok(config)
            })
            .map_err(|mistake| origin.wrong(&mistake))
            .map(|config| Self {
                config,
                origin,
                environment,
            })
    }

    fn build(value: &Value, origin: &Arc<Origin>) -> Result<Config, Mistake> {
        let mut config: Config = de::read(value, "")?;
        for (table, all) in [
            ("sinks", &mut config.sinks),
            ("targets", &mut config.targets),
        ] {
            for (name, options) in all.iter_mut() {
                options.placed(de::join(table, name), origin);
            }
        }
        for (name, job) in &mut config.jobs {
            let path = de::join(&de::join("jobs", name), "source");
            job.source.placed(path, origin);
        }
        let keys = &mut config.keys;
        for path in [
            &mut config.state_dir,
            &mut keys.identity_file,
            &mut keys.signing_key_file,
            &mut keys.signing_key_password_file,
        ]
        .into_iter()
        .flatten()
        {
            *path = origin.dir.join(&*path);
        }
        Ok(config)
    }

    /// The error for a field that cannot be right, with its place in the file.
    pub(crate) fn wrong(&self, path: impl Into<String>, message: impl Into<String>) -> Error {
        self.origin.wrong(&Mistake::at(path, message))
    }

    /// The folder of the file.
    pub(crate) fn dir(&self) -> &Path {
        &self.origin.dir
    }

    /// What decrypts, if this host has it.
    pub(crate) fn identity(&self) -> Result<Option<Secret>> {
        let keys = &self.config.keys;
        SecretFields {
            value: keys.identity.clone().map(Ok),
            file: keys.identity_file.clone().map(Ok),
            command: keys.identity_command.clone().map(Ok),
        }
        .read("keys.identity", &self.origin)
    }

    /// What signs, if this host has it.
    pub(crate) fn signing_key(&self) -> Result<Option<Secret>> {
        let keys = &self.config.keys;
        SecretFields {
            value: keys.signing_key.clone().map(Ok),
            file: keys.signing_key_file.clone().map(Ok),
            command: keys.signing_key_command.clone().map(Ok),
        }
        .read("keys.signing_key", &self.origin)
    }

    /// What opens the signing key, if it has a password.
    pub(crate) fn signing_key_password(&self) -> Result<Option<Secret>> {
        let keys = &self.config.keys;
        SecretFields {
            value: keys.signing_key_password.clone().map(Ok),
            file: keys.signing_key_password_file.clone().map(Ok),
            command: keys.signing_key_password_command.clone().map(Ok),
        }
        .read("keys.signing_key_password", &self.origin)
    }

    /// Whether every restore on this host is one into production.
    pub(crate) fn is_production(&self) -> bool {
        let production = |text: &str| text.trim().eq_ignore_ascii_case("production");
        self.config.environment.as_deref().is_some_and(production)
            || self
                .environment
                .get("ENV")
                .is_some_and(|v| production(v.expose()))
    }
}

/// Replaces the variables in every string under `value`.
fn expand(
    value: &mut Value,
    path: &str,
    environment: &Environment,
    used: &mut BTreeMap<String, Secret>,
) -> Result<(), Mistake> {
    match value {
        Value::String(text) => {
            *text = environment
                .expand(text, used)
                .map_err(|message| Mistake::at(path, message))?;
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{index}]"), environment, used)?;
            }
        }
        Value::Table(table) => {
            for (name, value) in table.iter_mut() {
                expand(value, &de::join(path, name), environment, used)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The line of every field.
fn lines(text: &str, all: &mut BTreeMap<String, usize>) -> Result<(), toml::de::Error> {
    fn table(text: &str, path: &str, table: &DeTable<'_>, all: &mut BTreeMap<String, usize>) {
        for (name, value) in table.iter() {
            let path = de::join(path, name.get_ref());
            all.insert(path.clone(), line_of(text, name.span().start));
            within(text, &path, value.get_ref(), all);
        }
    }
    fn within(text: &str, path: &str, value: &DeValue<'_>, all: &mut BTreeMap<String, usize>) {
        match value {
            DeValue::Table(inner) => table(text, path, inner, all),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    all.insert(path.clone(), line_of(text, item.span().start));
                    within(text, &path, item.get_ref(), all);
                }
            }
            _ => {}
        }
    }
    let root = DeTable::parse(text)?;
    table(text, "", root.get_ref(), all);
    Ok(())
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}
