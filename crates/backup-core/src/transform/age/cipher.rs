//! ChaCha20-Poly1305: that of the `age` crate, or a faster one in C with the feature `aws-lc`.

use super::{TAG, corrupt};
use crate::{Error, ErrorKind, Result};

#[cfg(feature = "aws-lc")]
pub(super) struct Cipher(aws_lc_rs::aead::LessSafeKey);

#[cfg(feature = "aws-lc")]
impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Result<Self> {
        use aws_lc_rs::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| broken())?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts in place. No nonce may come twice under one key.
    pub(super) fn seal(&self, nonce: [u8; 12], chunk: &mut [u8]) -> Result<[u8; TAG]> {
        use aws_lc_rs::aead::{Aad, Nonce};
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::empty(), chunk)
            .map_err(|_| broken())?;
        tag.as_ref().try_into().map_err(|_| broken())
    }

    /// Decrypts in place.
    pub(super) fn open<'a>(&self, nonce: [u8; 12], chunk: &'a mut [u8]) -> Result<&'a [u8]> {
        use aws_lc_rs::aead::{Aad, Nonce};
        let nonce = Nonce::assume_unique_for_key(nonce);
        match self.0.open_in_place(nonce, Aad::empty(), chunk) {
            Ok(plain) => Ok(plain),
            Err(_) => Err(corrupt("is damaged or cut short")),
        }
    }
}

#[cfg(not(feature = "aws-lc"))]
pub(super) struct Cipher(chacha20poly1305::ChaCha20Poly1305);

#[cfg(not(feature = "aws-lc"))]
impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Result<Self> {
        use chacha20poly1305::KeyInit;
        Ok(Self(chacha20poly1305::ChaCha20Poly1305::new(key.into())))
    }

    /// Encrypts in place. No nonce may come twice under one key.
    pub(super) fn seal(&self, nonce: [u8; 12], chunk: &mut [u8]) -> Result<[u8; TAG]> {
        use chacha20poly1305::AeadInPlace;
        self.0
            .encrypt_in_place_detached(&nonce.into(), b"", chunk)
            .map(Into::into)
            .map_err(|_| broken())
    }

    /// Decrypts in place.
    pub(super) fn open<'a>(&self, nonce: [u8; 12], chunk: &'a mut [u8]) -> Result<&'a [u8]> {
        use chacha20poly1305::AeadInPlace;
        let damaged = || corrupt("is damaged or cut short");
        let len = chunk.len().checked_sub(TAG).ok_or_else(damaged)?;
        let (plain, tag) = chunk.split_at_mut(len);
        self.0
            .decrypt_in_place_detached(&nonce.into(), b"", plain, (&*tag).into())
            .map_err(|_| damaged())?;
        Ok(plain)
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Other, "the cipher refuses to work")
}
