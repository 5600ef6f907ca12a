//! A manifest that can be read is written as one that reads the same, byte for byte from then on.
#![no_main]

use backup_core::{FORMAT, Manifest};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::parse(bytes) else {
        return;
    };
    assert!((1..=FORMAT).contains(&manifest.format) && manifest.sequence > 0);
    // Lengths come from outside: no sum of them may overflow.
    let (plain, stored) = (manifest.plain_bytes(), manifest.stored_bytes());
    let written = manifest.to_bytes().expect("what was read can be written");
    let again = Manifest::parse(&written).expect("what was written can be read");
    assert_eq!(again, manifest);
    assert_eq!((again.plain_bytes(), again.stored_bytes()), (plain, stored));
    assert_eq!(again.to_bytes().expect("written"), written);
});
