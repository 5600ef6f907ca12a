//! Real folders there and back, with stock tar on either side, and archives that mean harm.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use backup_core::{
    ByteStream, ErrorKind, Facts, Job, MemorySink, MemorySource, MemoryTarget, Occupancy,
    PartWriter, Pipeline, Request, RestoreRequest, Result, RunOptions, Source, Target,
};
use bytes::Bytes;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps};
use store_files::{Files, Folder};
use tokio::task::unconstrained;

fn job(source: impl Source) -> Job {
    Job::builder("job")
        .source(source)
        .pipeline(Pipeline::unencrypted())
        .sink("memory", MemorySink::new())
        .build()
        .unwrap()
}

/// The tar of a folder, and the facts.
async fn archive(source: Files) -> Result<(Bytes, Facts)> {
    let job = job(source);
    let id = job.run(RunOptions::default()).await?.id;
    let target = MemoryTarget::of_kind("files");
    job.restore(&id, &target, RestoreRequest::default()).await?;
    let facts = job.find(id.as_str()).await?.manifest.facts.clone();
    Ok((target.parts()["files.tar"].clone(), facts))
}

/// Hands out bytes as if a folder had been backed up.
#[derive(Debug)]
struct Tar(Bytes);

#[backup_core::async_trait]
impl Source for Tar {
    fn kind(&self) -> &str {
        "files"
    }

    async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
        let source = MemorySource::new([("files.tar", self.0.clone())]);
        source.backup(request, out).await
    }
}

async fn restore_with(
    tar: impl Into<Bytes>,
    target: &Folder,
    request: RestoreRequest,
) -> Result<()> {
    let job = job(Tar(tar.into()));
    let id = job.run(RunOptions::default()).await?.id;
    job.restore(&id, target, request).await.map(drop)
}

async fn restore(tar: impl Into<Bytes>, path: &Path) -> Result<()> {
    restore_with(tar, &Folder::new(path), RestoreRequest::default()).await
}

