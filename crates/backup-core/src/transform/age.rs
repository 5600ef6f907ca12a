//! Encryption with age.

mod cipher;
mod stream;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::iter;
use std::time::SystemTime;

use ::age::secrecy::ExposeSecret;
use ::age::x25519::{Identity, Recipient};
use ::age::{DecryptError, Decryptor, EncryptError, Encryptor};
use age_core::format::{FileKey, Stanza};
use zeroize::Zeroizing;

use self::stream::PayloadKey;
use super::{Coding, Reader, Stage, StockCommand, Transform, guard};
use crate::pipeline::thread::read_full;
use crate::time::Stamp;
use crate::{Error, ErrorKind, Result, Secret};

/// Encrypts to recipients, in the binary format of [age](https://age-encryption.org/v1).
///
/// Who encrypts needs public keys only, so a backup host cannot read what it wrote. To decode,
/// give it an identity.
///
/// Seals and opens on several threads. The feature `aws-lc` makes it 1.7 times as fast, for a
/// dependency in C that takes a minute to build.
#[derive(Clone)]
pub struct Age {
    recipients: Vec<Recipient>,
    identities: Vec<Identity>,
}

/// An age file begins with at most this much of text, about 300 recipients.
const MAX_HEADER: u64 = 64 * 1024;
const NONCE: usize = 16;
const TAG: usize = 16;

impl Age {
    /// Encrypts to all of `recipients`, the public keys that `age-keygen` prints (`age1…`).
    /// `Invalid`, with its name, for any other; and if there is none.
    pub fn to(recipients: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let mut age = Self {
            recipients: Vec::new(),
            identities: Vec::new(),
        };
        for text in recipients {
            let recipient = recipient(text.as_ref().trim())?;
            if !age.recipients.contains(&recipient) {
                age.recipients.push(recipient);
            }
        }
        if age.recipients.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "nobody to encrypt to: give at least one recipient (age1…)",
            ));
        }
        Ok(age)
    }

    /// Encrypts to the public keys of an identity file and decodes with it: for whoever both
    /// writes and restores.
    pub fn own(identity_file: &str) -> Result<Self> {
        let identities = identities(identity_file)?;
        Ok(Self {
            recipients: identities.iter().map(Identity::to_public).collect(),
            identities,
        })
    }

    /// Adds the keys of an identity file, as `age-keygen` writes it, to decode with. The text
    /// never shows in an error or in `Debug`.
    pub fn with_identity(mut self, identity_file: &str) -> Result<Self> {
        self.identities.extend(identities(identity_file)?);
        Ok(self)
    }

    /// The public keys that it encrypts to.
    pub fn recipients(&self) -> Vec<String> {
        self.recipients.iter().map(Recipient::to_string).collect()
    }
}

impl fmt::Debug for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Age")
            .field("recipients", &self.recipients)
            .field("identities", &self.identities.len())
            .finish()
    }
}

fn recipient(text: &str) -> Result<Recipient> {
    let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why));
    if let Ok(recipient) = text.parse() {
        return Ok(recipient);
    }
    if text.to_ascii_uppercase().contains("SECRET-KEY") {
        return invalid(
            "a recipient is a private key; give its public key (age1…), and keep this one away"
                .to_owned(),
        );
    }
    // The data of a native recipient never has a second `1`: it ends the name of a plugin.
    if text.starts_with("age1") && text[4..].contains('1') {
        return invalid(format!(
            "recipient {text:?} needs a plugin of age; only native ones (age1…, from age-keygen) are supported"
        ));
    }
    invalid(format!(
        "recipient {text:?} is no age public key (age1…, from age-keygen)"
    ))
}

fn identities(text: &str) -> Result<Vec<Identity>> {
    let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why));
    let mut identities = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("-----BEGIN AGE ENCRYPTED FILE") {
            return invalid("the identity file is encrypted; decrypt it with age -d first".into());
        }
        match line.parse() {
            Ok(identity) => identities.push(identity),
            Err(_) => {
                return invalid(format!(
                    "line {} of the identity file is no age private key (AGE-SECRET-KEY-1…)",
                    n + 1
                ));
            }
        }
    }
    if identities.is_empty() {
        return invalid("the identity file has no private key (AGE-SECRET-KEY-1…)".into());
    }
    Ok(identities)
}

