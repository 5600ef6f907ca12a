//! The fields of one source, sink or target, before the plugin that they are for reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result, Secret};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use super::de::{self, Mistake};
use super::secret;

/// Where a configuration came from, so that a mistake can be shown in its place.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    pub(crate) file: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) lines: BTreeMap<String, usize>,
    /// What was put in for variables: shown by name, because any of them may be a secret.
    pub(crate) variables: BTreeMap<String, Secret>,
}

impl Origin {
    /// `lifebelt.toml:12: jobs.orders.sinks[1]: message`, as an `Invalid`.
    pub(crate) fn wrong(&self, mistake: &Mistake) -> Error {
        let mut message = if self.file.as_os_str().is_empty() {
            mistake.to_string()
        } else {
            format!(
                "{}:{}: {mistake}",
                self.file.display(),
                self.line(&mistake.path)
            )
        };
        for (name, value) in &self.variables {
            // Shorter ones would be found in innocent words, and are no secrets.
            if value.expose().len() >= 4 {
                message = message.replace(value.expose(), &format!("${{{name}}}"));
            }
        }
        Error::new(ErrorKind::Invalid, message)
    }

    /// The line of a field, or of the nearest thing around it that is in the file.
    fn line(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return 1,
            }
        }
    }
}

/// The table that describes one source, sink or target: a `type`, and fields that only the plugin
/// of this type knows.
///
/// `Debug` shows the names of the fields and no value: any of them may be a secret.
#[derive(Clone, Default)]
pub struct Options {
    table: Table,
    path: String,
    origin: Arc<Origin>,
}

impl Options {
    /// Options from code, as they would stand in a file.
    pub fn new(table: Table) -> Self {
        Self {
            table,
            ..Self::default()
        }
    }

    /// What stands behind `--to`: a `url` if it has a `://`, otherwise a `path`.
    pub(crate) fn place(kind: &str, to: &str) -> Self {
        let field = if to.contains("://") { "url" } else { "path" };
        let mut options = Self::new(Table::from_iter([
            ("type".to_owned(), Value::String(kind.to_owned())),
            (field.to_owned(), Value::String(to.to_owned())),
        ]));
        options.path = "--to".to_owned();
        options
    }

    pub(crate) fn placed(&mut self, path: String, origin: &Arc<Origin>) {
        self.path = path;
        self.origin = Arc::clone(origin);
    }

    /// The `type`; empty where it is missing.
    pub fn kind(&self) -> &str {
        self.table
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A field that is a string.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.table.get(field).and_then(Value::as_str)
    }

    /// All fields but `type`, as the struct of the plugin. Give it
    /// `#[serde(deny_unknown_fields)]`, so that a misspelt field is found.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let mut table = self.table.clone();
        table.remove("type");
        de::read(&Value::Table(table), &self.path).map_err(|m| self.origin.wrong(&m))
    }

    /// The same options with `field` filled in from `<field>_file` or `<field>_command`, if one
    /// of those is given; where `field` is a table, each of its entries. The value of a
    /// `_command` is an argv, and the secret what it prints.
    pub fn reveal(&self, field: &str) -> Result<Self> {
        let mut revealed = self.clone();
        if let Some(Value::Table(entries)) = revealed.table.get_mut(field) {
            let names: Vec<String> = entries.keys().map(|name| base(name).to_owned()).collect();
            for name in names {
                self.fill(entries, &name, &de::join(&self.path, field))?;
            }
        } else {
            self.fill(&mut revealed.table, field, &self.path)?;
        }
        Ok(revealed)
    }

    fn fill(&self, table: &mut Table, name: &str, path: &str) -> Result<()> {
        let sources = SecretFields {
            value: take(table, name, path),
            file: take(table, &format!("{name}_file"), path),
            command: take(table, &format!("{name}_command"), path),
        };
        let path = de::join(path, name);
        if let Some(secret) = sources.read(&path, &self.origin)? {
            table.insert(name.to_owned(), Value::String(secret.expose().to_owned()));
        }
        Ok(())
    }

    /// The same options with the path in `field` made absolute, seen from the folder of the
    /// configuration file. What stands behind `--to` is left as it was typed.
    #[must_use]
    pub fn absolute(&self, field: &str) -> Self {
        let mut options = self.clone();
        if let Some(path) = self.text(field).map(|path| self.resolve(path))
            && let Some(path) = path.to_str()
        {
            let path = Value::String(path.to_owned());
            options.table.insert(field.to_owned(), path);
        }
        options
    }

    /// A path of these options, seen from the folder of the configuration file.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.origin.dir.join(path)
    }

    /// The error for a field that cannot be right, with its place in the file. `field` is empty
    /// for the whole table.
    pub fn wrong(&self, field: &str, message: impl Into<String>) -> Error {
        let path = match field {
            "" => self.path.clone(),
            field => de::join(&self.path, field),
        };
        self.origin.wrong(&Mistake::at(path, message))
    }

    /// Says where `error` comes from, if it is one of configuration that does not say so itself.
    pub(crate) fn locate(&self, error: Error) -> Error {
        let own = self.wrong("", "").to_string();
        let place = own.split(':').next().unwrap_or_default();
        if error.kind() == ErrorKind::Invalid && !error.to_string().starts_with(place) {
            self.wrong("", error.chain())
        } else {
            error
        }
    }
}

fn base(name: &str) -> &str {
    name.strip_suffix("_file")
        .or_else(|| name.strip_suffix("_command"))
        .unwrap_or(name)
}

fn take<T: DeserializeOwned>(
    table: &mut Table,
    name: &str,
    path: &str,
) -> Option<Result<T, Mistake>> {
    let value = table.remove(name)?;
    Some(de::read(&value, &de::join(path, name)))
}

/// The three ways to give a secret.
pub(crate) struct SecretFields {
    pub(crate) value: Option<Result<Secret, Mistake>>,
    pub(crate) file: Option<Result<PathBuf, Mistake>>,
    pub(crate) command: Option<Result<Vec<String>, Mistake>>,
}

impl SecretFields {
    /// The secret called `path`, or `None` if it is given in no way.
    pub(crate) fn read(self, path: &str, origin: &Origin) -> Result<Option<Secret>> {
        let mistake = |m: Mistake| origin.wrong(&m);
        let given = usize::from(self.value.is_some())
            + usize::from(self.file.is_some())
            + usize::from(self.command.is_some());
        if given > 1 {
            return Err(mistake(Mistake::at(
                path,
                "given more than once; keep one of the value, the `_file` and the `_command`",
            )));
        }
        if let Some(value) = self.value {
            return value.map(Some).map_err(mistake);
        }
        if let Some(file) = self.file {
            let file = origin.dir.join(file.map_err(mistake)?);
            return secret::from_file(&file)
                .map(Some)
                .map_err(|why| mistake(Mistake::at(format!("{path}_file"), why)));
        }
        if let Some(argv) = self.command {
            return secret::from_command(&argv.map_err(mistake)?)
                .map(Some)
                .map_err(|why| mistake(Mistake::at(format!("{path}_command"), why)));
        }
        Ok(None)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("type", &self.kind())
            .field("fields", &self.table.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table
    }
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Table::deserialize(deserializer)?;
        match table.get("type") {
            Some(Value::String(_)) => Ok(Self::new(table)),
            Some(_) => Err(serde::de::Error::custom("`type` must be a string")),
            None => Err(serde::de::Error::missing_field("type")),
        }
    }
}
