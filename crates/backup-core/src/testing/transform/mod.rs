//! What every [`Transform`] must do, one public function for each case.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;

use crate::transform::{Reader, Stage};
use crate::{CHUNK, Coding, Error, ErrorKind, Result, Transform};

mod damage;
mod flow;

pub use damage::*;
pub use flow::*;

/// A stage to be tested: the side that encodes, and the side that decodes what it made.
#[derive(Clone)]
pub struct TransformFixture {
    encoder: Arc<dyn Transform>,
    decoder: Arc<dyn Transform>,
    secret: Option<String>,
}

impl TransformFixture {
    /// A stage that undoes what it does.
    pub fn new(both: impl Transform) -> Self {
        let both: Arc<dyn Transform> = Arc::new(both);
        Self {
            encoder: Arc::clone(&both),
            decoder: both,
            secret: None,
        }
    }

    /// An encryption whose key is elsewhere: in `decoder`.
    pub fn pair(encoder: impl Transform, decoder: impl Transform) -> Self {
        Self {
            encoder: Arc::new(encoder),
            decoder: Arc::new(decoder),
            secret: None,
        }
    }

    /// A key that the stage was given and must not show.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(secret.into());
        self
    }
}

impl<T: Transform> From<T> for TransformFixture {
    fn from(both: T) -> Self {
        Self::new(both)
    }
}

impl<E: Transform, D: Transform> From<(E, D)> for TransformFixture {
    fn from((encoder, decoder): (E, D)) -> Self {
        Self::pair(encoder, decoder)
    }
}

impl fmt::Debug for TransformFixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TransformFixture({:?}, {:?})",
            self.encoder, self.decoder
        )
    }
}

/// The cases, once: for the macro that makes tests of them and for the kit's own test.
#[doc(hidden)]
#[macro_export]
macro_rules! __transform_cases {
    ($then:path { $($arguments:tt)* }) => {
        $then! { [
            plain_bytes_come_back
            a_long_run_of_zeros_comes_back
            reads_of_any_size_make_no_difference
            encodes_are_independent
            it_holds_no_more_than_it_declares
            an_error_of_the_plain_side_comes_out_unchanged
            a_failed_encode_does_not_look_finished
            an_error_of_the_coded_side_comes_out_unchanged
            what_is_cut_short_is_corrupt
            what_is_changed_is_never_taken_for_the_data
            bytes_after_the_end_are_corrupt
            without_a_key_decode_is_denied
            an_empty_suffix_means_unchanged_bytes
            it_declares_itself_and_shows_no_secret
        ] $($arguments)* }
    };
}

fn encode(stage: &dyn Transform, plain: impl Read + Send + 'static) -> Result<Bytes> {
    let coded = stage.encode(Box::new(plain), &Coding::new(1))?;
    drain(coded).1
}

fn decode(stage: &dyn Transform, coded: impl Read + Send + 'static) -> Result<Bytes> {
    let plain = stage.decode(Box::new(coded), &Coding::new(1))?;
    drain(plain).1
}

/// What is coded without an error. Panics on one.
fn encoded(fixture: &TransformFixture, plain: &Bytes) -> Bytes {
    let coded = encode(&*fixture.encoder, io::Cursor::new(plain.clone()));
    coded.unwrap_or_else(|error| panic!("encode {} bytes: {error:?}", plain.len()))
}

/// What came before the end, and how it ended.
fn drain(mut reader: Reader) -> (Vec<u8>, Result<Bytes>) {
    let mut all = Vec::new();
    match reader.read_to_end(&mut all) {
        Ok(_) => (Vec::new(), Ok(all.into())),
        Err(error) => (all, Err(error.into())),
    }
}

/// The plain bytes come back, or a panic says how they differ.
fn assert_decodes(fixture: &TransformFixture, coded: Bytes, plain: &Bytes, what: &str) {
    let len = plain.len();
    match decode(&*fixture.decoder, io::Cursor::new(coded)) {
        Ok(back) => assert!(
            back == *plain,
            "{what}: {len} bytes came back as {}",
            back.len()
        ),
        Err(error) => panic!("{what}: decode {len} bytes: {error:?}"),
    }
}

/// A few kinds of data: none, one byte, what compresses well and what does not.
fn samples() -> Vec<Bytes> {
    let text = "2026-11-21 02:00:00 order 7: one anvil, two rockets\n".repeat(2_000);
    let mut samples = vec![Bytes::new(), Bytes::from_static(b"x"), text.into()];
    for len in [CHUNK - 1, CHUNK, CHUNK + 1, 3 * 1024 * 1024 + 5] {
        samples.push(crate::testing::noise(len, 1));
        samples.push(vec![0; len].into());
    }
    samples
}

