//! Errors pass through; damage does not.

use super::*;
use crate::testing::noise;

/// An error of what is encoded comes out with its kind and its reason, wherever it strikes, and
/// no end follows.
pub fn an_error_of_the_plain_side_comes_out_unchanged(fixture: &TransformFixture) {
    for len in [0, 1, 1_000, CHUNK, 3 * CHUNK + 5] {
        for kind in [ErrorKind::Source, ErrorKind::Cancelled] {
            let plain = Box::new(Failing::after(noise(len, 1), kind));
            let coded = fixture.encoder.encode(plain, &Coding::new(1));
            assert_fails(coded, kind, &format!("encode, failing after {len} bytes"));
        }
    }
}

/// What was encoded before an error never decodes as if it were whole.
pub fn a_failed_encode_does_not_look_finished(fixture: &TransformFixture) {
    if fixture.encoder.stage() == Stage::Sign {
        // The bytes are the plain ones; what makes them whole is the signature.
        return;
    }
    for len in [0, 1, 1_000, CHUNK, 3 * CHUNK + 5] {
        let plain = Box::new(Failing::after(noise(len, 1), ErrorKind::Source));
        let Ok(reader) = fixture.encoder.encode(plain, &Coding::new(1)) else {
            continue;
        };
        let (coded, outcome) = drain(reader);
        assert!(
            outcome.is_err(),
            "encode hides that its input failed after {len} bytes"
        );
        let back = decode(&*fixture.decoder, io::Cursor::new(coded));
        if let Ok(back) = back {
            panic!(
                "half of an encode decodes to {} bytes without an error",
                back.len()
            );
        }
    }
}

/// An error of what is decoded comes out with its kind and its reason, also where the last byte
/// was read already: nobody may take it for damage, or for an end.
pub fn an_error_of_the_coded_side_comes_out_unchanged(fixture: &TransformFixture) {
    for plain in [noise(10, 1), noise(3 * CHUNK, 2)] {
        let coded = encoded(fixture, &plain);
        for len in [0, 1, coded.len() / 2, coded.len() - 1, coded.len()] {
            for kind in [ErrorKind::Unavailable, ErrorKind::Cancelled] {
                let input = Box::new(Failing::after(coded.slice(..len), kind));
                let plain = fixture.decoder.decode(input, &Coding::new(1));
                assert_fails(plain, kind, &format!("decode, failing after {len} bytes"));
            }
        }
    }
}

/// Every beginning of an encoded stream that is not all of it is `Corrupt`.
///
/// Signing is exempt: it leaves the bytes alone, and its signature is checked elsewhere.
pub fn what_is_cut_short_is_corrupt(fixture: &TransformFixture) {
    if fixture.encoder.stage() == Stage::Sign {
        return;
    }
    for plain in [
        Bytes::new(),
        noise(1_000, 1),
        vec![7; 1_000].into(),
        noise(200_000, 2),
    ] {
        let coded = encoded(fixture, &plain);
        for len in places(coded.len()) {
            let what = format!("the first {len} of {} bytes", coded.len());
            match decode(&*fixture.decoder, io::Cursor::new(coded.slice(..len))) {
                Ok(back) => panic!("{what} decode to {} bytes without an error", back.len()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}"),
            }
        }
    }
}

/// No changed byte goes unseen: an encryption fails; a compression fails, or gives the very same
/// bytes (there are bytes in a gzip header that mean nothing).
///
/// Signing is exempt: it leaves the bytes alone, and its signature is checked elsewhere.
pub fn what_is_changed_is_never_taken_for_the_data(fixture: &TransformFixture) {
    let stage = fixture.encoder.stage();
    if stage == Stage::Sign {
        return;
    }
    for plain in [
        Bytes::new(),
        noise(300, 1),
        vec![7; 1_000].into(),
        noise(200_000, 2),
    ] {
        let coded = encoded(fixture, &plain);
        for at in places(coded.len()) {
            for bits in [0x01, 0x80, 0xff] {
                let mut changed = coded.to_vec();
                changed[at] ^= bits;
                let Ok(back) = decode(&*fixture.decoder, io::Cursor::new(changed)) else {
                    continue;
                };
                let harmless = stage == Stage::Compress && back == plain;
                assert!(
                    harmless,
                    "byte {at} of {} with {bits:#x}: no error",
                    coded.len()
                );
            }
        }
    }
}

/// All of a short stream; begin, end and a few hundred places between of a long one.
fn places(len: usize) -> Vec<usize> {
    let near_an_end =
        |at: &usize| *at < 300 || len - *at <= 100 || at.is_multiple_of(len / 100 + 1);
    (0..len).filter(near_an_end).collect()
}

/// Whatever follows the end of an encoded stream is `Corrupt`.
pub fn bytes_after_the_end_are_corrupt(fixture: &TransformFixture) {
    if fixture.encoder.stage() == Stage::Sign {
        return;
    }
    let garbage = [
        Bytes::from_static(&[0]),
        Bytes::from_static(b"\n"),
        noise(100_000, 9),
    ];
    for plain in [Bytes::new(), noise(100_000, 1)] {
        for garbage in &garbage {
            let coded = [encoded(fixture, &plain), garbage.clone()].concat();
            match decode(&*fixture.decoder, io::Cursor::new(coded)) {
                Ok(_) => panic!("{} bytes after the end go unseen", garbage.len()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}"),
            }
        }
    }
}
