//! The folder sink on real file systems: full, failing, raced for and shared.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use backup_core::{ByteStream, Error, ErrorKind, Key, Locator, PutOptions, Result, Sink};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sink_fs::FsSink;
use tempfile::TempDir;
use tokio::task::unconstrained;

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn at(text: &str) -> Locator {
    key(text).into()
}

fn sink() -> (TempDir, FsSink) {
    let folder = tempfile::tempdir().unwrap();
    let sink = FsSink::new(folder.path().join("root"));
    (folder, sink)
}

async fn put(sink: &FsSink, name: &str, bytes: impl Into<Bytes>) -> Result<()> {
    let data = ByteStream::from_bytes(bytes);
    sink.put(&key(name), data, &PutOptions::default())
        .await
        .map(drop)
}

async fn get(sink: &FsSink, name: &str) -> Result<Bytes> {
    sink.get(&at(name), None).await?.collect(1 << 30).await
}

async fn names(sink: &FsSink, prefix: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(key);
    let mut names: Vec<String> = sink
        .list(prefix.as_ref())
        .map_ok(|object| object.key.to_string())
        .try_collect()
        .await
        .unwrap();
    names.sort();
    names
}

/// Every file below `folder`, hidden ones too.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn what_is_kept_is_for_the_owner_only() {
    let (folder, sink) = sink();
    put(&sink, "orders/id/db.dump", "x").await.unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("root"), 0o700);
    assert_eq!(mode("root/orders/id"), 0o700);
    assert_eq!(mode("root/orders/id/db.dump"), 0o600);
    assert_eq!(
        fs::read(folder.path().join("root/orders/id/db.dump")).unwrap(),
        b"x"
    );
}

#[tokio::test]
async fn a_lock_that_it_cannot_honour_is_refused() {
    let (folder, sink) = sink();
    let options = PutOptions::default().retain_until(std::time::SystemTime::UNIX_EPOCH);
    let refused = sink
        .put(&key("a"), ByteStream::from_bytes("x"), &options)
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(files(folder.path()).is_empty());
}

#[tokio::test]
async fn a_failing_stream_leaves_nothing_behind() {
    let (folder, sink) = sink();
    let data = ByteStream::new(stream::iter([
        Ok(Bytes::from(vec![7; 3_000_000])),
        Err(Error::new(ErrorKind::Source, "pg_dump exited 1")),
    ]));
    let error = sink
        .put(&key("a/b"), data, &PutOptions::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Source, "pg_dump exited 1".into())
    );
    assert!(files(folder.path()).is_empty());
}

