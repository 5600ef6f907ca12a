//! Answers that are no success, as errors.

use backup_core::{Error, ErrorKind};
use serde::Deserialize;
use serde_json::Value;

/// What a server said instead of yes.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 0: there was no answer.
    pub(crate) status: u16,
    /// `index_not_found_exception`; empty where there is none.
    pub(crate) name: String,
    pub(crate) reason: String,
    /// The connection went away, and another may not.
    pub(crate) broken: bool,
}

/// The reason of an item, a shard or a whole answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Reason {
    #[serde(rename = "type", default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

impl Failure {
    /// What a body says: `{"error": {"root_cause": [..], "type": .., "reason": ..}}`, in older
    /// corners `{"error": ".."}`, and of the security plugin plain text.
    pub(crate) fn answer(status: u16, body: &[u8]) -> Self {
        let said = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let error = &said["error"];
        let cause = match &error["root_cause"][0] {
            Value::Null => error,
            cause => cause,
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reason = match (text(&cause["reason"]), text(error)) {
            (reason, said) if reason.is_empty() => said,
            (reason, _) => reason,
        };
        let reason = match reason.is_empty() {
            true => first_line(body),
            false => reason,
        };
        Self {
            status,
            name: text(&cause["type"]),
            reason,
            broken: false,
        }
    }

    /// Of ours, about an answer that did not come whole.
    pub(crate) fn ours(status: u16, reason: impl Into<String>) -> Self {
        Self {
            status,
            name: String::new(),
            reason: reason.into(),
            broken: false,
        }
    }

    /// Whether the same request may succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        // "TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark" is a 429 that stays.
        matches!(self.status, 429 | 502 | 503 | 504) && self.name != "cluster_block_exception"
    }

    /// The error, for `what`: `http://h:9200: PUT /orders`.
    pub(crate) fn into_error(self, what: &str) -> Error {
        let (kind, why) = match self.status {
            0 => (ErrorKind::Unavailable, self.reason),
            401 => (
                ErrorKind::Denied,
                "the server does not know this user and password".to_owned(),
            ),
            _ if self.reason.contains("flood-stage watermark") => (
                ErrorKind::Other,
                format!("the server's disk is full: {}", self.reason),
            ),
            _ => (self.kind(), self.said()),
        };
        Error::new(kind, format!("{what}: {why}"))
    }

    fn kind(&self) -> ErrorKind {
        match self.status {
            403 if self.name != "cluster_block_exception" => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            _ if self.is_transient() => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        }
    }

    fn said(&self) -> String {
        match (&*self.name, &*self.reason) {
            ("", "") => format!("the server answers with status {}", self.status),
            ("", reason) => format!("status {}: {reason}", self.status),
            (name, "") => name.to_owned(),
            (name, reason) => format!("{name}: {}", reason.replace('\n', " ")),
        }
    }
}

fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_becomes_one_line() {
        let cases = [
            (
                404,
                r#"{"error":{"root_cause":[{"type":"index_not_found_exception","reason":"no such index [a]"}],"type":"x"},"status":404}"#,
                ErrorKind::NotFound,
                "x: index_not_found_exception: no such index [a]",
            ),
            (
                403,
                r#"{"error":{"root_cause":[{"type":"security_exception","reason":"no permissions for [indices:admin/create]"}]},"status":403}"#,
                ErrorKind::Denied,
                "x: security_exception: no permissions for [indices:admin/create]",
            ),
            (
                401,
                "Unauthorized",
                ErrorKind::Denied,
                "x: the server does not know this user and password",
            ),
            (
                405,
                r#"{"error":"Incorrect HTTP method"}"#,
                ErrorKind::Other,
                "x: status 405: Incorrect HTTP method",
            ),
            (
                503,
                "",
                ErrorKind::Unavailable,
                "x: the server answers with status 503",
            ),
            (
                429,
                r#"{"error":{"type":"cluster_block_exception","reason":"index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];"}}"#,
                ErrorKind::Other,
                "x: the server's disk is full: index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];",
            ),
        ];
        for (status, body, kind, line) in cases {
            let error = Failure::answer(status, body.as_bytes()).into_error("x");
            assert_eq!((error.kind(), &*error.to_string()), (kind, line));
        }
    }
}
