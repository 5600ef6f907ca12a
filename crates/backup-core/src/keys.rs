//! Signing keys in the format of minisign.

use std::fmt;
use std::io::{self, Cursor, Read};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign::SignatureBox;
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Result, Secret, Signer, Verifier};

/// The first line of every signature, after `untrusted comment: `; that of `minisign -S`, so that
/// what somebody signs by hand with its defaults is accepted too.
const UNTRUSTED_COMMENT: &str = "signature from minisign secret key";

/// Signs, in the format of [minisign](https://jedisct1.github.io/minisign/). Hidden in `Debug`,
/// overwritten when dropped.
pub struct SigningKey {
    secret: Box<minisign::SecretKey>,
    public: PublicKey,
}

/// Layout of a secret key: algorithms (2, 2 and 2 bytes), then salt (32), opslimit (8),
/// memlimit (8), and what a passphrase protects: key id (8), key (64), checksum (32).
const KEY_LEN: usize = 158;
const KDF: std::ops::Range<usize> = 2..4;
const SALT: std::ops::Range<usize> = 6..38;
const OPSLIMIT: std::ops::Range<usize> = 38..46;
const MEMLIMIT: std::ops::Range<usize> = 46..54;
const PROTECTED: std::ops::Range<usize> = 54..KEY_LEN;
const CHECKSUM: std::ops::Range<usize> = 126..KEY_LEN;

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self> {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().map_err(no_random_numbers)?;
        Self::new(pair.sk)
    }

    /// Refuses a key whose halves do not fit.
    fn new(secret: minisign::SecretKey) -> Result<Self> {
        let secret = Box::new(secret);
        let public = minisign::PublicKey::from_secret_key(&secret).map_err(|_| damaged())?;
        let key = Self {
            secret,
            public: PublicKey(public),
        };
        TrustedKeys::new([key.public()])
            .verify(b"", &key.sign(b"", "")?)
            .map_err(|_| damaged())?;
        Ok(key)
    }

    /// Reads the text of a `minisign.key` file. A key without a passphrase needs none, and one
    /// that is given then is not looked at.
    ///
    /// Keys made by `minisign -G` with a passphrase take 1 GiB of memory to open; those of
    /// [`to_text`](Self::to_text) take 128 MiB.
    pub fn from_text(text: &str, passphrase: Option<&str>) -> Result<Self> {
        const WHAT: &str = "signing key";
        let line = text.lines().nth(1).unwrap_or_default().trim();
        let bytes = Zeroizing::new(STANDARD.decode(line).unwrap_or_default());
        if bytes.len() != KEY_LEN || !bytes.starts_with(b"Ed") || &bytes[4..6] != b"B2" {
            return Err(invalid(WHAT, "is not the text of a minisign.key file"));
        }
        let text = minisign::SecretKeyBox::from(text.to_owned());
        let secret = match (&bytes[KDF], passphrase) {
            // `minisign -GW` leaves the checksum out.
            (b"\0\0", _) if !has_checksum(&bytes) => {
                minisign::SecretKey::from_bytes(&bytes).map_err(|_| damaged())?
            }
            (b"\0\0", _) => text.into_unencrypted_secret_key().map_err(|_| damaged())?,
            (b"Sc", Some(passphrase)) => text
                .into_secret_key(Some(passphrase.to_owned()))
                .map_err(|_| {
                    Error::new(
                        ErrorKind::Denied,
                        "the passphrase does not open the signing key",
                    )
                })?,
            (b"Sc", None) => return Err(invalid(WHAT, "needs its passphrase")),
            _ => {
                return Err(invalid(
                    WHAT,
                    "is protected in a way that minisign does not know",
                ));
            }
        };
        Self::new(secret)
    }

    /// The text of a `minisign.key` file, protected with a passphrase if there is one (scrypt,
    /// 128 MiB). `Unsupported` for a key of `minisign -GW` with a passphrase: it lacks the
    /// checksum that tells a right passphrase from a wrong one.
    pub fn to_text(&self, passphrase: Option<&str>) -> Result<Secret> {
        let mut bytes = Zeroizing::new(self.secret.to_bytes());
        let comment = match passphrase {
            None => "minisign secret key",
            Some(_) if !has_checksum(&bytes) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "a signing key made by minisign -GW cannot be given a passphrase",
                ));
            }
            Some(passphrase) => {
                protect(&mut bytes, passphrase)?;
                "minisign encrypted secret key"
            }
        };
        let line = Zeroizing::new(STANDARD.encode(&bytes));
        Ok(Secret::new(format!(
            "untrusted comment: {comment}\n{}\n",
            line.as_str()
        )))
    }

    /// The other half, for whoever checks.
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }
}

fn has_checksum(bytes: &[u8]) -> bool {
    bytes[CHECKSUM].iter().any(|b| *b != 0)
}

