//! What the configuration of all stores has in common, for plugins: names that nobody knows, values
//! that are said twice, and the names in a URL.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Error, ErrorKind, Result};

/// The names in a table that none of its fields took: a field of it, with `#[serde(flatten)]`.
/// `deny_unknown_fields` cannot stand beside a field that is flattened.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Unknown(BTreeMap<String, IgnoredAny>);

impl Unknown {
    /// Refuses the first of them as [`Invalid`](ErrorKind::Invalid).
    pub fn refuse(&self) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid(format!("`{name}` is not known here"))),
        }
    }
}

/// The one value of `what`, which stands in a URL or beside it. Two that differ are
/// [`Invalid`](ErrorKind::Invalid), and the error shows neither.
pub fn one<T: PartialEq>(what: &str, in_url: Option<T>, beside: Option<T>) -> Result<Option<T>> {
    match (in_url, beside) {
        (Some(a), Some(b)) if a != b => Err(invalid(format!(
            "`{what}` is given twice, with different values: in the url and beside it"
        ))),
        (a, b) => Ok(a.or(b)),
    }
}

/// A name as it stands in a URL: what RFC 3986 calls unreserved stays, all else is `%` and its byte.
pub fn percent_encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'~' => {
                encoded.push(byte.into());
            }
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

/// The name that stands in a URL. A `%` that begins no byte is [`Invalid`](ErrorKind::Invalid), and
/// the error does not repeat the text, which may be a password.
pub fn percent_decode(text: &str) -> Result<String> {
    let decoded = || {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => {
                    let mut digit = || char::from(rest.next()?).to_digit(16);
                    bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
                }
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).ok()
    };
    decoded().ok_or_else(|| {
        invalid("a `%` in a URL must begin an encoded byte of UTF-8, such as %40 for @".to_owned())
    })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_a_url() {
        for name in ["", "plain-1.2_3~", "p:w%d@/?#", "käse", "a b+c"] {
            assert_eq!(percent_decode(&percent_encode(name)).unwrap(), name);
        }
        assert_eq!(percent_encode("ä/"), "%C3%A4%2F");
    }

    #[test]
    fn what_is_no_encoded_byte_is_refused_without_the_text() {
        for text in ["canary%", "canary%4", "canary%zz", "canary%ff", "canary%+4"] {
            let error = percent_decode(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
            assert!(!error.chain().contains("canary"), "{error}");
        }
    }

    #[test]
    fn two_places_may_say_the_same() {
        assert_eq!(one("user", Some(1), None).unwrap(), Some(1));
        assert_eq!(one("user", Some(1), Some(1)).unwrap(), Some(1));
        assert_eq!(one::<u8>("user", None, None).unwrap(), None);
        let error = one("user", Some(1), Some(2)).unwrap_err();
        assert!(
            error.to_string().contains("`user` is given twice"),
            "{error}"
        );
    }

    #[test]
    fn a_name_that_no_field_took_is_refused() {
        #[derive(Deserialize)]
        struct Table {
            #[serde(rename = "known")]
            _known: u8,
            #[serde(flatten)]
            unknown: Unknown,
        }
        let read = |json| serde_json::from_str::<Table>(json).unwrap().unknown;
        read(r#"{"known": 1}"#).refuse().unwrap();
        let error = read(r#"{"known": 1, "knwon": 2}"#).refuse().unwrap_err();
        assert_eq!(error.to_string(), "`knwon` is not known here");
    }
}
