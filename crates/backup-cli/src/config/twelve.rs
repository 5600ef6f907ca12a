//! A configuration out of variables alone: a Postgres database that is dumped into a folder, as
//! scripts around `pg_dump` have it.

use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;

use backup_core::{Error, ErrorKind, Key, Result};

use super::Loaded;
use super::environment::Environment;
use crate::Registry;

/// Fields of the source, and the variables that give them.
const SOURCE: [(&str, &[&str]); 10] = [
    ("url", &["DATABASE_URL"]),
    ("host", &["PGHOST", "POSTGRES_HOST"]),
    ("port", &["PGPORT", "POSTGRES_PORT"]),
    ("user", &["PGUSER", "POSTGRES_USER"]),
    ("password", &["PGPASSWORD", "POSTGRES_PASSWORD"]),
    ("database", &["PGDATABASE", "POSTGRES_DB"]),
    ("sslmode", &["PGSSLMODE"]),
    ("sslrootcert", &["PGSSLROOTCERT"]),
    ("pg_dump", &["BACKUP_PGDUMP_PATH"]),
    ("pg_restore", &["BACKUP_PGRESTORE_PATH"]),
];

/// Fields of `[keys]` that name files.
const KEYS: [(&str, &[&str]); 2] = [
    ("identity_file", &["LIFEBELT_IDENTITY_FILE"]),
    ("signing_key_file", &["LIFEBELT_SIGNING_KEY_FILE"]),
];

/// The longer of what such scripts have (7, 14): a default must not delete more than anybody expects.
const RETENTION_DAYS: &str = "14";

impl Loaded {
    /// The configuration that the environment, and `.env` in this folder, spell out; `None` where
    /// they name no database. One job, called like the database. Two variables for one thing that
    /// differ are `Invalid`.
    pub(crate) fn from_environment(registry: &Registry) -> Result<Option<Self>> {
        let dir = std::env::current_dir().map_err(|e| Error::io("this folder", e))?;
        let environment = Environment::beside(&dir)?;
        let Some(text) = Variables(&environment).configuration()? else {
            return Ok(None);
        };
        Self::parse(&text, Path::new(""), dir, environment, registry).map(Some)
    }
}

struct Variables<'a>(&'a Environment);

impl Variables<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let value = self.0.get(name)?.expose().to_owned();
        (!value.is_empty()).then_some(value)
    }

    /// The one of `names` that is set. Several must say the same.
    fn one(&self, names: &[&'static str]) -> Result<Option<(&'static str, String)>> {
        let mut found: Option<(&str, String)> = None;
        for name in names {
            let Some(value) = self.value(name) else {
                continue;
            };
            match &found {
                Some((other, known)) if *known != value => {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!(
                            "variables {other} and {name} say different things: unset one of them"
                        ),
                    ));
                }
                _ => found = Some((name, value)),
            }
        }
        Ok(found)
    }

    /// `field = "${NAME}"` for each field that has a variable: values stay out of the text, and so
    /// out of every error.
    fn fields(&self, fields: &[(&str, &[&'static str])], between: &str) -> Result<String> {
        let mut lines = Vec::new();
        for (field, names) in fields {
            if let Some((name, value)) = self.one(names)? {
                lines.push(match *field {
                    "port" => format!("port = {}", number::<u16>(name, &value)?),
                    _ => format!("{field} = \"${{{name}}}\""),
                });
            }
        }
        Ok(lines.join(between))
    }

    /// Quoted words of a variable that holds several.
    fn words(&self, name: &str) -> String {
        let value = self.value(name).unwrap_or_default();
        let words = value.split([',', ' ']).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(|word| format!("{word:?}")).collect();
        words.join(", ")
    }

    fn configuration(&self) -> Result<Option<String>> {
        let url = self.value("DATABASE_URL");
        let database = self.one(&["PGDATABASE", "POSTGRES_DB"])?;
        if url.is_none() && database.is_none() {
            return Ok(None);
        }
        let mut text = String::new();
        if self.value("LIFEBELT_STATE_DIR").is_some() {
            text.push_str("state_dir = \"${LIFEBELT_STATE_DIR}\"\n");
        }
        let _ = writeln!(
            text,
            "[keys]\nrecipients = [{}]\ntrusted_keys = [{}]\n{}",
            self.words("LIFEBELT_RECIPIENTS"),
            self.words("LIFEBELT_TRUSTED_KEYS"),
            self.fields(&KEYS, "\n")?,
        );
        text.push_str("[sinks.local]\ntype = \"fs\"\npath = \"${BACKUP_DIR:-backups}\"\n");
        let name = database.map(|(_, name)| name).or_else(|| {
            let path = url?.split_once("://")?.1.split_once('/')?.1.to_owned();
            path.split('?').next().map(str::to_owned)
        });
        let name = name.filter(|name| Key::check(name).is_ok());
        let _ = writeln!(
            text,
            "[jobs.{:?}]\nsource = {{ type = \"postgres\", {} }}\nsinks = [\"local\"]\n\
             schedule = \"${{BACKUP_SCHEDULE_CRON:-0 2 * * *}}\"\nretention = {{ days = {} }}",
            name.as_deref().unwrap_or("postgres"),
            self.fields(&SOURCE, ", ")?,
            self.retention()?,
        );
        if self.value("LABEL").is_some() {
            text.push_str("labels = [\"${LABEL}\"]\n");
        }
        if self.value("LIFEBELT_UNENCRYPTED").as_deref() == Some("1") {
            text.push_str("unencrypted = true\n");
        } else if self.words("LIFEBELT_RECIPIENTS").is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "nothing encrypts this backup: set LIFEBELT_RECIPIENTS to the age1… line that \
                 `lifebelt keygen DIR` prints, or LIFEBELT_UNENCRYPTED=1",
            ));
        }
        Ok(Some(text))
    }

    fn retention(&self) -> Result<String> {
        match self.one(&["BACKUP_RETENTION_DAYS", "RETENTION_DAYS"])? {
            Some((name, days)) => Ok(number::<u32>(name, &days)?.to_string()),
            None => Ok(RETENTION_DAYS.to_owned()),
        }
    }
}