/// Encrypts in place as minisign does: XOR with an scrypt stream. Its opslimit and memlimit are
/// libsodium's words for N = 2^17, r = 8, p = 1.
fn protect(bytes: &mut [u8], passphrase: &str) -> Result<()> {
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(no_random_numbers)?;
    bytes[KDF].copy_from_slice(b"Sc");
    bytes[SALT].copy_from_slice(&salt);
    bytes[OPSLIMIT].copy_from_slice(&(1u64 << 22).to_le_bytes());
    bytes[MEMLIMIT].copy_from_slice(&(1u64 << 27).to_le_bytes());
    let mut stream = Zeroizing::new([0; PROTECTED.end - PROTECTED.start]);
    let broken = |e: &dyn fmt::Display| Error::new(ErrorKind::Other, format!("scrypt: {e}"));
    let params =
        scrypt::Params::new(17, 8, 1, scrypt::Params::RECOMMENDED_LEN).map_err(|e| broken(&e))?;
    scrypt::scrypt(passphrase.as_bytes(), &salt, &params, &mut *stream).map_err(|e| broken(&e))?;
    for (byte, mask) in bytes[PROTECTED].iter_mut().zip(stream.iter()) {
        *byte ^= mask;
    }
    Ok(())
}

impl Signer for SigningKey {
    fn sign_stream(&self, message: &mut dyn Read, comment: &str) -> Result<String> {
        if comment.trim() != comment || comment.chars().any(|c| c.is_control() && c != '\t') {
            return Err(invalid(
                "trusted comment",
                "must be one line without spaces around it",
            ));
        }
        // The crate keeps no cause of an error.
        let mut message = Remembering {
            inner: message,
            error: None,
        };
        let signature = minisign::sign(
            None,
            &self.secret,
            &mut message,
            Some(comment),
            Some(UNTRUSTED_COMMENT),
        );
        if let Some(error) = message.error {
            return Err(error);
        }
        signature
            .map(SignatureBox::into_string)
            .map_err(|e| Error::new(ErrorKind::Other, format!("cannot sign: {e}")))
    }
}

struct Remembering<'a> {
    inner: &'a mut dyn Read,
    error: Option<Error>,
}

