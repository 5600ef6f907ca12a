//! `RESTORE.md`, run as it stands, with stock tools alone on `PATH`, ends with the same data, or
//! fails.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, UNIX_EPOCH};

use backup_core::testing::noise;
use backup_core::transform::Gzip;
use backup_core::{
    Facts, Job, JobBuilder, MemorySource, PartWriter, Pipeline, Request, RestoreStep, RunOptions,
    Source, async_trait,
};
use lifebelt_tests::{Keys, job};
use sink_fs::FsSink;
use store_files::Files;

#[path = "stock_tools/etcd.rs"]
mod etcd;
#[path = "stock_tools/opensearch.rs"]
mod opensearch;
#[path = "stock_tools/postgres.rs"]
mod postgres;
#[path = "stock_tools/redis.rs"]
mod redis;

/// What a POSIX shell has with it. Everything else must be named by the instructions.
const USUAL: [&str; 7] = ["cat", "dd", "grep", "mktemp", "rm", "sed", "sh"];

/// The one line that the instructions give to run them all.
const ALL: &str = r"sed -n '/^```sh$/,/^```$/{/^```/!p;}' RESTORE.md | sh";

/// A backup in a folder of its own, as somebody finds it who has no more than that and the keys.
struct Found {
    folder: tempfile::TempDir,
    environment: BTreeMap<&'static str, String>,
}

impl Found {
    /// Makes a backup and leaves nothing but its folder and the keys.
    async fn of(job: JobBuilder, keys: &Keys, store: &Path) -> Self {
        let job = job.build().unwrap();
        let report = job.run(RunOptions::default()).await.unwrap();
        let own = store.join(job.name()).join(report.id.as_str());
        let folder = tempfile::tempdir().unwrap();
        copy(&own, &folder.path().join("backup"));
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let found = Self {
            environment: BTreeMap::new(),
            folder,
        };
        let (identity, public) = (found.at("identity.txt"), found.at("minisign.pub"));
        fs::write(&identity, keys.age.identity.expose()).unwrap();
        fs::write(&public, keys.signing.public().to_text()).unwrap();
        let target = found.at("target");
        let found = found
            .set("IDENTITY", identity.display())
            .set("PUBLIC_KEY", public.display())
            .set("TARGET", target.display());
        found.link_tools(&[]);
        found
    }

    fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.insert(name, value.to_string());
        self
    }

    fn without_keys(mut self) -> Self {
        self.environment.retain(|name, _| *name == "TARGET");
        self
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn instructions(&self) -> String {
        fs::read_to_string(self.at("backup/RESTORE.md")).unwrap()
    }

    /// A folder for `PATH` with the usual tools and those that the instructions name, from the
    /// folders `first` or else from the system.
    fn link_tools(&self, first: &[PathBuf]) {
        let text = self.instructions();
        let (_, named) = text.split_once("usual tools, ").unwrap();
        let named = named.split('\n').next().unwrap();
        let named = named.trim_end_matches('.').split(", ");
        let named = named.map(|name| name.trim_matches('`'));
        let bin = self.at("bin");
        let _ = fs::remove_dir_all(&bin);
        fs::create_dir(&bin).unwrap();
        for name in named.chain(USUAL) {
            let from = find(name, first);
            let _ = symlink(from, bin.join(name));
        }
    }

    /// Runs all commands.
    fn run(&self) -> Output {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", ALL])
            .current_dir(self.at("backup"))
            .env_clear()
            .env("PATH", self.at("bin"))
            .env("TMPDIR", self.at("tmp"))
            .envs(&self.environment);
        shell.output().unwrap()
    }

    /// Whether the commands say that all of it is back.
    fn restored(&self) -> Result<(), String> {
        let output = self.run();
        let left: Vec<_> = fs::read_dir(self.at("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?} stays behind");
        let said = String::from_utf8_lossy(&output.stdout);
        let last = said.lines().last().unwrap_or_default();
        match output.status.success() && last.starts_with("restored ") {
            true => Ok(()),
            false => Err(shown(self, &output)),
        }
    }

    fn restores(&self) {
        let text = self.instructions();
        assert!(text.contains(&format!("    {ALL}\n")), "{text}");
        self.restored().unwrap_or_else(|said| panic!("{said}"));
    }

    /// Fails, and before anything is in the target.
    fn refuses(&self, what: &str) {
        assert!(self.restored().is_err(), "{what} was restored");
        let target = fs::read_dir(self.at("target")).unwrap().count();
        assert_eq!(target, 0, "{what} reached the target");
    }
}

fn shown(found: &Found, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{}\n{}{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr),
        text(&fs::read(found.at("backup/RESTORE.md")).unwrap_or_default())
    )
}

