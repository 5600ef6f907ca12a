//! `pg_dump` and its relatives: which ones, and how they find the server.

use std::path::{Path, PathBuf};

use backup_core::process::{Env, Program};
use backup_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::server::Server;
use crate::sql::{CONNECT, KEEPALIVES_IDLE};

/// Where PostgreSQL's programs are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Programs {
    pub(crate) bin: Option<PathBuf>,
    pub(crate) pg_dump: Option<PathBuf>,
    pub(crate) pg_restore: Option<PathBuf>,
    pub(crate) prefix: Vec<String>,
}

/// A program that was found and is new enough.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    argv: Vec<String>,
    env: Env,
    /// What it calls itself: `15.18`.
    pub(crate) version: String,
    /// On this machine, and not behind a prefix.
    pub(crate) is_local: bool,
    /// Told names: it reads no further than what they mean.
    pub(crate) chooses: bool,
    major: u32,
}

impl Tool {
    pub(crate) fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    /// What it says is to be understood by a program.
    pub(crate) fn in_english(mut self) -> Self {
        self.env = self.env.with("LC_ALL", "C");
        self
    }

    pub(crate) fn program(&self) -> Program<'_> {
        Program {
            argv: &self.argv,
            env: &self.env,
            env_clear: false,
            directory: None,
        }
    }
}

impl Programs {
    /// What `other` says, where nothing was said.
    pub(crate) fn or(self, other: Self) -> Self {
        match self == Self::default() {
            true => other,
            false => self,
        }
    }

    /// The program `name` for a server of this major version, ready to connect to `server`. An
    /// older one is `Unsupported`: it does not know what a newer server has.
    pub(crate) async fn tool(&self, name: &str, server: &Server, major: u32) -> Result<Tool> {
        let hint = format!(
            "install the client programs of PostgreSQL {major}, put them on PATH, or say where they are with `bin`"
        );
        let mut tool = self.ask(name, major, &hint).await?;
        if tool.major < major {
            let version = &tool.version;
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("`{name}` {version} is older than the server, {major}: {hint}"),
            ));
        }
        tool.argv.push("--no-password".into());
        tool.argv
            .push(format!("--dbname={}", self.conninfo(server)));
        if let Some(password) = &server.password {
            tool.env = tool.env.with("PGPASSWORD", password.expose());
        }
        Ok(tool)
    }

    /// The program `name`, for work without a server.
    pub(crate) async fn offline(&self, name: &str) -> Result<Tool> {
        let hint = "install the client programs of PostgreSQL, put them on PATH, or say where they are with `bin`";
        self.ask(name, 0, hint).await
    }

    async fn ask(&self, name: &str, major: u32, hint: &str) -> Result<Tool> {
        let argv = self.argv(name, major);
        // They lead elsewhere than our own connection, and `pg_dumpall` forgets that the address
        // was given as empty.
        let env =
            Env::default()
                .without_secrets()
                .without(["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"]);
        let asked = [argv.clone(), vec!["--version".to_owned()]].concat();
        let asked = Program {
            argv: &asked,
            env: &env,
            env_clear: false,
            directory: None,
        };
        let said = match asked.output(ErrorKind::Other) {
            Ok(output) => output.collect(4096).await,
            Err(error) => Err(error),
        };
        let said = said.map_err(|e| e.context(format!("`{name}` does not run: {hint}")))?;
        let said = String::from_utf8_lossy(&said);
        // `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
        let version = said.split_once("(PostgreSQL) ").map(|(_, rest)| rest);
        let version = version.and_then(|rest| rest.split_whitespace().next());
        let number = version.and_then(|version| {
            let digits = version.find(|c: char| !c.is_ascii_digit());
            version[..digits.unwrap_or(version.len())].parse().ok()
        });
        let (Some(version), Some(major)) = (version, number) else {
            let said = said.trim();
            let message = format!("`{name}` does not say its version but {said:?}");
            return Err(Error::new(ErrorKind::Invalid, message));
        };
        Ok(Tool {
            version: version.to_owned(),
            argv,
            env,
            major,
            is_local: self.prefix.is_empty(),
            chooses: false,
        })
    }

    fn argv(&self, name: &str, major: u32) -> Vec<String> {
        let given = match name {
            "pg_dump" => self.pg_dump.as_deref(),
            "pg_restore" => self.pg_restore.as_deref(),
            _ => None,
        };
        let found = match (given, &self.bin) {
            (Some(file), _) => file.to_owned(),
            (None, Some(folder)) => folder.join(name),
            (None, None) if self.prefix.is_empty() => packaged(name, major),
            (None, None) => name.into(),
        };
        let mut argv = self.prefix.clone();
        argv.push(found.to_string_lossy().into_owned());
        argv
    }

    /// Everything but the password, in one argument: it wins over whatever the environment says.
    /// Behind a prefix the server is at home: the program finds it as a local one.
    fn conninfo(&self, server: &Server) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: &str| {
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            text.push_str(&format!("{name}='{value}' "));
        };
        if self.prefix.is_empty() {
            add("host", &server.host);
            add("hostaddr", "");
            add("port", &server.port.to_string());
            add("sslmode", server.sslmode.word());
            if let Some(file) = &server.sslrootcert {
                add("sslrootcert", file);
            }
        }
        add("user", &server.user);
        add("application_name", "lifebelt");
        add("options", "");
        add("connect_timeout", &CONNECT.as_secs().to_string());
        add("keepalives_idle", &KEEPALIVES_IDLE.as_secs().to_string());
        add("dbname", &server.database);
        text.trim_end().to_owned()
    }
}

/// Debian, then the packages of postgresql.org for RPM systems, then `PATH`.
fn packaged(name: &str, major: u32) -> PathBuf {
    let folders = [
        format!("/usr/lib/postgresql/{major}/bin"),
        format!("/usr/pgsql-{major}/bin"),
    ];
    let mut files = folders.iter().map(|folder| Path::new(folder).join(name));
    files
        .find(|file| file.exists())
        .unwrap_or_else(|| name.into())
}