/// Gives `bytes`, then fails with `kind` for ever.
struct Failing {
    bytes: io::Cursor<Bytes>,
    kind: ErrorKind,
}

const REASON: &str = "pg_dump exited 1";

impl Failing {
    fn after(bytes: Bytes, kind: ErrorKind) -> Self {
        let bytes = io::Cursor::new(bytes);
        Self { bytes, kind }
    }
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.bytes.read(buffer)? {
            0 if !buffer.is_empty() => Err(Error::new(self.kind, REASON).into()),
            n => Ok(n),
        }
    }
}

/// The reader ends in this kind of error, with the reason in it, and goes on to fail.
fn assert_fails(reader: Result<Reader>, kind: ErrorKind, what: &str) {
    let error = match reader {
        Err(error) => error,
        Ok(mut reader) => {
            let mut sink = Vec::new();
            match reader.read_to_end(&mut sink) {
                Ok(_) => panic!("{what}: a good end, where {kind:?} was due"),
                Err(error) => {
                    let again = reader.read(&mut [0; 64]);
                    assert!(
                        again.is_err(),
                        "{what}: after its error it goes on with {again:?}"
                    );
                    error.into()
                }
            }
        }
    };
    assert_eq!(error.kind(), kind, "{what}: {error:?}");
    let chain = error.chain();
    assert!(
        chain.contains(REASON),
        "{what}: the reason is lost: {chain}"
    );
}

/// The stage says what it is: a name and a suffix that can be part of a key, a command that
/// undoes it, and how much memory it takes. Neither `Debug` nor the command shows a key.
pub fn it_declares_itself_and_shows_no_secret(fixture: &TransformFixture) {
    for stage in [&fixture.encoder, &fixture.decoder] {
        let (id, suffix) = (stage.id(), stage.suffix());
        crate::Key::check(id).expect("its id is a name");
        assert_eq!(id.to_lowercase(), id, "ids are lower case");
        if !suffix.is_empty() {
            assert!(
                suffix.starts_with('.'),
                "suffix {suffix:?} begins with a dot"
            );
            crate::Key::check(&suffix[1..]).expect("its suffix fits into a key");
        }
        assert_eq!(
            suffix.is_empty(),
            stage.stage() == Stage::Sign,
            "only signing has no suffix"
        );
        let undo = stage.undo();
        assert!(!undo.program().is_empty(), "no command undoes it");
        for threads in [1, 2, 16] {
            let memory = stage.memory(threads);
            assert!(
                memory <= 1 << 32,
                "{memory} bytes for {threads} threads are no bound"
            );
        }
        let shown = format!("{stage:?} {stage:#?} {undo} {fixture:?}");
        let secret = fixture.secret.as_deref();
        assert!(
            !secret.is_some_and(|s| shown.contains(s)),
            "a secret shows in {shown}"
        );
    }
    let (encoder, decoder) = (&fixture.encoder, &fixture.decoder);
    assert_eq!(encoder.id(), decoder.id(), "both sides are one stage");
    assert_eq!(
        encoder.suffix(),
        decoder.suffix(),
        "both sides are one stage"
    );
}

/// A stage without a suffix leaves the bytes as they are; one with a suffix does not.
pub fn an_empty_suffix_means_unchanged_bytes(fixture: &TransformFixture) {
    for plain in samples() {
        let same = encoded(fixture, &plain) == plain;
        let suffix = fixture.encoder.suffix();
        assert_eq!(
            same,
            suffix.is_empty(),
            "{} bytes, suffix {suffix:?}",
            plain.len()
        );
    }
}

/// A stage that says that it cannot decode answers `Denied`; one that says that it can, does.
pub fn without_a_key_decode_is_denied(fixture: &TransformFixture) {
    let plain = Bytes::from_static(b"seven anvils");
    let coded = encoded(fixture, &plain);
    assert!(
        fixture.decoder.can_decode(),
        "this stage cannot decode: test it as a pair with one that can"
    );
    for stage in [&fixture.encoder, &fixture.decoder] {
        match decode(&**stage, io::Cursor::new(coded.clone())) {
            Ok(back) => {
                assert!(stage.can_decode(), "decodes without what it needs");
                assert_eq!(back, plain);
            }
            Err(error) => {
                assert!(!stage.can_decode(), "says that it can decode: {error:?}");
                assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            }
        }
    }
}