/// Everything in a folder that a backup keeps, by path.
fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn walk(root: &Path, at: &Path, all: &mut BTreeMap<Vec<u8>, String>) {
        let known = fs::symlink_metadata(at).unwrap();
        let what = match known.file_type() {
            t if t.is_symlink() => format!("-> {}", fs::read_link(at).unwrap().display()),
            t if t.is_dir() => "folder".into(),
            t if t.is_file() => {
                format!("{} {:?}", known.nlink(), Bytes::from(fs::read(at).unwrap()))
            }
            t => format!("{t:?}"),
        };
        let mode = if known.is_symlink() { 0 } else { known.mode() };
        let line = format!(
            "{mode:o} {}:{} {} {what}",
            known.uid(),
            known.gid(),
            known.mtime()
        );
        all.insert(
            at.strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec(),
            line,
        );
        if known.is_dir() {
            for entry in fs::read_dir(at).unwrap() {
                walk(root, &entry.unwrap().path(), all);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

fn set_mtime(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// One of everything.
fn zoo(root: &Path) {
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("a/file"), "bytes").unwrap();
    fs::write(root.join("a.txt"), "sorts between").unwrap();
    for size in [0, 1, 511, 512, 513, 262_144, 1_000_000] {
        fs::write(root.join(format!("a/b/{size}")), vec![7; size]).unwrap();
    }
    symlink("../a/file", root.join("a/link")).unwrap();
    symlink("/no/such//./place/", root.join("broken")).unwrap();
    symlink("x".repeat(300), root.join("long link")).unwrap();
    fs::hard_link(root.join("a/file"), root.join("a/zz other name")).unwrap();
    fs::hard_link(root.join("a/file"), root.join("another name")).unwrap();
    for name in [
        &b"\xff\xfe not text"[..],
        b"new\nline",
        b"-rf",
        b" space ",
        "ünï".as_bytes(),
    ] {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    for length in [98, 99, 100, 101, 155, 156, 255] {
        fs::write(root.join("n".repeat(length)), "long").unwrap();
        fs::create_dir(root.join("d".repeat(length))).unwrap();
    }
    let mut deep = root.to_owned();
    for _ in 0..40 {
        deep.push("d".repeat(90));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("down here"), "deep").unwrap();
    set_mtime(&root.join("a/b/0"), -1_000_000);
    set_mtime(&root.join("a/b/1"), 1 << 34);
    set_mtime(&root.join("broken"), 1_000_000_000);
    set_mode(&root.join("a/b/512"), 0o400);
    set_mode(&root.join("a/b/511"), 0o777);
    set_mode(&root.join("a/b/c"), 0o1755);
    if rustix::process::geteuid().is_root() {
        for (name, owner) in [("a/b/513", 1000), ("empty", 3_000_000)] {
            std::os::unix::fs::chown(root.join(name), Some(owner), Some(owner + 1)).unwrap();
        }
        std::os::unix::fs::lchown(root.join("broken"), Some(1), Some(2)).unwrap();
        set_mode(&root.join("a/b/513"), 0o4755);
        set_mode(&root.join("empty"), 0o2750);
    }
    set_mtime(&root.join("a/b"), 86_400);
    set_mode(&root.join("a"), 0o555);
    set_mtime(&root.join("a"), 1);
    set_mtime(root, 2);
}

#[tokio::test]
async fn a_folder_comes_back_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    zoo(&from);
    let (tar, facts) = archive(Files::new(&from)).await.unwrap();
    let before = snapshot(&from);
    assert_eq!(facts.get("entries").unwrap(), before.len());
    restore(tar.clone(), &to).await.unwrap();
    assert_eq!(snapshot(&to), before);
    let ino = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(ino("a/file"), ino("another name"));
    // Once more, from what was restored: the same bytes.
    assert_eq!(archive(Files::new(&to)).await.unwrap().0, tar);
    assert_eq!(
        fs::read_dir(place.path()).unwrap().count(),
        2,
        "nothing else is left"
    );
}

#[tokio::test]
async fn stock_tar_unpacks_it_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    zoo(&from);
    let source = Files::new(&from);
    let step = source.restore_steps().remove(0);
    assert_eq!(step.part, "files.tar");
    let (tar, _) = archive(source).await.unwrap();
    let packed = place.path().join("files.tar");
    fs::write(&packed, &tar).unwrap();
    fs::create_dir(&to).unwrap();
    let unpacked = Command::new("sh")
        .args(["-c", &step.command.to_string()])
        .env("TARGET", &to)
        .stdin(fs::File::open(&packed).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&unpacked.stderr).into_owned();
    assert!(
        unpacked.status.success() && !said.contains("Error"),
        "{said}"
    );
    assert_eq!(snapshot(&to), snapshot(&from));
}

#[tokio::test]
async fn what_stock_tar_packed_is_unpacked_too() {
    let place = tempfile::tempdir().unwrap();
    let from = place.path().join("from");
    zoo(&from);
    for format in ["gnu", "posix"] {
        let to = place.path().join(format);
        let packed = Command::new("tar")
            .args(["--format", format, "--numeric-owner", "--sort=name", "-C"])
            .arg(&from)
            .args(["-cf", "-", "."])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(packed.status.success());
        restore(packed.stdout, &to).await.unwrap();
        assert_eq!(snapshot(&to), snapshot(&from), "{format}");
    }
}

#[tokio::test]
async fn excluded_skipped_and_vanished_are_counted() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("from");
    fs::create_dir_all(root.join("cache/deep")).unwrap();
    fs::write(root.join("cache/deep/x"), "x").unwrap();
    fs::write(root.join("a.tmp"), "x").unwrap();
    fs::write(root.join("kept"), "12345").unwrap();
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let source = Files::new(&root).exclude("*.tmp").exclude("cache/**");
    let (tar, facts) = archive(source).await.unwrap();
    let expected = Facts::new()
        .with("entries", 3)
        .with("bytes", 5)
        .with("excluded", 2)
        .with("skipped", 2)
        .with("skipped_names", vec!["pipe", "socket"]);
    assert_eq!(facts, expected);
    restore(tar, &place.path().join("to")).await.unwrap();
    assert!(place.path().join("to/cache").is_dir());
}

#[tokio::test]
async fn one_file_system_keeps_mount_points_empty() {
    let place = tempfile::tempdir().unwrap();
    let mount = place.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(&mount)
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
    assert!(
        mounted.status.success(),
        "this test mounts a tmpfs and needs root: {why}"
    );
    fs::write(mount.join("inside"), "x").unwrap();
    let one = archive(Files::new(place.path()).one_file_system(true)).await;
    let all = archive(Files::new(place.path())).await;
    let refused = restore(all.as_ref().unwrap().0.clone(), &mount).await;
    Command::new("umount").arg(&mount).status().unwrap();
    assert_eq!(one.unwrap().1.get("entries").unwrap(), 2);
    assert_eq!(all.unwrap().1.get("entries").unwrap(), 3);
    // It is not empty, but that is not what stands in the way.
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn what_is_mounted_in_a_replaced_folder_is_not_emptied() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("target");
    let mount = target.join("a mount");
    fs::create_dir_all(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(&mount)
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
    assert!(
        mounted.status.success(),
        "this test mounts a tmpfs and needs root: {why}"
    );
    fs::write(mount.join("inside"), "x").unwrap();
    let replaced = Folder::new(&target)
        .unpack(ByteStream::from_bytes(Hostile::new().end()), true)
        .await;
    let left = fs::read_dir(&mount).unwrap().count();
    Command::new("umount").arg(&mount).status().unwrap();
    let error = replaced.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.chain().contains("a mount is mounted in"), "{error:?}");
    assert_eq!(left, 1);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_mount_point_is_refused_before_a_byte_is_unpacked() {
    let place = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(place.path())
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
    assert!(
        mounted.status.success(),
        "this test mounts a tmpfs and needs root: {why}"
    );
    let result = restore(Hostile::new().end(), place.path()).await;
    Command::new("umount").arg(place.path()).status().unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.chain().contains("is a mount point"), "{error:?}");
}

#[tokio::test]
async fn a_folder_that_is_missing_or_none_is_an_error_of_the_source() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    for name in ["missing", "file"] {
        let error = archive(Files::new(place.path().join(name)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.chain().contains(name), "{error:?}");
    }
}

#[tokio::test]
async fn an_occupied_folder_is_replaced_as_a_whole_and_only_when_asked() {
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("to");
    let target = Folder::new(&to);
    assert_eq!(target.occupancy().await.unwrap(), Occupancy::Empty);
    fs::create_dir(&to).unwrap();
    assert_eq!(target.occupancy().await.unwrap(), Occupancy::Empty);
    restore(Hostile::new().file("one", "1").end(), &to)
        .await
        .unwrap();
    assert_eq!(
        target.occupancy().await.unwrap(),
        Occupancy::Holds("1 entry: one".into())
    );

    let two = Hostile::new().file("two", "2").end();
    let error = restore(two.clone(), &to).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(fs::read(to.join("one")).unwrap(), b"1");

    let agreed = || RestoreRequest::default().overwrite(to.display().to_string());
    let broken = &two[..two.len() - 600];
    restore_with(broken.to_vec(), &target, agreed())
        .await
        .unwrap_err();
    assert_eq!(
        fs::read(to.join("one")).unwrap(),
        b"1",
        "a failed restore changes nothing"
    );

    restore_with(two, &target, agreed()).await.unwrap();
    assert!(!to.join("one").exists());
    assert_eq!(fs::read(to.join("two")).unwrap(), b"2");
    alone_in(place.path()).await;
}

#[tokio::test]
async fn a_link_to_the_target_stays_and_what_it_leads_to_is_replaced() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("real")).unwrap();
    symlink("real", place.path().join("link")).unwrap();
    restore(
        Hostile::new().file("one", "1").end(),
        &place.path().join("link"),
    )
    .await
    .unwrap();
    assert!(place.path().join("link").is_symlink());
    assert_eq!(fs::read(place.path().join("real/one")).unwrap(), b"1");
}

