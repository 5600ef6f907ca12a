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

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self> {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().map_err(no_random_numbers)?;
        Self::new(pair.sk)
    }

    fn new(secret: minisign::SecretKey) -> Result<Self> {
        let secret = Box::new(secret);
        let public = minisign::PublicKey::from_secret_key(&secret)
            .map_err(|_| invalid("signing key", "is damaged"))?;
        Ok(Self {
            secret,
            public: PublicKey(public),
        })
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
            (b"\0\0", _) => text
                .into_unencrypted_secret_key()
                .map_err(|_| invalid(WHAT, "is damaged"))?,
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
    /// 128 MiB).
    pub fn to_text(&self, passphrase: Option<&str>) -> Result<Secret> {
        let mut bytes = Zeroizing::new(self.secret.to_bytes());
        let comment = match passphrase {
            None => "minisign secret key",
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
    let params = scrypt::Params::new(17, 8, 1, stream.len()).map_err(|e| broken(&e))?;
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
    /// Sixteen hex digits that name the key, as minisign prints them.
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
    bytes.iter().rev().map(|b| format!("{b:02X}")).collect()
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
    // Of 74 and 64 bytes; the crate panics on a shorter one.
    if signature.len() != 100 || global.len() != 88 {
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

fn invalid(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{what} {why}"))
}

fn no_random_numbers(error: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Other,
        format!("the system has no random numbers: {error}"),
    )
}
