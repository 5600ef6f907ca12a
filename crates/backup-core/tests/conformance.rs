//! The conformance kit on the stages in the box.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use std::time::SystemTime;

use backup_core::SigningKey;
use backup_core::testing::transform;
use backup_core::testing::transform::TransformFixture;
use backup_core::transform::{Age, Gzip, Sign, Zstd, age_keygen};

transform!(zstd, Zstd::level(3));
transform!(zstd_in_small_frames, Zstd::level(1).frame(64 * 1024));
transform!(gzip, Gzip::level(6));
transform!(sign, Sign::with(SigningKey::generate().unwrap()));
transform!(age, age());

fn age() -> TransformFixture {
    let keys = age_keygen(SystemTime::UNIX_EPOCH);
    let file = keys.identity.expose();
    let secret = file.lines().last().unwrap();
    let writer = Age::to([&keys.recipient]).unwrap();
    let reader = Age::own(file).unwrap();
    TransformFixture::pair(writer, reader).secret(secret)
}