/// Where the system has a program.
fn find(name: &str, first: &[PathBuf]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut folders = first.iter().cloned().chain(std::env::split_paths(&path));
    let found = folders.find(|folder| folder.join(name).is_file());
    found
        .unwrap_or_else(|| panic!("`{name}` is missing: scripts/services install tools"))
        .join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Everything that a backup of a folder promises to keep: path to kind, mode, time, links, bytes.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut entries = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut inside: Vec<_> = fs::read_dir(&folder).unwrap().map(Result::unwrap).collect();
        inside.sort_by_key(fs::DirEntry::path);
        for entry in inside {
            let (path, known) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().to_owned();
            let what = if known.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if known.is_symlink() {
                format!("link to {:?}", fs::read_link(&path).unwrap())
            } else {
                let first = first_names.entry(known.ino()).or_insert(name.clone());
                let bytes = fs::read(&path).unwrap();
                format!(
                    "file {:?}, also {first:?}",
                    bytes.escape_ascii().to_string()
                )
            };
            // The mode of a link means nothing.
            let mode = if known.is_symlink() { 0 } else { known.mode() };
            let line = format!("{what} {mode:o} {} {}", known.uid(), known.mtime());
            entries.insert(name, line);
        }
    }
    entries
}

/// A folder with what folders have.
fn odd_folder(root: &Path) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    fs::create_dir_all(root.join("a/b/c/empty")).unwrap();
    fs::write(root.join("a/b/c/deep.txt"), "deep").unwrap();
    fs::write(root.join("a/nothing"), "").unwrap();
    fs::write(root.join("noise"), noise(300_000, 7)).unwrap();
    for name in ["-rf", "with space", "quote'\"$x`", "new\nline", "ünï", "*"] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"not \xff utf-8")), "odd").unwrap();
    fs::write(root.join("l".repeat(250)), "long").unwrap();
    symlink("a/b", root.join("to-folder")).unwrap();
    symlink("/nowhere/at all", root.join("to-nothing")).unwrap();
    fs::hard_link(root.join("noise"), root.join("a/again")).unwrap();
    let mode = |name, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("a/nothing", 0o4755);
    mode("noise", 0o600);
    mode("a/b/c/empty", 0o1777);
    mode("a/b", 0o500);
    let file = fs::File::open(root.join("noise")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .unwrap();
}

fn rows() -> String {
    (0..40_000).map(|n| format!("{n},anvil {n}\n")).collect()
}

/// Prints a file, as any program would that makes a dump.
fn dump(folder: &Path, bytes: &[u8]) -> store_command::Command {
    let path = folder.join("rows.csv");
    fs::write(&path, bytes).unwrap();
    store_command::Command::new(["cat", path.to_str().unwrap()]).part("rows.csv")
}

#[tokio::test]
async fn a_folder_comes_back_with_all_that_is_in_it() {
    let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
    let (root, store) = (work.path().join("root"), work.path().join("store"));
    odd_folder(&root);
    let job = job("uploads", &keys, &store).source(Files::new(&root));
    let found = Found::of(job, &keys, &store).await;
    found.restores();
    let (before, after) = (tree(&root), tree(&found.at("target")));
    assert_eq!(before, after);
    assert!(before.len() > 15);
}