/// What [`age_keygen`] makes.
#[derive(Clone, Debug)]
pub struct AgeKeyPair {
    /// The text of an identity file.
    pub identity: Secret,
    /// The public key: `age1…`.
    pub recipient: String,
}

/// A new key, in the text that `age-keygen` writes, said to be created at `created`.
pub fn age_keygen(created: SystemTime) -> AgeKeyPair {
    let identity = Identity::generate();
    let recipient = identity.to_public().to_string();
    let secret = identity.to_string();
    AgeKeyPair {
        identity: Secret::new(format!(
            "# created: {}\n# public key: {recipient}\n{}\n",
            Stamp::from(created),
            secret.expose_secret()
        )),
        recipient,
    }
}

impl Transform for Age {
    fn id(&self) -> &str {
        "age"
    }

    fn suffix(&self) -> &str {
        ".age"
    }

    fn stage(&self) -> Stage {
        Stage::Encrypt
    }

    fn encode(&self, plain: Reader, coding: &Coding) -> Result<Reader> {
        let failed =
            |e: &dyn fmt::Display| Error::new(ErrorKind::Other, format!("age cannot encrypt: {e}"));
        let seen = Seen::default();
        let recipients = self.recipients.iter().map(|r| r as &dyn ::age::Recipient);
        let mut head = Vec::new();
        // The crate writes header and nonce; the payload is ours.
        Encryptor::with_recipients(recipients.chain(iter::once(&seen as _)))
            .map_err(|e| failed(&e))?
            .wrap_output(&mut head)
            .map_err(|e| failed(&e))?;
        let nonce = &head[head.len() - NONCE..];
        let payload = seen
            .payload_key(nonce)
            .ok_or_else(|| failed(&"it made no file key"))?
            .seal(plain, coding.threads())?;
        coding.note("recipients", self.recipients());
        Ok(Box::new(Cursor::new(head).chain(payload)))
    }

    fn decode(&self, coded: Reader, coding: &Coding) -> Result<Reader> {
        if !self.can_decode() {
            return Err(Error::new(
                ErrorKind::Denied,
                "encrypted with age, and no identity is given",
            ));
        }
        let age = self.clone();
        let coding = coding.clone();
        Ok(guard::lazy(move || age.open(coded, &coding)))
    }

    fn can_decode(&self) -> bool {
        !self.identities.is_empty()
    }

    fn undo(&self) -> StockCommand {
        StockCommand::new(["age", "-d", "-i", "$IDENTITY"])
    }

    fn memory(&self, threads: usize) -> usize {
        stream::memory(threads) + 2 * MAX_HEADER as usize
    }
}

impl Age {
    fn open(&self, coded: Reader, coding: &Coding) -> Result<Reader> {
        let mut coded = BufReader::with_capacity(MAX_HEADER as usize, coded);
        let mut head = header(&mut coded)?;
        let mut nonce = [0; NONCE];
        if read_full(&mut coded, &mut nonce)? < NONCE {
            return Err(corrupt("is cut short"));
        }
        head.extend_from_slice(&nonce);
        let seen = Seen {
            identities: &self.identities,
            ..Seen::default()
        };
        // The crate checks the header with its MAC; the payload is ours.
        Decryptor::new_buffered(&head[..])
            .and_then(|file| file.decrypt(iter::once(&seen as _)).map(drop))
            .map_err(|e| self.explain(e, coding))?;
        seen.payload_key(&nonce)
            .ok_or_else(|| corrupt("has a header without a file key"))?
            .open(Box::new(coded), coding.threads())
    }

    fn explain(&self, error: DecryptError, coding: &Coding) -> Error {
        match error {
            DecryptError::NoMatchingKeys => {}
            other => return corrupt("has a damaged header").with_source(other),
        }
        let mine: Vec<String> = self
            .identities
            .iter()
            .map(|i| i.to_public().to_string())
            .collect();
        let wanted: Vec<String> = match coding.notes().get("recipients") {
            Some(noted) => serde_json::from_value(noted.clone()).unwrap_or_default(),
            None => Vec::new(),
        };
        if mine.iter().any(|key| wanted.contains(key)) {
            return corrupt(
                "has a damaged header: it does not open with the identity that it was encrypted to",
            );
        }
        let needs = match wanted[..] {
            [] => "another identity".to_owned(),
            _ => format!("the identity of {}", wanted.join(" or ")),
        };
        Error::new(
            ErrorKind::Denied,
            format!("needs {needs}; given is that of {}", mine.join(", ")),
        )
    }
}

