//! What every stage in the box must do, whatever it does with the bytes.

use std::io::{self, Cursor, Read};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::{Error, ErrorKind};

#[cfg(feature = "age")]
pub(super) const IDENTITY: &str =
    "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

/// Bytes that compress a little and never repeat a block.
pub(super) fn sample(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + (state >> 28) as u8
        })
        .collect()
}

/// Gives `data` in pieces of odd sizes, then its end or `then`.
pub(super) struct Trickle {
    pub(super) data: Cursor<Vec<u8>>,
    pub(super) step: usize,
    pub(super) then: Option<Error>,
}

pub(super) fn trickle(data: &[u8]) -> Reader {
    Box::new(Trickle {
        data: Cursor::new(data.to_vec()),
        step: 1,
        then: None,
    })
}

fn failing(data: &[u8]) -> Reader {
    Box::new(Trickle {
        data: Cursor::new(data.to_vec()),
        step: 1,
        then: Some(Error::new(ErrorKind::Source, "pg_dump exited 1")),
    })
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.step = self.step * 7 % 40_009 + 1;
        if self.step.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let room = buffer.len().min(self.step);
        match self.data.read(&mut buffer[..room])? {
            0 if room > 0 => self.then.take().map_or(Ok(0), |e| Err(e.into())),
            n => Ok(n),
        }
    }
}

pub(super) fn read_all(mut reader: Reader) -> crate::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn encode(stage: &dyn Transform, plain: &[u8]) -> Vec<u8> {
    let coded = stage.encode(trickle(plain), &Coding::new(2));
    coded.and_then(read_all).expect("encodes")
}

pub(super) fn decode(stage: &dyn Transform, coded: &[u8]) -> crate::Result<Vec<u8>> {
    read_all(stage.decode(trickle(coded), &Coding::new(2))?)
}

/// Each with the size of its blocks.
fn stages() -> Vec<(Box<dyn Transform>, usize)> {
    vec![
        #[cfg(feature = "zstd")]
        (Box::new(Zstd::level(1).frame(64 * 1024)), 64 * 1024),
        #[cfg(feature = "gzip")]
        (Box::new(Gzip::level(1)), 1024 * 1024),
        #[cfg(feature = "age")]
        (Box::new(Age::own(IDENTITY).expect("a good key")), 64 * 1024),
        #[cfg(feature = "sign")]
        (
            Box::new(Sign::with(
                crate::SigningKey::generate().expect("random numbers"),
            )),
            256 * 1024,
        ),
    ]
}

#[test]
fn every_size_around_a_block_comes_back() {
    for (stage, block) in stages() {
        for len in [0, 1, block - 1, block, block + 1, 2 * block, 5 * block + 7] {
            let plain = sample(len);
            let coded = encode(&*stage, &plain);
            let back = decode(&*stage, &coded).unwrap();
            assert!(back == plain, "{} of {len} bytes", stage.id());
        }
    }
}

#[test]
fn an_error_of_the_input_comes_out_unchanged_both_ways() {
    for (stage, block) in stages() {
        for len in [0, 1, block, 3 * block + 1] {
            let coding = Coding::new(2);
            let plain = sample(len);
            let error = read_all(stage.encode(failing(&plain), &coding).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source, "{}", stage.id());
            assert_eq!(error.to_string(), "pg_dump exited 1", "{}", stage.id());

            let coded = encode(&*stage, &plain);
            let error = read_all(stage.decode(failing(&coded), &coding).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source, "{}", stage.id());
            assert_eq!(error.to_string(), "pg_dump exited 1", "{}", stage.id());
        }
    }
}

#[test]
fn what_was_coded_before_an_error_does_not_look_finished() {
    for (stage, block) in stages().into_iter().filter(|(s, _)| s.id() != "sign") {
        for len in [0, 1, block, 3 * block + 1] {
            let mut coded = Vec::new();
            let mut reader = stage
                .encode(failing(&sample(len)), &Coding::new(2))
                .unwrap();
            reader.read_to_end(&mut coded).unwrap_err();
            // And the reader does not pass to an end when asked again.
            reader.read(&mut [0]).unwrap_err();
            decode(&*stage, &coded).unwrap_err();
        }
    }
}

#[cfg(all(feature = "zstd", feature = "age"))]
#[test]
fn a_damaged_or_cut_stream_of_compressed_and_encrypted_bytes_never_decodes() {
    let zstd = Zstd {
        level: 3,
        frame: 100,
    };
    let age = Age::own(IDENTITY).unwrap();
    let coding = Coding::new(2);
    let plain = sample(450);
    let inner = zstd.encode(trickle(&plain), &coding).unwrap();
    let stored = read_all(age.encode(inner, &coding).unwrap()).unwrap();
    let back = |stored: &[u8]| {
        let inner = age.decode(trickle(stored), &coding)?;
        read_all(zstd.decode(inner, &coding)?)
    };
    assert_eq!(back(&stored).unwrap(), plain);
    for at in 0..stored.len() {
        let cut = back(&stored[..at]).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Corrupt, "cut at {at}: {cut:?}");
        let mut flipped = stored.clone();
        flipped[at] ^= 1 << (at % 8);
        let flip = back(&flipped).unwrap_err();
        assert_eq!(flip.kind(), ErrorKind::Corrupt, "flipped at {at}: {flip:?}");
    }
    let longer = [&stored[..], b"x"].concat();
    assert_eq!(back(&longer).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn decoding_begins_at_the_first_read() {
    struct Untouchable;
    impl Read for Untouchable {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("read too early")
        }
    }
    for (stage, _) in stages() {
        drop(
            stage
                .decode(Box::new(Untouchable), &Coding::new(1))
                .unwrap(),
        );
    }
}

#[test]
fn dropping_the_reader_drops_its_input() {
    struct Endless(#[expect(dead_code)] mpsc::Sender<()>);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(7);
            Ok(buffer.len())
        }
    }
    for (stage, _) in stages() {
        let (alive, gone) = mpsc::channel();
        let mut reader = stage
            .encode(Box::new(Endless(alive)), &Coding::new(2))
            .unwrap();
        reader.read_exact(&mut [0; 100]).unwrap();
        drop(reader);
        // The sender is dropped with the input; nothing is ever sent.
        assert_eq!(
            gone.recv_timeout(Duration::from_secs(30)),
            Err(mpsc::RecvTimeoutError::Disconnected),
            "{}",
            stage.id()
        );
    }
}

#[test]
fn a_stage_names_a_stock_command_and_bounds_its_memory() {
    for (stage, block) in stages() {
        assert!(!stage.undo().program().is_empty());
        assert!(stage.memory(2) >= block, "{}", stage.id());
        assert!(stage.memory(2) <= 24 << 20, "{}", stage.id());
        assert_eq!(stage.suffix().is_empty(), stage.stage() == Stage::Sign);
    }
    #[cfg(feature = "zstd")]
    assert!(Zstd::default().memory(2) <= 24 << 20);
}