/// The number that the variable `name` holds.
fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| {
        let message = format!("variable {name} is no number that could be meant: change it");
        Error::new(ErrorKind::Invalid, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(variables: &str) -> Result<Option<String>> {
        let environment = Environment::of(variables);
        let text = Variables(&environment).configuration()?;
        // What is written must be what can be read.
        if let Some(text) = &text {
            let registry = Registry::standard();
            Loaded::parse(text, Path::new(""), "/srv".into(), environment, &registry)?;
        }
        Ok(text)
    }

    const DATABASE: &str = "LIFEBELT_UNENCRYPTED=1\nPOSTGRES_HOST=db.internal\nPOSTGRES_DB=cleaning\n\
                            POSTGRES_USER=backup\nPOSTGRES_PASSWORD=canary\n";

    #[test]
    fn the_variables_of_scripts_around_pg_dump_are_a_job() {
        let text = configuration(DATABASE).unwrap().unwrap();
        assert!(text.contains("[jobs.\"cleaning\"]"), "{text}");
        assert!(text.contains("days = 14"), "{text}");
        assert!(!text.contains("canary"), "{text}");
        let more = "BACKUP_DIR=/var/backups/clean\nRETENTION_DAYS=30\nBACKUP_SCHEDULE_CRON='0 */6 * * *'\n\
                    LABEL=pre-migration\nBACKUP_PGDUMP_PATH=/opt/pg/bin/pg_dump\nPGPORT=6432\n";
        let text = configuration(&format!("{DATABASE}{more}"))
            .unwrap()
            .unwrap();
        assert!(
            text.contains("days = 30") && text.contains("port = 6432"),
            "{text}"
        );
        let url = "LIFEBELT_UNENCRYPTED=1\nDATABASE_URL=postgresql+asyncpg://u:canary@h/orders?sslmode=require\n";
        let text = configuration(url).unwrap().unwrap();
        assert!(text.contains("[jobs.\"orders\"]") && !text.contains("canary"));
        assert_eq!(configuration("BACKUP_DIR=/x").unwrap(), None);
    }

    #[test]
    fn variables_that_disagree_are_named_and_their_values_are_not() {
        for (wrong, named) in [
            (
                "RETENTION_DAYS=14\nBACKUP_RETENTION_DAYS=7",
                "BACKUP_RETENTION_DAYS",
            ),
            ("PGPASSWORD=other", "POSTGRES_PASSWORD"),
            ("PGHOST=elsewhere", "POSTGRES_HOST"),
            (
                "DATABASE_URL=postgres://backup:other@db.internal/cleaning",
                "password",
            ),
            ("BACKUP_RETENTION_DAYS=soon", "BACKUP_RETENTION_DAYS"),
            ("BACKUP_SCHEDULE_CRON=soon", "schedule"),
            ("PGPORT=canary", "PGPORT"),
        ] {
            let error = match configuration(&format!("{DATABASE}{wrong}\n")) {
                Err(error) => error,
                // The source itself compares the URL with what stands beside it.
                Ok(text) => source_error(&text.unwrap(), &format!("{DATABASE}{wrong}\n")),
            };
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
            let text = error.chain();
            assert!(text.contains(named) && !text.contains("canary"), "{text}");
        }
        let error = configuration("POSTGRES_DB=d\nPOSTGRES_USER=u\n").unwrap_err();
        assert!(error.to_string().contains("LIFEBELT_RECIPIENTS"), "{error}");
    }

    fn source_error(text: &str, variables: &str) -> Error {
        let registry = Registry::standard();
        let environment = Environment::of(variables);
        let loaded = Loaded::parse(text, Path::new(""), "/srv".into(), environment, &registry);
        let job = &loaded.unwrap().config.jobs["cleaning"];
        registry.make_source(&job.source).unwrap_err()
    }
}
