//! Tells errors of the input from errors of the codec, and reads nothing before it is asked to.

use std::io::{self, Read};

use super::Reader;
use crate::{Error, ErrorKind, Result};

/// Marks every error of `inner` as one of ours, so that a codec in between cannot pass it off as
/// damage, nor its own findings as an error of the input.
#[cfg(any(feature = "zstd", feature = "gzip"))]
pub(super) fn input(inner: Reader) -> Reader {
    Box::new(Input(inner))
}

#[cfg(any(feature = "zstd", feature = "gzip"))]
struct Input(Reader);

#[cfg(any(feature = "zstd", feature = "gzip"))]
impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|e| Error::from(e).into()),
            }
        }
    }
}

/// An error out of a codec over [`input`]: that of the input unchanged, anything else `Corrupt`.
#[cfg(any(feature = "zstd", feature = "gzip"))]
pub(super) fn damage(what: &str, error: io::Error) -> Error {
    if error.get_ref().is_some_and(|e| e.is::<Error>()) {
        return error.into();
    }
    Error::new(
        ErrorKind::Corrupt,
        format!("{what} is damaged or cut short"),
    )
    .with_source(error)
}

/// A reader that is opened at its first read, on the thread that reads, and that goes on to fail
/// once it failed: some codecs take up after an error as if they had come to the end.
pub(super) fn lazy(open: impl FnOnce() -> Result<Reader> + Send + 'static) -> Reader {
    Box::new(Lazy::Closed(Some(Box::new(open))))
}

type Open = Box<dyn FnOnce() -> Result<Reader> + Send>;

enum Lazy {
    Closed(Option<Open>),
    Open(Reader),
    Failed(Error),
}

impl Read for Lazy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Self::Closed(open) = self
            && let Some(open) = open.take()
        {
            match open() {
                Ok(reader) => *self = Self::Open(reader),
                Err(error) => {
                    *self = Self::Failed(error.duplicate());
                    return Err(error.into());
                }
            }
        }
        match self {
            Self::Open(reader) => reader.read(buffer).map_err(|error| {
                let error = Error::from(error);
                *self = Self::Failed(error.duplicate());
                error.into()
            }),
            Self::Failed(error) => Err(error.duplicate().into()),
            Self::Closed(_) => {
                Err(Error::new(ErrorKind::Other, "this stream panicked when it was opened").into())
            }
        }
    }
}
