//! Bytes in, the same bytes out, and no more of them held than needed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::testing::noise;

/// What is encoded decodes to the same bytes: any data, any number of threads, with and without
/// a check of its own output.
pub fn plain_bytes_come_back(fixture: &TransformFixture) {
    for plain in samples() {
        for (threads, verify) in [(1, true), (4, true), (2, false)] {
            let coding = Coding::new(threads).verifying(verify);
            let input = Box::new(io::Cursor::new(plain.clone()));
            let coded = fixture
                .encoder
                .encode(input, &coding)
                .and_then(|coded| drain(coded).1);
            let what = format!("{threads} threads, verify {verify}");
            let coded = coded.unwrap_or_else(|error| panic!("{what}: encode: {error:?}"));
            assert_decodes(fixture, coded, &plain, &what);
        }
    }
}

/// 256 MiB of zeros, far more than any buffer, come back in full.
pub fn a_long_run_of_zeros_comes_back(fixture: &TransformFixture) {
    let len = 256 << 20;
    let zeros = Box::new(io::repeat(0).take(len));
    let coded = fixture
        .encoder
        .encode(zeros, &Coding::new(1))
        .expect("encode");
    let mut plain = fixture
        .decoder
        .decode(coded, &Coding::new(1))
        .expect("decode");
    let mut buffer = vec![1; CHUNK];
    let mut back = 0;
    loop {
        match plain.read(&mut buffer).expect("zeros") {
            0 => break,
            n => {
                assert!(!buffer[..n].contains(&1), "not a zero after {back} bytes");
                buffer[..n].fill(1);
                back += n as u64;
            }
        }
    }
    assert_eq!(back, len);
}

/// Inputs that come in drops, and outputs that are read in drops, give the same bytes.
pub fn reads_of_any_size_make_no_difference(fixture: &TransformFixture) {
    for plain in [
        Bytes::new(),
        noise(1, 1),
        noise(70_001, 2),
        vec![7; 70_001].into(),
    ] {
        let coded = fixture
            .encoder
            .encode(drops(plain.clone(), 1), &Coding::new(1));
        let coded = in_drops(coded.expect("encode"), 5);
        assert_decodes(fixture, coded.clone(), &plain, "encoded in drops");
        let back = fixture.decoder.decode(drops(coded, 3), &Coding::new(1));
        let back = in_drops(back.expect("decode"), 2);
        assert!(
            back == plain,
            "decoded in drops: {} bytes came back as {}",
            plain.len(),
            back.len()
        );
    }
}

/// Gives at most 1 + `seed` % 7, 2 + `seed` % 7 … bytes at a time.
fn drops(bytes: Bytes, seed: usize) -> Reader {
    struct Drops(io::Cursor<Bytes>, usize);
    impl Read for Drops {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            let n = buffer.len().min(1 + self.1 % 7);
            self.0.read(&mut buffer[..n])
        }
    }
    Box::new(Drops(io::Cursor::new(bytes), seed))
}

fn in_drops(mut reader: Reader, seed: usize) -> Bytes {
    let mut all = Vec::new();
    let mut buffer = [0; 16];
    for turn in seed.. {
        assert_eq!(reader.read(&mut []).expect("an empty read"), 0);
        let size = 1 + turn % buffer.len();
        match reader
            .read(&mut buffer[..size])
            .expect("a read of a few bytes")
        {
            0 => break,
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
    all.into()
}

/// Two encodes by one stage do not mix, and two encryptions of the same bytes differ.
pub fn encodes_are_independent(fixture: &TransformFixture) {
    let plains = [noise(300_001, 1), noise(200_001, 2), noise(300_001, 1)];
    let mut readers: Vec<Reader> = plains
        .iter()
        .map(|plain| {
            let input = Box::new(io::Cursor::new(plain.clone()));
            fixture
                .encoder
                .encode(input, &Coding::new(1))
                .expect("encode")
        })
        .collect();
    let mut coded = vec![Vec::new(); readers.len()];
    let mut buffer = [0; 1_000];
    let mut going = true;
    while going {
        going = false;
        for (reader, coded) in readers.iter_mut().zip(&mut coded) {
            let n = reader.read(&mut buffer).expect("read what is encoded");
            coded.extend_from_slice(&buffer[..n]);
            going |= n > 0;
        }
    }
    if fixture.encoder.stage() == Stage::Encrypt {
        assert!(
            coded[0] != coded[2],
            "two encryptions of the same bytes are the same"
        );
    }
    for (coded, plain) in coded.into_iter().zip(&plains) {
        assert_decodes(fixture, coded.into(), plain, "one of three at a time");
    }
}

/// Over any length of data that does not shrink, what went in and did not come out yet stays
/// below [`Transform::memory`] and a chunk, in both directions.
pub fn it_holds_no_more_than_it_declares(fixture: &TransformFixture) {
    let declared = |stage: &dyn Transform| stage.memory(1) as u64 + CHUNK as u64;
    let (encoder, decoder) = (&fixture.encoder, &fixture.decoder);
    let larger = declared(&**encoder).max(declared(&**decoder));
    assert!(larger < 256 << 20, "{larger} bytes are no bound");
    let len = 2 * larger + (16 << 20);

    let (plain, pulled) = Metered::over(Box::new(Noise { left: len, seed: 0 }));
    let coded = encoder.encode(plain, &Coding::new(1)).expect("encode");
    let coded = Ahead::new(coded, pulled, declared(&**encoder), "encode");
    let (coded, pulled) = Metered::over(Box::new(coded));
    let plain = decoder.decode(coded, &Coding::new(1)).expect("decode");
    let mut plain = Ahead::new(plain, pulled, declared(&**decoder), "decode");
    let back = io::copy(&mut plain, &mut io::sink()).expect("the plain bytes");
    assert_eq!(back, len);
}

/// Bytes that do not shrink, made as they are read.
struct Noise {
    left: u64,
    seed: u64,
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.seed += 1;
        let n = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        buffer[..n].copy_from_slice(&noise(n, self.seed));
        self.left -= n as u64;
        Ok(n)
    }
}

/// Counts what is pulled.
struct Metered(Reader, Arc<AtomicU64>);

impl Metered {
    fn over(inner: Reader) -> (Reader, Arc<AtomicU64>) {
        let pulled = Arc::new(AtomicU64::new(0));
        (Box::new(Self(inner, Arc::clone(&pulled))), pulled)
    }
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.fetch_add(n as u64, Ordering::SeqCst);
        Ok(n)
    }
}

/// Checks, at every read, how far the input is ahead of the output.
struct Ahead {
    output: Reader,
    pulled: Arc<AtomicU64>,
    given: u64,
    limit: u64,
    what: &'static str,
}

impl Ahead {
    fn new(output: Reader, pulled: Arc<AtomicU64>, limit: u64, what: &'static str) -> Self {
        Self {
            output,
            pulled,
            given: 0,
            limit,
            what,
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.output.read(buffer)?;
        self.given += n as u64;
        let held = self
            .pulled
            .load(Ordering::SeqCst)
            .saturating_sub(self.given);
        let (what, limit) = (self.what, self.limit);
        assert!(
            held <= limit,
            "{what} holds {held} bytes where {limit} are declared"
        );
        Ok(n)
    }
}
