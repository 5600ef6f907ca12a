//! Who wrote this: signatures over small documents, in the format of minisign.

use std::fmt::Debug;
use std::io::Read;

use crate::Result;

/// Signs manifests, checksums and records. [`SigningKey`](crate::SigningKey) is the one in the
/// box; a hardware key can be another.
pub trait Signer: Debug + Send + Sync + 'static {
    /// The text of a `.minisig` file over everything that `message` gives, prehashed (`ED`), with
    /// `comment` as its trusted comment and the untrusted comment of `minisign -S`. An error of
    /// `message` comes out unchanged. Blocks: never called on a thread that runs tasks.
    fn sign_stream(&self, message: &mut dyn Read, comment: &str) -> Result<String>;

    /// [`sign_stream`](Self::sign_stream) over bytes at hand.
    fn sign(&self, mut message: &[u8], comment: &str) -> Result<String> {
        self.sign_stream(&mut message, comment)
    }
}

/// Checks signatures against the keys that somebody trusts.
pub trait Verifier: Debug + Send + Sync + 'static {
    /// The trusted comment, if one of the keys signed exactly `message` and `signature` has the
    /// one form that [`Signer::sign`] writes: no byte of it can be changed unseen. Otherwise
    /// [`Corrupt`](crate::ErrorKind::Corrupt).
    fn verify(&self, message: &[u8], signature: &str) -> Result<String>;
}