/// Drops the restore ever later, until one gets to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_restore_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("to");
    let mut tar = Hostile::new();
    for n in 0..200 {
        tar = tar.file(&format!("new/{n}"), &"1".repeat(2_000));
    }
    let job = job(Tar(tar.end().into()));
    let id = job.run(RunOptions::default()).await.unwrap().id;
    let target = Folder::new(&to);
    let mut polls = 0;
    let mut done = false;
    while !done {
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).unwrap();
        fs::write(to.join("old"), "old").unwrap();
        let request = RestoreRequest::default().overwrite(to.display().to_string());
        let mut restoring = Box::pin(unconstrained(job.restore(&id, &target, request)));
        for _ in 0..polls {
            done = futures::poll!(&mut restoring).is_ready();
            if done {
                break;
            }
            // Polls come faster than a disk: let it get a little further each time.
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        drop(restoring);
        assert_eq!(to.join("old").exists(), !done, "after {polls} polls");
        assert_eq!(to.join("new/199").exists(), done, "after {polls} polls");
        polls += 1 + polls / 20;
    }
    alone_in(place.path()).await;
}

/// Nothing but the target is left in `folder`, once every thread that was still at it has tidied
/// up.
async fn alone_in(folder: &std::path::Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fs::read_dir(folder).unwrap().count() > 1 {
        assert!(
            std::time::Instant::now() < deadline,
            "hidden folders stay behind"
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Archives byte by byte, as nobody's tar would write them.
struct Hostile(Vec<u8>);

impl Hostile {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn raw(self, name: &[u8], kind: u8, link: &[u8], size: u64, body: &[u8]) -> Self {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000644\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"00000000001\0");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        self.seal(block, body)
    }

    fn seal(mut self, mut block: [u8; 512], body: &[u8]) -> Self {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, body: &str) -> Self {
        self.raw(
            name.as_bytes(),
            b'0',
            b"",
            body.len() as u64,
            body.as_bytes(),
        )
    }

    fn folder(self, name: &str) -> Self {
        self.raw(name.as_bytes(), b'5', b"", 0, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'2', target.as_bytes(), 0, b"")
    }

    fn hard_link(self, name: &str, other: &str) -> Self {
        self.raw(name.as_bytes(), b'1', other.as_bytes(), 0, b"")
    }

    fn pax(self, field: &str) -> Self {
        let mut length = field.len() + 2;
        while format!("{length} {field}\n").len() != length {
            length += 1;
        }
        let record = format!("{length} {field}\n");
        self.raw(b"pax", b'x', b"", record.len() as u64, record.as_bytes())
    }

    fn long(self, kind: u8, name: &[u8]) -> Self {
        self.raw(b"././@LongLink", kind, b"", name.len() as u64, name)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

#[tokio::test]
async fn a_hostile_archive_is_refused_as_a_whole_and_nothing_outside_is_touched() {
    let new = Hostile::new;
    let deep = "d/".repeat(600);
    let mut binary = [0u8; 512];
    binary[..5].copy_from_slice(b"huge\0");
    binary[100..107].copy_from_slice(b"0000644");
    binary[108..115].copy_from_slice(b"0000000");
    binary[116..123].copy_from_slice(b"0000000");
    binary[124..136].copy_from_slice(&[0xff; 12]);
    binary[136..147].copy_from_slice(b"00000000001");
    binary[156] = b'0';
    binary[257..265].copy_from_slice(b"ustar  \0");
    let mut wrong_sum = new().file("a", "1").end();
    wrong_sum[0] = b'b';
    let mut not_tar = new();
    not_tar = not_tar.seal([b'x'; 512], b"");
    let archives: Vec<(&str, Vec<u8>)> = vec![
        ("parent", new().file("../evil", "x").end()),
        ("parent within", new().file("a/../../evil", "x").end()),
        ("parent folder", new().folder("../evil/").end()),
        ("parent link", new().symlink("../evil", "x").end()),
        ("parent at the end", new().folder("a/..").end()),
        ("absolute", new().file("/tmp/evil", "x").end()),
        ("double slash", new().file("a//b", "x").end()),
        ("dot within", new().file("a/./b", "x").end()),
        ("double dot slash", new().file("././a", "x").end()),
        ("empty name", new().file("", "x").end()),
        ("root as a file", new().file("./", "x").end()),
        ("root as a link", new().symlink(".", "/etc").end()),
        ("file as a folder", new().file("a/", "x").end()),
        ("same file twice", new().file("a", "1").file("a", "2").end()),
        (
            "same file with and without a dot",
            new().file("a", "1").file("./a", "2").end(),
        ),
        ("same folder twice", new().folder("a/").folder("a").end()),
        ("folder over file", new().file("a", "1").folder("a/").end()),
        ("file over folder", new().folder("a/").file("a", "1").end()),
        (
            "file within a file",
            new().file("a", "1").file("a/b", "1").end(),
        ),
        (
            "link over file",
            new().file("a", "1").symlink("a", "/etc").end(),
        ),
        (
            "file over link",
            new().symlink("a", "/etc").file("a", "1").end(),
        ),
        (
            "same link twice",
            new().symlink("a", "b").symlink("a", "/etc").end(),
        ),
        (
            "write through a link",
            new().symlink("a", "../outside").file("a/evil", "x").end(),
        ),
        (
            "folder through a link",
            new().symlink("a", "../outside").folder("a/evil").end(),
        ),
        (
            "link through a link",
            new()
                .symlink("a", "../outside")
                .symlink("a/evil", "x")
                .end(),
        ),
        (
            "hard link through a link",
            new()
                .symlink("a", "../outside")
                .hard_link("b", "a/secret")
                .end(),
        ),
        (
            "hard link to a link",
            new().symlink("a", "../outside").hard_link("b", "a").end(),
        ),
        (
            "hard link outside",
            new().hard_link("a", "../outside/secret").end(),
        ),
        (
            "hard link to an absolute name",
            new().hard_link("a", "/etc/passwd").end(),
        ),
        ("hard link to nothing", new().hard_link("a", "b").end()),
        ("hard link to itself", new().hard_link("a", "a").end()),
        (
            "hard link to a folder",
            new().folder("b").hard_link("a", "b").end(),
        ),
        ("hard link to the root", new().hard_link("a", "./").end()),
        (
            "hard link over a file",
            new()
                .file("a", "1")
                .file("b", "1")
                .hard_link("a", "b")
                .end(),
        ),
        ("character device", new().raw(b"a", b'3', b"", 0, b"").end()),
        ("block device", new().raw(b"a", b'4', b"", 0, b"").end()),
        ("fifo", new().raw(b"a", b'6', b"", 0, b"").end()),
        ("contiguous", new().raw(b"a", b'7', b"", 0, b"").end()),
        ("sparse", new().raw(b"a", b'S', b"", 0, b"").end()),
        ("volume", new().raw(b"a", b'V', b"", 0, b"").end()),
        ("unknown type", new().raw(b"a", b'Z', b"", 0, b"").end()),
        ("global header", new().raw(b"a", b'g', b"", 0, b"").end()),
        ("NUL in a name", new().raw(b"a\0b", b'0', b"", 0, b"").end()),
        (
            "NUL in a link",
            new().raw(b"a", b'2', b"x\0y", 0, b"").end(),
        ),
        (
            "NUL in a long name",
            new().long(b'L', b"a\0b\0").file("x", "").end(),
        ),
        (
            "NUL in a pax name",
            new().pax("path=a\0b").file("x", "").end(),
        ),
        (
            "parent in a long name",
            new().long(b'L', b"../evil\0").file("x", "1").end(),
        ),
        (
            "parent in a pax name",
            new().pax("path=../evil").file("x", "1").end(),
        ),
        (
            "outside in a long link",
            new().long(b'K', b"/etc/passwd\0").hard_link("x", "y").end(),
        ),
        ("two sizes", new().pax("size=0").file("a", "1").end()),
        ("two sizes, hiding an entry", {
            let inner = new().file("../evil", "x").0;
            let size = inner.len() as u64;
            new()
                .pax(&format!("size={size}"))
                .raw(b"a", b'0', b"", 0, &inner)
                .end()
        }),
        (
            "sparse by pax",
            new().pax("GNU.sparse.major=1").file("a", "1").end(),
        ),
        (
            "attribute by pax",
            new().pax("SCHILY.xattr.user.x=1").file("a", "1").end(),
        ),
        (
            "pax size too large",
            new().pax("size=99999999999999999999").file("a", "1").end(),
        ),
        (
            "pax length too long",
            new()
                .raw(b"p", b'x', b"", 9, b"99 path=a")
                .file("a", "")
                .end(),
        ),
        (
            "pax length too short",
            new()
                .raw(b"p", b'x', b"", 9, b"1 path=ab")
                .file("a", "")
                .end(),
        ),
        (
            "pax without an end",
            new()
                .raw(b"p", b'x', b"", 8, b"8 path=a")
                .file("a", "")
                .end(),
        ),
        (
            "pax is not text",
            new().raw(b"p", b'x', b"", 5, b"\xff\xff\xff\xff\n").end(),
        ),
        (
            "name of a gigabyte",
            new().raw(b"l", b'L', b"", 1 << 30, b"x").end(),
        ),
        (
            "name too long for a disk",
            new().long(b'L', &[b'n'; 300]).file("x", "1").end(),
        ),
        (
            "pax of a gigabyte",
            new().raw(b"p", b'x', b"", 1 << 30, b"x").end(),
        ),
        (
            "very deep",
            new().long(b'L', deep.as_bytes()).folder("x").end(),
        ),
        (
            "folder with bytes",
            new().raw(b"a", b'5', b"", 5, b"bytes").end(),
        ),
        (
            "link with bytes",
            new().raw(b"a", b'2', b"x", 5, b"bytes").end(),
        ),
        ("size beyond any disk", new().seal(binary, b"x").end()),
        ("wrong checksum", wrong_sum),
        ("not tar at all", not_tar.end()),
        ("text", b"just some text".repeat(100)),
        ("nothing", Vec::new()),
        ("no end", new().file("a", "1").0),
        ("half an end", {
            let mut tar = new().file("a", "1").0;
            tar.extend([0; 512]);
            tar
        }),
        (
            "end within a file",
            new().file("a", &"1".repeat(2000)).0[..1500].to_vec(),
        ),
        ("another archive behind it", {
            let mut tar = new().file("a", "1").end();
            tar.extend(new().file("b", "1").end());
            tar
        }),
        ("a byte behind it", {
            let mut tar = new().file("a", "1").end();
            tar.push(1);
            tar
        }),
        ("entry after an empty block", {
            let mut tar = new().file("a", "1").0;
            tar.extend([0; 512]);
            tar.extend(new().file("b", "1").end());
            tar
        }),
    ];
    for (what, tar) in archives {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("outside")).unwrap();
        fs::write(place.path().join("outside/secret"), "secret").unwrap();
        let before = snapshot(place.path());
        match restore(tar, &place.path().join("to")).await {
            Ok(()) => panic!("{what}: was restored"),
            Err(error) => {
                let kind = error.kind();
                let fits = matches!(kind, ErrorKind::Refused | ErrorKind::Corrupt);
                assert!(fits, "{what}: {error:?}");
            }
        }
        let after = snapshot(place.path());
        assert_eq!(
            before.keys().collect::<Vec<_>>(),
            after.keys().collect::<Vec<_>>(),
            "{what}"
        );
        assert_eq!(
            fs::read(place.path().join("outside/secret")).unwrap(),
            b"secret"
        );
    }
}

#[tokio::test]
async fn every_truncation_is_refused() {
    let tar = Hostile::new()
        .folder("a")
        .file("a/b", "bytes")
        .symlink("a/c", "b")
        .end();
    for end in 0..tar.len() {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("to");
        restore(tar[..end].to_vec(), &to).await.unwrap_err();
        assert_eq!(
            fs::read_dir(place.path()).unwrap().count(),
            0,
            "cut at {end}"
        );
    }
}

#[tokio::test]
async fn links_that_lead_outside_come_back_unless_they_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let strict = Folder::new(place.path().join("strict")).refuse_outside_links(true);
    for (target, outside) in [
        ("x", false),
        ("../x", false),
        ("../../x", true),
        ("..", false),
        ("../..", true),
        ("/etc", true),
        ("y/../../x", false),
        ("y/../../../x", true),
        ("", true),
    ] {
        let tar = Hostile::new().symlink("a/link", target).end();
        let result = restore_with(tar.clone(), &strict, RestoreRequest::default()).await;
        assert_eq!(result.is_err(), outside, "{target}: {result:?}");
        if target.is_empty() {
            continue;
        }
        let loose = place.path().join("loose");
        restore(tar, &loose).await.unwrap();
        assert_eq!(
            fs::read_link(loose.join("a/link")).unwrap(),
            Path::new(target)
        );
        fs::remove_dir_all(loose).unwrap();
        let _ = fs::remove_dir_all(place.path().join("strict"));
    }
}

#[tokio::test]
async fn a_full_disk_leaves_the_target_untouched() {
    let place = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(place.path())
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
    assert!(
        mounted.status.success(),
        "this test mounts a tmpfs and needs root: {why}"
    );
    let to = place.path().join("to");
    restore(Hostile::new().file("one", "1").end(), &to)
        .await
        .unwrap();
    let large = Hostile::new().file("two", &"2".repeat(5_000_000)).end();
    let agreed = RestoreRequest::default().overwrite(to.display().to_string());
    let warned = restore_with(large.clone(), &Folder::new(&to), agreed.clone()).await;
    let insisted = restore_with(large, &Folder::new(&to), agreed.force()).await;
    let left: Vec<_> = fs::read_dir(place.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    let one = fs::read(to.join("one")).unwrap();
    Command::new("umount").arg(place.path()).status().unwrap();
    let warned = warned.unwrap_err().chain();
    assert!(warned.contains("make room"), "{warned}");
    let insisted = insisted.unwrap_err().chain();
    assert!(insisted.contains("write two: No space left"), "{insisted}");
    assert_eq!((left, &one[..]), (vec![to], &b"1"[..]));
}
