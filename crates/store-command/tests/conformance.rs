//! Every promise of a source and a target, kept by programs and files.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::testing::noise;
use backup_core::testing::source::SourceFixture;
use backup_core::testing::target::TargetFixture;
use backup_core::{Source, Target, async_trait};
use store_command::{Command, CommandTarget, FileTarget};
use tempfile::TempDir;

const SECRET: &str = "correct horse battery staple";

/// The file `from` is backed up by a program, `to` is restored into by a program or without one.
struct Place {
    folder: TempDir,
    by_program: bool,
}

impl Place {
    fn new(by_program: bool) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            by_program,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, script: &str) -> Command {
        let from = self.path("from").display().to_string();
        Command::new(["sh", "-c", script, "sh", &from]).env("PASSWORD", SECRET)
    }
}

#[async_trait]
impl SourceFixture for Place {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.program("cat \"$1\""))
    }

    async fn seed(&self) -> String {
        fs::write(self.path("from"), noise(5_000_001, 1)).unwrap();
        fingerprint(&self.path("from"))
    }

    async fn break_midway(&self) -> Arc<dyn Source> {
        Arc::new(self.program("head -c 2000000 \"$1\"; echo wrong: $PASSWORD >&2; exit 1"))
    }

    /// Programs that name the folder in their arguments, and hidden files in it.
    async fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let arguments = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).into_owned();
            if arguments.contains(&*self.folder.path().to_string_lossy()) {
                left.push(arguments);
            }
        }
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with('.') {
                left.push(name);
            }
        }
        left
    }

    fn secret(&self) -> Option<String> {
        Some(SECRET.to_owned())
    }
}

#[async_trait]
impl TargetFixture for Place {
    fn target(&self) -> Arc<dyn Target> {
        let to = self.path("to").display().to_string();
        if !self.by_program {
            return Arc::new(FileTarget::new(to));
        }
        let program = CommandTarget::new(["sh", "-c", "cat > \"$1\"", "sh", &to])
            .empty_check(["test", "!", "-s", &to])
            .env("PASSWORD", SECRET);
        Arc::new(program)
    }

    async fn wipe(&self) {
        let _ = fs::remove_file(self.path("to"));
    }

    async fn fingerprint(&self) -> String {
        fingerprint(&self.path("to"))
    }
}

fn fingerprint(file: &Path) -> String {
    let sum = std::process::Command::new("sha256sum")
        .stdin(fs::File::open(file).unwrap())
        .output();
    String::from_utf8(sum.unwrap().stdout).unwrap()
}

backup_core::testing::source!(command, async { Place::new(true) });
backup_core::testing::target!(program, async { Place::new(true) });
backup_core::testing::target!(file, async { Place::new(false) });
