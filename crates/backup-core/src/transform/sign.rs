//! A signature over each part, beside the signed manifest.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use bytes::Bytes;

use super::{Coding, Reader, Stage, StockCommand, Transform};
use crate::pipeline::thread::{self, PipeWriter};
use crate::{CHUNK, Error, ErrorKind, Result, Signer};

/// Leaves the bytes alone and notes a `signature` over them: the text of a `.minisig` file.
///
/// The manifest is signed anyhow; this lets a single part be checked with `minisign -V` and
/// nothing else. Decoding checks nothing: the pipeline compares with the signed manifest.
#[derive(Clone, Debug)]
pub struct Sign {
    signer: Arc<dyn Signer>,
}

/// What a part's signature says of it. Its name is not known here, and is in the manifest.
const COMMENT: &str = "part of a lifebelt backup";

impl Sign {
    /// Signs with `signer`.
    pub fn with(signer: impl Signer) -> Self {
        Self {
            signer: Arc::new(signer),
        }
    }
}

impl Transform for Sign {
    fn id(&self) -> &str {
        super::SIGN
    }

    fn suffix(&self) -> &str {
        ""
    }

    fn stage(&self) -> Stage {
        Stage::Sign
    }

    fn encode(&self, plain: Reader, coding: &Coding) -> Result<Reader> {
        let signer = Arc::clone(&self.signer);
        let (copy, mut message) = thread::pipe();
        let (done, signature) = mpsc::channel();
        thread::spawn("sign", move || {
            let _ = done.send(signer.sign_stream(&mut message, COMMENT));
        })?;
        Ok(Box::new(Signing {
            plain,
            coding: coding.clone(),
            copy: Some(copy),
            signature,
            ended: false,
        }))
    }

    fn decode(&self, coded: Reader, _: &Coding) -> Result<Reader> {
        Ok(coded)
    }

    fn undo(&self) -> StockCommand {
        StockCommand::new(["cat"])
    }

    fn memory(&self, _: usize) -> usize {
        (thread::SLOTS + 2) * CHUNK
    }
}

struct Signing {
    plain: Reader,
    coding: Coding,
    copy: Option<PipeWriter>,
    signature: Receiver<Result<String>>,
    ended: bool,
}

impl Signing {
    fn signature(&self) -> Result<String> {
        self.signature
            .recv()
            .map_err(|_| Error::new(ErrorKind::Other, "the signer panicked"))?
    }
}

impl Read for Signing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let Some(copy) = &self.copy else {
            return Err(Error::new(ErrorKind::Cancelled, "this stream failed before").into());
        };
        let room = buffer.len().min(CHUNK);
        let n = match self.plain.read(&mut buffer[..room]) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Err(e) => {
                // A writer that vanishes tells the signer that the message is not complete.
                self.copy = None;
                return Err(e);
            }
        };
        if n > 0 {
            let sent = copy.blocking_send(Bytes::copy_from_slice(&buffer[..n]));
            if sent.is_err() {
                self.copy = None;
                // The signer gave up early, and knows why.
                self.signature()?;
                let early = "the signer did not read to the end";
                return Err(Error::new(ErrorKind::Other, early).into());
            }
        } else if let Some(copy) = self.copy.take() {
            copy.blocking_finish(Ok(()));
            self.coding.note("signature", self.signature()?);
            self.ended = true;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::tests::{read_all, sample, trickle};
    use crate::{SigningKey, TrustedKeys, Verifier};

    #[test]
    fn the_note_is_a_signature_over_all_bytes() {
        let key = SigningKey::generate().unwrap();
        let trusted = TrustedKeys::new([key.public()]);
        let sign = Sign::with(key);
        for len in [0, 1, CHUNK, 3 * CHUNK + 1] {
            let bytes = sample(len);
            let coding = Coding::new(1);
            let passed = read_all(sign.encode(trickle(&bytes), &coding).unwrap()).unwrap();
            assert!(passed == bytes);
            let notes = coding.notes();
            let signature = notes["signature"].as_str().unwrap();
            assert_eq!(trusted.verify(&bytes, signature).unwrap(), COMMENT);
        }
    }

    #[test]
    fn what_fails_is_not_signed() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(Error::new(ErrorKind::Source, "disk on fire").into())
            }
        }
        let sign = Sign::with(SigningKey::generate().unwrap());
        let coding = Coding::new(1);
        let mut reader = sign.encode(Box::new(Broken), &coding).unwrap();
        for _ in 0..2 {
            reader.read(&mut [0]).unwrap_err();
        }
        assert!(coding.notes().is_empty());
    }

    #[test]
    fn an_error_of_the_signer_is_the_stream_s() {
        #[derive(Debug)]
        struct Away;
        impl Signer for Away {
            fn sign_stream(&self, _: &mut dyn Read, _: &str) -> Result<String> {
                Err(Error::new(
                    ErrorKind::Unavailable,
                    "the token is not plugged in",
                ))
            }
        }
        for len in [0, 10 * CHUNK] {
            let coding = Coding::new(1);
            let reader = Sign::with(Away)
                .encode(trickle(&sample(len)), &coding)
                .unwrap();
            assert_eq!(read_all(reader).unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }
}
