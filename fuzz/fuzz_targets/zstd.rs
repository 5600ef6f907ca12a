//! Decoders take any bytes without a panic and in bounded memory, and what comes out of the good
//! ones comes out again.
#![no_main]

use std::io::Read;

use backup_core::transform::{Gzip, Zstd};
use backup_core::{Coding, Transform};

/// More than the fuzzer's inputs can be worth reading to the end.
const ENOUGH: u64 = 64 << 20;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let threads = 1 + usize::from(choice >> 1 & 1);
    match choice & 1 {
        0 => decode(&Zstd::level(1), threads, bytes),
        _ => decode(&Gzip::level(1), threads, bytes),
    }
});

fn decode(codec: &dyn Transform, threads: usize, bytes: &[u8]) {
    let coded = Box::new(std::io::Cursor::new(bytes.to_vec()));
    let Ok(plain) = codec.decode(coded, &Coding::new(threads)) else {
        return;
    };
    let mut first = Vec::new();
    let whole = plain.take(ENOUGH).read_to_end(&mut first).is_ok();
    // What is long compresses well by the fuzzer's own making: no need to code it again.
    if whole && first.len() < 1 << 16 {
        let coding = Coding::new(threads);
        let plain = Box::new(std::io::Cursor::new(first.clone()));
        let coded = codec.encode(plain, &coding).expect("starts");
        let mut second = Vec::new();
        let mut decoded = codec.decode(coded, &coding).expect("starts");
        decoded.read_to_end(&mut second).expect("its own bytes");
        assert_eq!(first, second);
    }
}
