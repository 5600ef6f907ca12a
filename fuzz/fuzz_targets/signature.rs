//! Whatever text stands in a `.minisig`, no key or comment comes out of it but the ones that
//! signed, and nothing panics.
#![no_main]

use std::sync::LazyLock;

use backup_core::{PublicKey, Signer, SigningKey, TrustedKeys, Verifier};

const MESSAGE: &[u8] = b"a manifest";

/// The key, and its one good signature, which the fuzzer cannot know.
static KEY: LazyLock<(TrustedKeys, String)> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("random numbers");
    let signature = key.sign(MESSAGE, "lifebelt 1 a/b").expect("signed");
    (TrustedKeys::new([key.public()]), signature)
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (trusted, good) = &*KEY;
    let text = String::from_utf8_lossy(bytes);
    assert!(trusted.verify(MESSAGE, &text).is_err());
    // The good one with a piece of it changed: at most the same text is accepted.
    if let [at, len, put @ ..] = bytes {
        let at = usize::from(*at) * good.len() / 256;
        let end = (at + usize::from(*len)).min(good.len());
        let changed = [&good.as_bytes()[..at], put, &good.as_bytes()[end..]].concat();
        if let Ok(changed) = String::from_utf8(changed) {
            assert_eq!(trusted.verify(MESSAGE, &changed).is_ok(), changed == *good);
        }
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(
            key.to_text().parse::<PublicKey>().expect("its own text"),
            key
        );
        assert!(TrustedKeys::new([key]).verify(MESSAGE, good).is_err());
    }
    // A passphrase would take half a second of scrypt, whose cost the file names.
    if let Ok(key) = SigningKey::from_text(&text, None) {
        key.sign(MESSAGE, "").expect("a key that was read signs");
    }
});
