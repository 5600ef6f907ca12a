//! A run of bytes on its way, with its checksums.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What the server checks the bytes by, and keeps beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// SHA-256, which is computed for the signature anyway.
    #[default]
    Sha256,
    /// CRC-64/NVME, one for the whole object whatever its parts.
    Crc64Nvme,
}

impl Checksum {
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Sha256 => "x-amz-checksum-sha256",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
        }
    }
}

/// The chunks of one request, hashed as they come.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) len: usize,
    sha256: Sha256,
}

impl Part {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        self.sha256.update(&chunk);
        if !chunk.is_empty() {
            self.chunks.push(chunk);
        }
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.sha256.clone().finalize().into()
    }

    /// The value of the header that belongs to `checksum`.
    pub(crate) fn checksum(&self, checksum: Checksum) -> String {
        match checksum {
            Checksum::Sha256 => BASE64_STANDARD.encode(self.sha256()),
            Checksum::Crc64Nvme => {
                let mut whole = Whole::new(checksum);
                self.chunks.iter().for_each(|chunk| whole.push(chunk));
                whole.finish()
            }
        }
    }
}

/// The checksum of an object that has parts ("Checking object integrity" of the S3 User Guide): a
/// CRC is of all bytes, a SHA-256 of the SHA-256 of each part, with their number behind it.
pub(crate) enum Whole {
    Sha256 { parts: Sha256, count: usize },
    Crc64Nvme(Crc),
}

impl Whole {
    pub(crate) fn new(checksum: Checksum) -> Self {
        match checksum {
            Checksum::Sha256 => Self::Sha256 {
                parts: Sha256::default(),
                count: 0,
            },
            Checksum::Crc64Nvme => Self::Crc64Nvme(Crc::new(CrcAlgorithm::Crc64Nvme)),
        }
    }

    /// The next bytes, of whatever part.
    pub(crate) fn push(&mut self, chunk: &Bytes) {
        if let Self::Crc64Nvme(crc) = self {
            crc.update(chunk);
        }
    }

    /// The next part, in order.
    pub(crate) fn part(&mut self, part: &Part) {
        if let Self::Sha256 { parts, count } = self {
            parts.update(part.sha256());
            *count += 1;
        }
    }

    pub(crate) fn finish(&self) -> String {
        match self {
            Self::Sha256 { parts, count } => {
                let digest = BASE64_STANDARD.encode(parts.clone().finalize());
                format!("{digest}-{count}")
            }
            Self::Crc64Nvme(crc) => BASE64_STANDARD.encode(crc.finalize().to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        let mut part = Part::default();
        part.push(Bytes::from_static(b"1234"));
        part.push(Bytes::from_static(b"56789"));
        // The check value of CRC-64/NVME in the catalogue of parametrised CRCs.
        let crc = BASE64_STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes());
        assert_eq!(part.checksum(Checksum::Crc64Nvme), crc);
        let sha = "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=";
        assert_eq!(part.checksum(Checksum::Sha256), sha);
    }
}