#[tokio::test]
async fn a_program_s_output_comes_back_through_gzip_and_age() {
    let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
    let store = work.path().join("store");
    let age = backup_core::transform::Age::to([&keys.age.recipient]).unwrap();
    let pipeline = Pipeline::encrypted(age)
        .compress(Gzip::level(6))
        .sign(keys.signing.clone());
    let job = job("shop", &keys, &store)
        .pipeline(pipeline)
        .source(dump(work.path(), rows().as_bytes()));
    let found = Found::of(job, &keys, &store).await;
    let target = found.at("target/rows.csv");
    let found = found.set("TARGET", target.display());
    found.restores();
    assert_eq!(fs::read_to_string(target).unwrap(), rows());
}

#[tokio::test]
async fn several_objects_and_an_empty_part_come_back() {
    let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
    let bytes = noise(300_000, 3);
    let parts = [("noise", bytes.clone()), ("empty", bytes.slice(..0))];
    let job = job("orders", &keys, work.path())
        .pipeline(keys.pipeline().object_size(65_536))
        .source(MemorySource::new(parts));
    let found = Found::of(job, &keys, work.path()).await;
    let objects = fs::read_dir(found.at("backup")).unwrap();
    let objects = objects.filter(|o| {
        let name = o.as_ref().unwrap().file_name();
        name.to_str().unwrap().starts_with("noise.zst.age.0")
    });
    assert_eq!(objects.count(), 4, "five objects");
    found.restores();
    assert_eq!(fs::read(found.at("target/noise")).unwrap(), bytes);
    assert_eq!(fs::read(found.at("target/empty")).unwrap(), b"");
}

#[tokio::test]
async fn without_keys_and_codecs_it_comes_back_as_well() {
    let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
    let (root, store) = (work.path().join("root"), work.path().join("store"));
    odd_folder(&root);
    let job = Job::builder("plain")
        .pipeline(Pipeline::unencrypted())
        .sink("disk", FsSink::new(&store))
        .source(Files::new(&root));
    let found = Found::of(job, &keys, &store).await.without_keys();
    found.restores();
    assert_eq!(tree(&root), tree(&found.at("target")));
}

/// A source that says nothing of how its parts come back.
#[derive(Debug)]
struct NoSteps;

const PARTS: [(&str, &str); 2] = [("+plus-", "plus"), ("a", "a")];

#[async_trait]
impl Source for NoSteps {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn backup(&self, request: &Request, out: &PartWriter) -> backup_core::Result<Facts> {
        MemorySource::new(PARTS).backup(request, out).await
    }

    fn restore_steps(&self) -> Vec<RestoreStep> {
        Vec::new()
    }
}

#[tokio::test]
async fn parts_without_a_step_become_files() {
    let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
    let job = job("orders", &keys, work.path()).source(NoSteps);
    let found = Found::of(job, &keys, work.path()).await;
    found.restores();
    for (name, bytes) in PARTS {
        let path = found.at("target").join(name);
        assert_eq!(fs::read_to_string(path).unwrap(), bytes);
    }
}

/// Signed and encrypted, and with nothing but the checksums.
async fn small_backups() -> [Found; 2] {
    let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
    let source = || MemorySource::new([("rows.csv", rows()), ("noise", "x".repeat(200_000))]);
    let full = job("orders", &keys, work.path()).source(source());
    let plain = job("plain", &keys, work.path())
        .pipeline(Pipeline::unencrypted())
        .source(source());
    [
        Found::of(full, &keys, work.path()).await,
        Found::of(plain, &keys, work.path()).await.without_keys(),
    ]
}