/// The lines up to the one with the MAC, without reading more than a header can have.
fn header(coded: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut limited = coded.take(MAX_HEADER);
    loop {
        let start = head.len();
        limited.read_until(b'\n', &mut head).map_err(Error::from)?;
        let line = &head[start..];
        if start == 0 && !line.starts_with(b"age-encryption.org/") {
            return Err(corrupt("does not begin as one"));
        }
        if !line.ends_with(b"\n") {
            return Err(corrupt("has a header that does not end"));
        }
        if line.starts_with(b"---") {
            return Ok(head);
        }
    }
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the age stream {what}"))
}

/// Looks on while the crate wraps or unwraps the file key, and adds nothing to the header.
#[derive(Default)]
struct Seen<'a> {
    identities: &'a [Identity],
    file_key: RefCell<Option<Zeroizing<[u8; 16]>>>,
}

impl Seen<'_> {
    fn look(&self, key: &FileKey) {
        *self.file_key.borrow_mut() = Some(Zeroizing::new(*key.expose_secret()));
    }

    fn payload_key(&self, nonce: &[u8]) -> Option<PayloadKey> {
        let key = self.file_key.borrow();
        key.as_ref().map(|key| PayloadKey::new(key, nonce))
    }
}

impl ::age::Recipient for Seen<'_> {
    fn wrap_file_key(
        &self,
        key: &FileKey,
    ) -> std::result::Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        self.look(key);
        Ok((Vec::new(), HashSet::new()))
    }
}