/// Drops the put after each possible number of polls, the last ones while it is renaming and
/// syncing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_put_is_never_visible() {
    let (folder, sink) = sink();
    for polls in 0..400 {
        let key = key(&format!("a/{polls}"));
        let options = PutOptions::default();
        let data = ByteStream::new(stream::iter(
            (0..3).map(|_| Ok(Bytes::from(vec![1; 100_000]))),
        ));
        let mut put = unconstrained(sink.put(&key, data, &options));
        let mut done = false;
        for _ in 0..polls {
            done = futures::poll!(&mut put).is_ready();
            if done {
                break;
            }
            // Polls come faster than a disk: let it get a little further each time.
            std::thread::sleep(Duration::from_micros(20));
        }
        drop(put);
        let visible = sink.stat(&key.into()).await.is_ok();
        assert_eq!(visible, done, "after {polls} polls");
    }
    drop(sink);
    // Threads that were still writing find out and tidy up.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !files(&folder.path().join("root/.tmp")).is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "temporary files stay behind"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_puts_of_one_key_exactly_one_wins() {
    let (folder, sink) = sink();
    for round in 0..20 {
        let name = format!("a/{round}");
        let puts = (0..8u8).map(|n| {
            let (sink, name) = (sink.clone(), name.clone());
            tokio::spawn(async move { (n, put(&sink, &name, vec![n; 300_000]).await) })
        });
        let mut winners = Vec::new();
        for done in futures::future::join_all(puts).await {
            match done.unwrap() {
                (n, Ok(())) => winners.push(n),
                (_, Err(e)) => assert_eq!(e.kind(), ErrorKind::AlreadyExists),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(get(&sink, &name).await.unwrap(), vec![winners[0]; 300_000]);
    }
    assert!(files(&folder.path().join("root/.tmp")).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_survive_deletes_that_remove_their_folder() {
    let (_folder, sink) = sink();
    let churn = |n: usize| {
        let sink = sink.clone();
        tokio::spawn(async move {
            for _ in 0..150 {
                let name = format!("a/b/{n}");
                put(&sink, &name, "x").await.unwrap();
                sink.delete(&at(&name)).await.unwrap();
            }
        })
    };
    for task in (0..4).map(churn).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert!(names(&sink, None).await.is_empty());
    assert_eq!(sink.children(None).count().await, 0, "empty folders go too");
}

#[tokio::test]
async fn a_file_that_got_shorter_ends_in_an_error() {
    let (folder, sink) = sink();
    for len in [1_000, 5_000_000] {
        let name = format!("a/{len}");
        put(&sink, &name, vec![1; len]).await.unwrap();
        let mut body = sink.get(&at(&name), None).await.unwrap();
        let path = folder.path().join("root").join(&name);
        let first = body.next().await.unwrap().unwrap().len();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(10)
            .unwrap();
        if first == len {
            continue; // Small objects were read before anybody could cut them.
        }
        let error = body.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("a/5000000"), "{error}");
    }
}

#[tokio::test]
async fn ranges_give_their_bytes_and_nothing_else() {
    let (_folder, sink) = sink();
    let bytes: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
    put(&sink, "a", bytes.clone()).await.unwrap();
    for range in [
        0..0,
        0..1,
        5..700_001,
        1_999_999..2_000_000,
        2_000_000..2_000_000,
    ] {
        let body = sink.get(&at("a"), Some(range.clone())).await.unwrap();
        let part = &bytes[range.start as usize..range.end as usize];
        assert_eq!(body.collect(1 << 30).await.unwrap(), part, "{range:?}");
    }
    let beyond = sink.get(&at("a"), Some(1..2_000_001)).await;
    assert_eq!(beyond.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn links_below_the_root_are_never_followed() {
    let (folder, sink) = sink();
    put(&sink, "a/own", "x").await.unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let root = folder.path().join("root");
    symlink(&outside, root.join("folder")).unwrap();
    symlink(outside.join("secret"), root.join("a/file")).unwrap();

    assert_eq!(
        get(&sink, "folder/secret").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        get(&sink, "a/file").await.unwrap_err().kind(),
        ErrorKind::Refused
    );
    assert_eq!(
        sink.stat(&at("a/file")).await.unwrap_err().kind(),
        ErrorKind::Refused
    );
    assert!(put(&sink, "folder/new", "x").await.is_err());
    assert_eq!(
        put(&sink, "a/file", "x").await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    sink.delete(&at("folder/secret")).await.unwrap();
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(files(&outside).len(), 1);

    let listed: Vec<_> = sink.list(None).collect().await;
    assert_eq!(listed[0].as_ref().unwrap().key, key("a/own"));
    let error = listed[1].as_ref().unwrap_err();
    assert!(
        error.to_string().contains("holds 2 that cannot be objects"),
        "{error}"
    );
    assert_eq!(
        sink.children(None).try_collect::<Vec<_>>().await.unwrap(),
        ["a"]
    );
}

#[tokio::test]
async fn strangers_are_named_after_every_object_was() {
    let (folder, sink) = sink();
    put(&sink, "a/1", "x").await.unwrap();
    put(&sink, "a/2", "x").await.unwrap();
    let root = folder.path().join("root");
    fs::write(root.join("a/my notes.txt"), "").unwrap();
    fs::write(root.join(".nfs0001"), "").unwrap();
    fs::create_dir(root.join("lost+found")).unwrap();
    let listed: Vec<_> = sink.list(Some(&key("a"))).collect().await;
    assert_eq!(listed.len(), 3);
    let error = listed[2].as_ref().unwrap_err();
    assert!(error.to_string().contains("a/my notes.txt"), "{error}");
    let mut children: Vec<_> = sink.children(Some(&key("a"))).try_collect().await.unwrap();
    children.sort();
    assert_eq!(children, ["1", "2"]);
    assert_eq!(
        sink.children(None).try_collect::<Vec<_>>().await.unwrap(),
        ["a"]
    );
}

#[tokio::test]
async fn a_root_that_is_missing_is_empty_and_one_that_is_a_file_is_an_error() {
    let (folder, sink) = sink();
    assert!(names(&sink, None).await.is_empty());
    assert_eq!(
        get(&sink, "a").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    sink.delete(&at("a")).await.unwrap();
    assert_eq!(sink.sweep(Duration::ZERO).await.unwrap().objects, 0);
    fs::write(folder.path().join("root"), "").unwrap();
    assert!(sink.list(None).try_collect::<Vec<_>>().await.is_err());
    assert!(
        sink.children(Some(&key("a")))
            .try_collect::<Vec<_>>()
            .await
            .is_err()
    );
    let error = put(&sink, "a", "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sink);
    assert!(
        error.chain().contains("Not a directory"),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn an_object_is_no_folder_and_a_folder_is_no_object() {
    let (_folder, sink) = sink();
    put(&sink, "a/b", "x").await.unwrap();
    assert_eq!(
        put(&sink, "a/b/c", "x").await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        put(&sink, "a", "x").await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        get(&sink, "a").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        sink.stat(&at("a")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    sink.delete(&at("a")).await.unwrap();
    assert_eq!(names(&sink, Some("a/b")).await, ["a/b"]);
}

#[tokio::test]
async fn sweep_takes_what_nobody_writes_and_leaves_what_somebody_does() {
    let (folder, sink) = sink();
    put(&sink, "a", "x").await.unwrap();
    let temp = folder.path().join("root/.tmp");
    fs::write(temp.join("b.1-0"), "left by a kill").unwrap();

    let (go, wait) = futures::channel::oneshot::channel::<()>();
    let data = ByteStream::new(stream::iter([Ok(Bytes::from_static(b"begin"))]).chain(
        stream::once(async {
            wait.await.unwrap();
            Ok(Bytes::from_static(b"end"))
        }),
    ));
    let slow = tokio::spawn({
        let sink = sink.clone();
        async move { sink.put(&key("slow"), data, &PutOptions::default()).await }
    });
    while files(&temp).len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        sink.sweep(Duration::from_secs(3600)).await.unwrap().objects,
        0
    );
    let swept = sink.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.objects, swept.bytes), (1, 14));
    go.send(()).unwrap();
    slow.await.unwrap().unwrap();
    assert_eq!(get(&sink, "slow").await.unwrap(), "beginend");
    assert_eq!(names(&sink, None).await, ["a", "slow"]);
}

#[tokio::test]
async fn configuration_deserialises_and_refuses_what_it_does_not_know() {
    let sink: FsSink = toml::from_str("path = '/var/backups'").unwrap();
    assert_eq!(sink.to_string(), "/var/backups");
    assert!(toml::from_str::<FsSink>("path = '/x'\nfsync = false").is_err());
}

/// Unmounts when it goes.
struct Mount(TempDir);

impl Mount {
    fn tmpfs(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .output()
            .expect("this test needs `mount`");
        let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(
            mounted.status.success(),
            "this test mounts a tmpfs and needs root: {why}"
        );
        Self(folder)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_names_object_and_place_and_keeps_what_was_there() {
    let disk = Mount::tmpfs("size=4m");
    let sink = FsSink::new(disk.0.path());
    put(&sink, "a/first", vec![1; 1_000_000]).await.unwrap();
    for len in [3_200_000, 5_000_000, 50_000_000] {
        let error = put(&sink, "a/second", vec![2; len]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Sink);
        let text = error.chain();
        assert!(
            text.contains("a/second") && text.contains("No space left"),
            "{text}"
        );
        assert!(
            text.contains(&disk.0.path().display().to_string()),
            "{text}"
        );
        assert_eq!(names(&sink, None).await, ["a/first"]);
        assert_eq!(files(disk.0.path()).len(), 1, "the room is given back");
    }
    put(&sink, "a/third", vec![3; 2_500_000]).await.unwrap();
    assert_eq!(get(&sink, "a/first").await.unwrap(), vec![1; 1_000_000]);
}

#[tokio::test]
async fn a_disk_without_inodes_fails_at_every_step_cleanly() {
    let disk = Mount::tmpfs("size=4m,nr_inodes=4");
    let sink = FsSink::new(disk.0.path());
    put(&sink, "a/1", "x").await.unwrap();
    put(&sink, "a/2", "x").await.unwrap_err();
    sink.delete(&at("a/1")).await.unwrap();
    put(&sink, "b/c/d", "x").await.unwrap_err();
    assert!(names(&sink, None).await.is_empty());
}

/// fsyncgate: after one failed fsync the kernel may have dropped the bytes and say yes to the
/// next; the file must go.
#[test]
fn a_failed_sync_discards_the_object() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    // The syncs of a first put, in order: the object, the parents of the root, the folders.
    for failing in 1..=4 {
        let _ = fs::remove_dir_all(&root);
        let traced = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "trace=fsync", "-e"])
            .arg(format!("inject=fsync:error=EIO:when={failing}"))
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "put_for_another_test",
                "--ignored",
                "--nocapture",
            ])
            .env("SINK_FS_ROOT", &root)
            .output()
            .expect("this test needs `strace`");
        let said = String::from_utf8_lossy(&traced.stdout).into_owned();
        assert!(
            said.contains("put: Err") && said.contains("os error 5"),
            "{failing}: {said}"
        );
        assert!(
            files(&root).is_empty(),
            "sync {failing} failed and left {:?}",
            files(&root)
        );
    }
}

#[tokio::test]
#[ignore = "run by a_failed_sync_discards_the_object, under strace"]
async fn put_for_another_test() {
    let root = std::env::var_os("SINK_FS_ROOT").expect("set by the other test");
    let done = put(&FsSink::new(root), "a/b", "bytes").await;
    println!("put: {done:?}");
}

#[tokio::test]
async fn no_right_to_write_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere but where nobody can.
        let error = put(&FsSink::new("/proc/lifebelt"), "a", "x")
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/proc/lifebelt"), "{error}");
        return;
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let error = put(&FsSink::new(folder.path()), "a", "x")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}
