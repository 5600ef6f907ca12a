//! Every promise of a sink, kept by a folder.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use sink_fs::FsSink;

backup_core::testing::sink!(folder, async {
    let place = tempfile::tempdir().unwrap();
    (FsSink::new(place.path().join("root")), place)
});
