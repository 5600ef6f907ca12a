//! Any bytes as an archive: refused, or a folder of its own, and nothing outside of it.
//!
//! Set `TMPDIR` to a folder in memory: every restore syncs its file system.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use backup_core::ByteStream;
use store_files::Folder;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, archive)) = bytes.split_first() else {
        return;
    };
    let mut archive = archive.to_vec();
    if choice & 1 == 0 {
        with_checksums(&mut archive);
    }
    if choice & 2 == 0 {
        archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (target, canary) = (folder.path().join("a/target"), folder.path().join("canary"));
    fs::create_dir(folder.path().join("a")).expect("a folder");
    fs::write(&canary, "alive").expect("a file");
    let restored = RUNTIME.block_on(
        Folder::new(&target)
            .refuse_outside_links(choice & 4 == 0)
            .unpack(ByteStream::from_bytes(archive), false),
    );

    assert_eq!(names(folder.path()), ["a", "canary"]);
    assert_eq!(fs::read(&canary).expect("a file"), b"alive");
    // Staged and old folders are gone, and without an `Ok` there is none at all.
    let expected: &[&str] = if restored.is_ok() { &["target"] } else { &[] };
    assert_eq!(names(&folder.path().join("a")), expected, "{restored:?}");
});

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// Gives every header the checksum that it should have, which no fuzzer finds.
fn with_checksums(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = header[124..136].iter().filter(|byte| byte.is_ascii_digit());
        let size = size.fold(0, |size: usize, digit| {
            size.saturating_mul(8)
                .saturating_add(usize::from(digit - b'0'))
        });
        at = at
            .saturating_add(512)
            .saturating_add(size.div_ceil(512).saturating_mul(512));
        if at > archive.len() {
            return;
        }
    }
}
