//! A folder with keys, data and a configuration, and the program run in it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub struct Place {
    dir: TempDir,
}

/// What the program said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.err.contains("internal error"), "{self:?}");
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Two folders as sinks, and a job that backs up what `cat data` prints.
const JOB: &str = r#"
[sinks.local]
type = "fs"
path = "local"
[sinks.offsite]
type = "fs"
path = "offsite"
[jobs.orders]
source = { type = "command", argv = ["cat", "data"], directory = "." }
sinks = ["local", "offsite"]
retention = { last = 2 }
"#;

impl Place {
    /// With fresh keys and [`JOB`].
    pub fn new() -> Self {
        let place = Self::empty();
        place.write("lifebelt.toml", &format!("{}{JOB}", place.keys()));
        place
    }

    /// With fresh keys, data, and no configuration.
    pub fn empty() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        place.run(&["keygen", "keys"]).ends(0);
        place.write("data", &"7,anvil\n".repeat(50_000));
        place
    }

    /// The top of a configuration: state and keys.
    pub fn keys(&self) -> String {
        let public = self.read("keys/minisign.pub");
        format!(
            "state_dir = \"state\"\n[keys]\nrecipients = [\"{}\"]\ntrusted_keys = [\"{}\"]\n\
             identity_file = \"keys/identity.txt\"\nsigning_key_file = \"keys/minisign.key\"\n",
            self.read("keys/recipient.txt").trim(),
            public.lines().nth(1).unwrap(),
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Replaces a piece of the configuration.
    pub fn edit(&self, piece: &str, instead: &str) {
        let text = self.read("lifebelt.toml");
        assert!(text.contains(piece), "{piece} in {text}");
        self.write("lifebelt.toml", &text.replacen(piece, instead, 1));
    }

    /// Puts lines before the first table.
    pub fn prepend(&self, lines: &str) {
        let text = self.read("lifebelt.toml");
        self.write("lifebelt.toml", &format!("{lines}\n{text}"));
    }

    /// Makes a pipe called `pipe`, from which nothing ever comes.
    pub fn pipe(&self) {
        let made = Command::new("mkfifo").arg(self.path("pipe")).status();
        assert!(made.unwrap().success());
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifebelt"));
        for name in ["ENV", "LIFEBELT_CONFIG", "LIFEBELT_LOG", "RUST_LOG"] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Makes one backup and tells its id.
    pub fn backup(&self) -> String {
        let said = self.run(&["run", "orders", "--json"]).ends(0);
        said.json()["id"].as_str().unwrap().to_owned()
    }

    /// Ids of the backups that the program lists.
    pub fn ids(&self) -> Vec<String> {
        let rows = self.run(&["ls", "--json"]).ends(0).json();
        let rows = rows.as_array().unwrap();
        let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
        rows.iter().map(id).collect()
    }

    /// Flips one byte in the middle of a file.
    pub fn damage(&self, name: &str) {
        let path = self.path(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    /// Every file below a folder, with its bytes.
    pub fn files(&self, folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
            let Ok(entries) = std::fs::read_dir(dir) else {
                return;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, all),
                    false => all.push((path.clone(), std::fs::read(&path).unwrap())),
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.path(folder), &mut all);
        all.sort();
        all
    }
}

/// Waits until something is so; a test that waits for a minute has failed.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come to be");
        std::thread::sleep(Duration::from_millis(5));
    }
}