impl ::age::Identity for Seen<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<std::result::Result<FileKey, DecryptError>> {
        let key = self.identities.iter().find_map(|i| i.unwrap_stanza(stanza));
        if let Some(Ok(key)) = &key {
            self.look(key);
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::tests::{IDENTITY, decode, encode, read_all, sample, trickle};

    fn own() -> Age {
        Age::own(IDENTITY).unwrap()
    }

    #[test]
    fn recipients_that_cannot_work_are_named() {
        let refusal = |text: &str| Age::to([text]).unwrap_err().to_string();
        assert!(refusal("age1garbage").contains("\"age1garbage\" is no age public key"));
        assert!(refusal("age1yubikey1qwt50d05nh5vutpdzmlg5").contains("needs a plugin"));
        assert!(refusal("ssh-ed25519 AAAA").contains("is no age public key"));
        let secret = refusal(IDENTITY);
        assert!(secret.contains("private key") && !secret.contains("GQ9778"));
        let nobody = Age::to(Vec::<String>::new()).unwrap_err();
        assert_eq!(nobody.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_recipient_given_twice_is_one() {
        let key = own().recipients().remove(0);
        let age = Age::to([key.as_str(), &format!(" {key}\n")]).unwrap();
        assert_eq!(age.recipients(), [key]);
    }

    #[test]
    fn an_identity_file_is_read_with_its_comments_and_never_shown() {
        let pair = age_keygen(SystemTime::UNIX_EPOCH);
        let text = pair.identity.expose();
        assert!(text.starts_with("# created: 1970-01-01T00:00:00Z\n# public key: age1"));
        let age = Age::to([&pair.recipient])
            .unwrap()
            .with_identity(text)
            .unwrap();
        let secret = text.lines().last().unwrap();
        assert!(!format!("{age:?} {pair:?}").contains(&secret[20..]));

        for bad in [
            "",
            "# only a comment\n",
            "AGE-SECRET-KEY-1SECRET",
            "secret\nsecret",
        ] {
            let error = Age::own(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(
                !error.chain().to_lowercase().contains("secret-key-1secret"),
                "{error}"
            );
        }
        let error = Age::own(&format!("{text}oops")).unwrap_err();
        assert!(error.to_string().contains("line 4"), "{error}");
    }

    #[test]
    fn each_recipient_opens_it() {
        let other = age_keygen(SystemTime::UNIX_EPOCH);
        let mine = own().recipients().remove(0);
        let both = Age::to([&mine, &other.recipient]).unwrap();
        let coding = Coding::new(1);
        let coded = read_all(both.encode(trickle(b"hello"), &coding).unwrap()).unwrap();
        assert_eq!(
            coding.notes()["recipients"],
            serde_json::json!([mine, other.recipient])
        );
        for identity in [IDENTITY, other.identity.expose()] {
            assert_eq!(
                decode(&Age::own(identity).unwrap(), &coded).unwrap(),
                b"hello"
            );
        }
    }

    #[test]
    fn without_the_right_identity_it_is_denied_and_says_what_it_needs() {
        let mine = own().recipients();
        let coded = encode(&own(), b"hello");
        let writer = Age::to(&mine).unwrap();
        assert!(!writer.can_decode());
        assert_eq!(
            decode(&writer, &coded).unwrap_err().kind(),
            ErrorKind::Denied
        );

        let other = age_keygen(SystemTime::UNIX_EPOCH);
        let wrong = Age::own(other.identity.expose()).unwrap();
        let coding = Coding::new(1);
        coding.note("recipients", mine.clone());
        let error = read_all(wrong.decode(trickle(&coded), &coding).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains(&mine[0]), "{error}");
        assert!(error.to_string().contains(&other.recipient), "{error}");
        assert_eq!(
            decode(&wrong, &coded).unwrap_err().kind(),
            ErrorKind::Denied
        );
    }

    #[test]
    fn a_flip_anywhere_is_corrupt_when_the_recipients_are_known() {
        let coding = Coding::new(1);
        let coded = read_all(own().encode(trickle(&sample(70_000)), &coding).unwrap()).unwrap();
        let header = coded.windows(5).position(|w| w == b"\n--- ").unwrap() + 70;
        let places = (0..header).chain([70_000, coded.len() - 1]);
        for at in places {
            let mut flipped = coded.clone();
            flipped[at] ^= 1;
            let error = read_all(own().decode(trickle(&flipped), &coding).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "at {at}: {error:?}");
        }
    }

    #[test]
    fn the_payload_is_that_of_the_age_crate_both_ways() {
        use std::io::Write;
        let block = 8 * stream::CHUNK;
        let sizes = [0, 1, stream::CHUNK - 1, stream::CHUNK, stream::CHUNK + 1];
        for len in sizes
            .into_iter()
            .chain([block - 1, block, block + 1, 3 * block + 5])
        {
            let plain = sample(len);
            let identity: Identity = IDENTITY.parse().unwrap();
            let coded = encode(&own(), &plain);
            let file = Decryptor::new(&coded[..]).unwrap();
            let mut reader = file.decrypt(iter::once(&identity as _)).unwrap();
            let mut back = Vec::new();
            reader.read_to_end(&mut back).unwrap();
            assert!(back == plain, "{len} bytes");

            let recipient = identity.to_public();
            let mut theirs = Vec::new();
            let mut writer = Encryptor::with_recipients(iter::once(&recipient as _))
                .unwrap()
                .wrap_output(&mut theirs)
                .unwrap();
            writer.write_all(&plain).unwrap();
            writer.finish().unwrap();
            assert!(decode(&own(), &theirs).unwrap() == plain, "{len} bytes");
        }
    }

    #[test]
    fn chunks_that_are_cut_off_swapped_or_added_are_corrupt() {
        let coded = encode(&own(), &sample(20 * stream::CHUNK));
        let sealed = stream::CHUNK + TAG;
        let start = coded.len() - 20 * sealed;
        let with = |chunks: &[usize]| {
            let mut all = coded[..start].to_vec();
            for n in chunks {
                all.extend_from_slice(&coded[start + n * sealed..][..sealed]);
            }
            all
        };
        let order: Vec<usize> = (0..20).collect();
        assert!(with(&order) == coded);
        let refused = |coded: &[u8]| {
            let error = decode(&own(), coded).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        };
        for len in 0..20 {
            refused(&with(&order[..len]));
        }
        refused(&with(&[&order[..], &[19]].concat()));
        for (a, b) in [(0, 1), (7, 8), (18, 19)] {
            let mut order = order.clone();
            order.swap(a, b);
            refused(&with(&order));
        }
    }

    #[test]
    fn a_header_without_end_is_refused_before_it_fills_memory() {
        struct Endless(bool);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let mut line = &b"age-encryption.org/v1\n"[..];
                if std::mem::replace(&mut self.0, false) {
                    return line.read(buffer);
                }
                buffer.fill(b'x');
                Ok(buffer.len())
            }
        }
        let coding = Coding::new(1);
        let error = read_all(own().decode(Box::new(Endless(true)), &coding).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        for other in [
            &b""[..],
            b"PGDMP",
            b"age-encryption.org/v2\n--- x\n0123456789abcdef",
        ] {
            assert_eq!(
                decode(&own(), other).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
    }
}
