use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use backup_core::process::{Exit, Program};
use backup_core::{
    ByteStream, Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target,
    async_trait,
};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::{CommandTarget, KIND};

/// The longest that an `empty_check` may take.
const CHECK: Duration = Duration::from_secs(60);

impl fmt::Display for CommandTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program(&self.argv).name())
    }
}

#[async_trait]
impl Target for CommandTarget {
    fn kind(&self) -> &str {
        KIND
    }

    /// Nobody can know what a program replaces: occupied, unless an `empty_check` says no.
    async fn occupancy(&self) -> Result<Occupancy> {
        match &self.empty_check {
            Some(argv) => self.ask(argv).await,
            None => Ok(Occupancy::Holds(format!("whatever `{self}` replaces"))),
        }
    }

    /// A program acts on what it reads at once.
    fn publishes_atomically(&self) -> bool {
        false
    }

    /// The program must read everything and exit with status 0. When the part ends in an error or
    /// the future is dropped it is killed, and may have done half of its work.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        options.no_extra(KIND)?;
        let part = only_part(self.part.as_deref(), parts)?;
        let fed = self.feed(parts.open(&part).await?);
        match self.timeout {
            Some(limit) => timeout(limit.into(), fed).await.unwrap_or_else(|_| {
                let message = format!("`{self}` ran longer than {limit}");
                Err(Error::new(ErrorKind::Other, message))
            }),
            None => fed.await,
        }
    }
}

impl CommandTarget {
    fn program<'a>(&'a self, argv: &'a [String]) -> Program<'a> {
        Program {
            argv,
            env: &self.env,
            env_clear: self.env_clear,
            directory: self.directory.as_deref(),
        }
    }

    pub(crate) async fn feed(&self, data: ByteStream) -> Result<()> {
        self.program(&self.argv).feed(data).await
    }

    async fn ask(&self, argv: &[String]) -> Result<Occupancy> {
        let program = self.program(argv);
        let name = program.name();
        let (mut child, stdout) = program.start(Stdio::null(), Stdio::piped())?;
        let answer = async {
            let mut said = Vec::new();
            if let Some(stdout) = stdout {
                stdout
                    .take(4096)
                    .read_to_end(&mut said)
                    .await
                    .map_err(|e| child.broken(e))?;
            }
            match child.exit().await {
                Exit::Status(0) => Ok(Occupancy::Empty),
                Exit::Status(1) => Ok(Occupancy::Holds(first_line(&said, name))),
                exit => {
                    child.check(exit, ErrorKind::Other).await?;
                    Ok(Occupancy::Empty)
                }
            }
        };
        timeout(CHECK, answer).await.unwrap_or_else(|_| {
            let message = format!("`{name}` did not tell within {CHECK:?} what a restore replaces");
            Err(Error::new(ErrorKind::Other, message))
        })
    }
}

fn first_line(said: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect();
    line.map_or_else(|| format!("something, says `{name}`"), clean)
}

/// The part that was asked for, or the only one.
pub(crate) fn only_part(wanted: Option<&str>, parts: &PartReader) -> Result<String> {
    let mut names = parts.names();
    match (wanted, names.next(), names.next()) {
        (Some(name), ..) => Ok(name.to_owned()),
        (None, Some(name), None) => Ok(name.to_owned()),
        _ => {
            let names: Vec<&str> = parts.names().collect();
            let message = match names.as_slice() {
                [] => "the backup has no part".to_owned(),
                names => format!("which part? the backup has {}", names.join(", ")),
            };
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}
