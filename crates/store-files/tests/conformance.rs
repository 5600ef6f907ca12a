//! Every promise of a source and a target, kept by folders.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use backup_core::testing::noise;
use backup_core::testing::source::SourceFixture;
use backup_core::testing::target::TargetFixture;
use backup_core::{Source, Target, async_trait};
use store_files::{Files, Folder};
use tempfile::TempDir;

/// `from` is backed up, `to` is restored into.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.0.path().join("from")).unwrap();
        place
    }
}

#[async_trait]
impl SourceFixture for Place {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(Files::new(self.0.path().join("from")))
    }

    async fn seed(&self) -> String {
        let root = self.0.path().join("from");
        fs::create_dir_all(root.join("empty/inner")).unwrap();
        fs::create_dir_all(root.join("many")).unwrap();
        for n in 0..300 {
            fs::write(root.join(format!("many/{n}")), noise(n * 10, n as u64)).unwrap();
        }
        fs::write(root.join("big"), noise(4_000_000, 1)).unwrap();
        fs::write(root.join("  -odd\n ünï"), "odd").unwrap();
        fs::write(root.join("nothing"), "").unwrap();
        fs::hard_link(root.join("big"), root.join("same")).unwrap();
        symlink("big", root.join("link")).unwrap();
        fingerprint(&root)
    }

    /// Folders within folders, deeper than can be backed up, come after everything else.
    async fn break_midway(&self) -> Arc<dyn Source> {
        let mut deep = self.0.path().join("from/zz");
        for _ in 0..600 {
            deep.push("d");
        }
        fs::create_dir_all(deep).unwrap();
        self.source()
    }

    async fn leftovers(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

#[async_trait]
impl TargetFixture for Place {
    fn target(&self) -> Arc<dyn Target> {
        Arc::new(Folder::new(self.0.path().join("to")))
    }

    async fn wipe(&self) {
        let _ = fs::remove_dir_all(self.0.path().join("to"));
    }

    async fn fingerprint(&self) -> String {
        fingerprint(&self.0.path().join("to"))
    }
}

/// One line for each entry, sorted.
fn fingerprint(root: &Path) -> String {
    let run = |script: &str| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script])
            .current_dir(root)
            .output()
            .unwrap()
            .stdout
    };
    // Sizes of folders are their file system's affair, fractions of a second are not kept.
    let entries = run("find . -printf '%p %y %m %n %Ts %l\\n' | sort");
    let sums = run("find . -type f -exec sha256sum {} + | sort");
    String::from_utf8([entries, sums].concat()).unwrap()
}

backup_core::testing::source!(files, async { Place::new() });
backup_core::testing::target!(folder, async { Place::new() });