#[tokio::test]
async fn a_damaged_file_is_refused_before_the_target_is_touched() {
    let mut damages = 0;
    for found in small_backups().await {
        for entry in fs::read_dir(found.at("backup")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let whole = fs::read(&path).unwrap();
            // Signatures of parts are for tools that look at one file: SHA256SUMS says more.
            let documents = ["manifest.json.minisig", "SHA256SUMS.minisig"];
            if name.ends_with(".minisig") && !documents.contains(&name.as_str()) {
                continue;
            }
            // The first line of a signature is a comment that nobody signs.
            let first = match name.ends_with(".minisig") {
                true => whole.iter().position(|b| *b == b'\n').unwrap() + 1,
                false => 0,
            };
            for at in [first, (first + whole.len()) / 2, whole.len() - 2] {
                let mut changed = whole.clone();
                changed[at] ^= 1;
                fs::write(&path, &changed).unwrap();
                found.refuses(&format!("{name} with another byte at {at}"));
                // Once in eight times the hash began with a digit that this made none, and
                // sha256sum skips a line that is not of its form.
                changed[at] = if whole[at] == b'~' { b'}' } else { b'~' };
                fs::write(&path, changed).unwrap();
                found.refuses(&format!("{name} with ~ at {at}"));
                fs::write(&path, &whole[..at]).unwrap();
                found.refuses(&format!("{name} cut at {at}"));
                damages += 2;
            }
            fs::remove_file(&path).unwrap();
            found.refuses(&format!("a backup without {name}"));
            fs::write(&path, whole).unwrap();
        }
        found.restores();
    }
    assert!(damages > 50, "{damages}");
}

#[tokio::test]
async fn another_backup_s_documents_and_another_key_are_refused() {
    let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
    let make = |text: &'static str| {
        job("orders", &keys, work.path()).source(MemorySource::new([("rows.csv", text)]))
    };
    let found = Found::of(make("1,anvil"), &keys, work.path()).await;
    let other = Found::of(make("2,rope"), &keys, work.path()).await;
    found.restores();
    fs::remove_file(found.at("target/rows.csv")).unwrap();
    // All but the instructions, that is, signed by the right key, but for something else.
    for name in ["manifest.json", "SHA256SUMS"] {
        for end in ["", ".minisig"] {
            let name = format!("{name}{end}");
            fs::rename(found.at("backup").join(&name), found.at(&name)).unwrap();
            fs::copy(
                other.at("backup").join(&name),
                found.at("backup").join(&name),
            )
            .unwrap();
        }
        found.refuses(&format!("another backup's {name}"));
        for end in ["", ".minisig"] {
            let name = format!("{name}{end}");
            fs::rename(found.at(&name), found.at("backup").join(&name)).unwrap();
        }
    }
    let stranger = Keys::new().signing.public().to_text();
    fs::write(found.at("minisign.pub"), stranger).unwrap();
    found.refuses("a stranger's signature");
}

#[tokio::test]
async fn a_command_that_fails_only_while_it_restores_is_noticed() {
    // dash and older shells look at the last command of a pipe alone: a decoder that died half
    // way, after the checks, must not leave half a restore that looks like a whole one.
    for found in small_backups().await {
        let text = found.instructions();
        let tools: Vec<&str> = ["cat", "age", "zstd"]
            .into_iter()
            .filter(|tool| text.contains(&format!("try {tool} ")))
            .collect();
        assert!(tools.contains(&"cat"));
        for tool in tools {
            let (real, fake) = (find(tool, &[]), found.at("bin").join(tool));
            let calls = found.at("calls");
            // There are two parts: the third call is the first one that restores.
            let script = format!(
                "#!/bin/sh\necho x >>{calls}\n[ $(/usr/bin/wc -l <{calls}) != 3 ] && exec {real} \"$@\"\n\
                 {real} \"$@\" | /usr/bin/head -c 10\nexit 3\n",
                calls = calls.display(),
                real = real.display(),
            );
            fs::remove_file(&fake).unwrap();
            fs::write(&fake, script).unwrap();
            fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
            let said = found.restored().expect_err(tool);
            assert!(said.contains(&format!("failed: {tool} ")), "{said}");
            found.link_tools(&[]);
            fs::remove_file(calls).unwrap();
        }
        found.restores();
    }
}