impl Read for Remembering<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) => return Ok(n),
                Err(e) => {
                    let error = Error::from(e);
                    let copy = error.duplicate();
                    self.error = Some(error);
                    return Err(copy.into());
                }
            }
        }
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        // The crate's key does not erase itself. The black box keeps the write from being
        // optimised away.
        if let Ok(blank) = minisign::SecretKey::from_bytes(&[0; KEY_LEN]) {
            *self.secret = blank;
            std::hint::black_box(&self.secret);
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

/// Says which signatures are good. `Display` and `FromStr` use the line that begins with `RW`;
/// `FromStr` takes the two lines of a `minisign.pub` file as well.
#[derive(Clone)]
pub struct PublicKey(minisign::PublicKey);

impl PublicKey {
    /// Up to sixteen hex digits that name the key, as minisign prints them.
    pub fn id(&self) -> String {
        key_id(self.0.keynum())
    }

    /// The text of a `minisign.pub` file.
    pub fn to_text(&self) -> String {
        format!(
            "untrusted comment: minisign public key {}\n{self}\n",
            self.id()
        )
    }
}

fn key_id(bytes: &[u8]) -> String {
    let number = bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    format!("{number:X}")
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let line = match text.split_once('\n') {
            Some((comment, line)) if comment.starts_with("untrusted comment:") => line.trim(),
            _ => text,
        };
        match STANDARD.decode(line).as_deref() {
            Ok(bytes @ [b'E', b'd', ..]) if bytes.len() == 42 => {
                minisign::PublicKey::from_bytes(bytes).map(Self).ok()
            }
            _ => None,
        }
        .ok_or_else(|| {
            invalid(
                "public key",
                "is not the line that begins with RW in a minisign.pub file",
            )
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.to_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bytes() == other.0.to_bytes()
    }
}

impl Eq for PublicKey {}

/// The keys whose signatures are accepted. Without any, none is.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(Vec<PublicKey>);

impl TrustedKeys {
    /// Trusts each of `keys`.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl Verifier for TrustedKeys {
    fn verify(&self, message: &[u8], signature: &str) -> Result<String> {
        let parsed = parse(signature).ok_or_else(|| {
            corrupt("the signature is damaged, or not in the form that minisign -S writes")
        })?;
        let mut known = self
            .0
            .iter()
            .filter(|key| key.0.keynum() == parsed.keynum())
            .peekable();
        if known.peek().is_none() {
            return Err(corrupt(format!(
                "signed by key {}, which is not trusted",
                key_id(parsed.keynum())
            )));
        }
        let good = |key: &PublicKey| {
            minisign::verify(&key.0, &parsed, Cursor::new(message), true, false, false).is_ok()
        };
        if !known.any(good) {
            return Err(corrupt(format!(
                "the signature by key {} does not fit: what it signs has changed",
                key_id(parsed.keynum())
            )));
        }
        parsed
            .trusted_comment()
            .map_err(|_| corrupt("the trusted comment is damaged"))
    }
}

/// Only what renders to the very same text, so that no byte can change unseen.
fn parse(text: &str) -> Option<SignatureBox> {
    let lines: Vec<&str> = text.split('\n').collect();
    let [_, signature, _, global, ""] = lines[..] else {
        return None;
    };
    // The crate panics on a shorter one and ignores what a longer one has more.
    let lens = [signature, global].map(|line| STANDARD.decode(line).map_or(0, |b| b.len()));
    if lens != [74, 64] {
        return None;
    }
    let parsed = SignatureBox::from_string(text).ok()?;
    let canonical = parsed.is_prehashed()
        && parsed.untrusted_comment().ok()? == UNTRUSTED_COMMENT
        && parsed.to_string() == text;
    canonical.then_some(parsed)
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

fn damaged() -> Error {
    invalid("signing key", "is damaged")
}

fn invalid(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{what} {why}"))
}

fn no_random_numbers(error: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Other,
        format!("the system has no random numbers: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_signature_can_change_unseen() {
        let key = SigningKey::generate().unwrap();
        let trusted = TrustedKeys::new([key.public()]);
        let text = key.sign(b"manifest", "job:orders").unwrap();
        assert_eq!(trusted.verify(b"manifest", &text).unwrap(), "job:orders");
        assert!(trusted.verify(b"manifesT", &text).is_err());
        for at in 0..text.len() {
            for byte in 0..128 {
                let mut bytes = text.clone().into_bytes();
                if bytes[at] == byte {
                    continue;
                }
                bytes[at] = byte;
                let changed = String::from_utf8(bytes).unwrap();
                // Verification itself is slow; what parses must still be the original.
                if parse(&changed).is_some() {
                    let error = trusted
                        .verify(b"manifest", &changed)
                        .expect_err(&format!("byte {at} to {byte}:\n{text}{changed}"));
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at} to {byte}");
                }
            }
            assert!(trusted.verify(b"manifest", &text[..at]).is_err());
        }
        for other in [
            format!("{text}\n"),
            format!("{text}x"),
            format!("\n{text}"),
            text.replace('\n', "\r\n"),
            text.replace("trusted comment: job", "trusted comment:  job"),
            text.trim_end().to_owned(),
        ] {
            assert!(trusted.verify(b"manifest", &other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_stranger_s_signature_names_its_key() {
        let (key, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let text = other.sign(b"manifest", "").unwrap();
        for trusted in [TrustedKeys::new([key.public()]), TrustedKeys::default()] {
            let error = trusted.verify(b"manifest", &text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(&other.public().id()), "{error}");
        }
        TrustedKeys::new([key.public(), other.public()])
            .verify(b"manifest", &text)
            .unwrap();
    }

    #[test]
    fn a_comment_that_would_not_come_back_is_refused() {
        let key = SigningKey::generate().unwrap();
        for bad in ["a\nb", "a\r", " a", "a ", "\u{7}"] {
            assert!(key.sign(b"", bad).is_err(), "{bad:?}");
        }
        let text = key.sign(b"", "a\tb c").unwrap();
        let trusted = TrustedKeys::new([key.public()]);
        assert_eq!(trusted.verify(b"", &text).unwrap(), "a\tb c");
    }

    #[test]
    fn keys_survive_their_text_with_and_without_passphrase() {
        let key = SigningKey::generate().unwrap();
        let trusted = TrustedKeys::new([key.public()]);
        for passphrase in [None, Some("correct horse")] {
            let text = key.to_text(passphrase).unwrap();
            let back = SigningKey::from_text(text.expose(), passphrase).unwrap();
            assert_eq!(back.public(), key.public());
            trusted
                .verify(b"m", &back.sign(b"m", "c").unwrap())
                .unwrap();
        }
        let text = key.to_text(Some("correct horse")).unwrap();
        let kind = |passphrase| {
            SigningKey::from_text(text.expose(), passphrase)
                .unwrap_err()
                .kind()
        };
        assert_eq!(kind(None), ErrorKind::Invalid);
        assert_eq!(kind(Some("battery")), ErrorKind::Denied);

        let public = key.public();
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert_eq!(public.to_text().parse::<PublicKey>().unwrap(), public);
        for bad in ["", "RW", "age1xyz", &public.to_string()[1..]] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_damaged_key_is_refused_and_no_key_shows_itself() {
        let key = SigningKey::generate().unwrap();
        let text = key.to_text(None).unwrap();
        let line = text.expose().lines().nth(1).unwrap();
        let shown = format!("{key:?} {text:?}");
        assert!(!shown.contains(&line[90..120]), "{shown}");
        assert!(shown.contains(&key.public().id()));
        for at in (0..line.len()).filter(|at| !(8..72).contains(at)) {
            let mut changed = text.expose().to_owned().into_bytes();
            let at = text.expose().len() - 1 - line.len() + at;
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let error = SigningKey::from_text(&changed, None).unwrap_err();
            assert!(!error.chain().contains(&line[90..120]), "{error}");
        }
    }

    #[test]
    fn an_error_of_the_message_comes_out_unchanged() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(Error::new(ErrorKind::Source, "disk on fire").into())
            }
        }
        let key = SigningKey::generate().unwrap();
        let error = key.sign_stream(&mut Broken, "c").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
    }
}
