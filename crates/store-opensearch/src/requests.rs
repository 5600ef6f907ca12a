//! What makes a cluster ready for documents, and complete after them: requests, one a line.
//!
//! `PUT /orders {"settings":{…},"mappings":{…}}` is what the console of OpenSearch Dashboards takes,
//! and what four words of shell give to `curl`.

use backup_core::settings::{percent_decode, percent_encode};
use backup_core::{ByteStream, Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Script,
    Pipeline,
    SearchPipeline,
    Component,
    Template,
    LegacyTemplate,
    Index,
    Stream,
    /// Of a stream, which has it from its template and from what its documents added.
    Mapping,
    /// Of an index or a stream.
    Settings,
    /// All of them at once.
    Aliases,
}

impl What {
    /// In the order in which a path is tried: the first that fits is meant.
    const ALL: [Self; 11] = [
        Self::Script,
        Self::Pipeline,
        Self::SearchPipeline,
        Self::Component,
        Self::Template,
        Self::LegacyTemplate,
        Self::Stream,
        Self::Aliases,
        Self::Mapping,
        Self::Settings,
        Self::Index,
    ];

    /// How it is asked for: the method, and what stands before and behind the name.
    fn form(self) -> (Method, &'static str, &'static str) {
        match self {
            Self::Script => (Method::PUT, "/_scripts/", ""),
            Self::Pipeline => (Method::PUT, "/_ingest/pipeline/", ""),
            Self::SearchPipeline => (Method::PUT, "/_search/pipeline/", ""),
            Self::Component => (Method::PUT, "/_component_template/", ""),
            Self::Template => (Method::PUT, "/_index_template/", ""),
            Self::LegacyTemplate => (Method::PUT, "/_template/", ""),
            Self::Stream => (Method::PUT, "/_data_stream/", ""),
            Self::Aliases => (Method::POST, "/_aliases", ""),
            Self::Mapping => (Method::PUT, "/", "/_mapping"),
            Self::Settings => (Method::PUT, "/", "/_settings"),
            Self::Index => (Method::PUT, "/", ""),
        }
    }

    /// What belongs to the cluster and to no index.
    pub(crate) fn is_state(self) -> bool {
        use What::{Aliases, Index, Mapping, Settings, Stream};
        !matches!(self, Index | Stream | Mapping | Settings | Aliases)
    }

    pub(crate) fn method(self) -> Method {
        self.form().0
    }

    /// The path of the one that is called `name`.
    pub(crate) fn path(self, name: &str) -> String {
        let (_, before, behind) = self.form();
        format!("{before}{}{behind}", percent_encode(name))
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) what: What,
    /// Empty where it is about all.
    pub(crate) name: String,
    /// `null`: none.
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn new(what: What, name: &str, body: Value) -> Self {
        Self {
            what,
            name: name.to_owned(),
            body,
        }
    }

    pub(crate) fn line(&self) -> Bytes {
        let (method, path) = (self.what.method(), self.what.path(&self.name));
        format!("{method} {path} {}\n", self.text()).into()
    }

    /// Its body.
    pub(crate) fn text(&self) -> String {
        match &self.body {
            Value::Null => String::new(),
            body => body.to_string(),
        }
    }

    pub(crate) fn parse(line: &[u8]) -> Result<Self> {
        let wrong = || {
            let begin = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
            Error::new(
                ErrorKind::Corrupt,
                format!("{begin:?} is no request that this program stores"),
            )
        };
        let text = std::str::from_utf8(line).map_err(|_| wrong())?;
        let mut words = text.splitn(3, ' ');
        let (Some(method), Some(path), Some(body)) = (words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let meant = |what: What| {
            let (by, before, behind) = what.form();
            let name = path.strip_prefix(before)?.strip_suffix(behind)?;
            let named = name.is_empty() == (what == What::Aliases);
            let fits = by == method && named && !name.contains('/');
            Some((what, fits.then(|| percent_decode(name).ok())??))
        };
        let (what, name) = What::ALL.into_iter().find_map(meant).ok_or_else(wrong)?;
        let body = match body {
            "" => Value::Null,
            body => serde_json::from_str(body).map_err(|e| wrong().with_source(e))?,
        };
        Ok(Self { what, name, body })
    }
}

/// The lines of a part, without their ends, a few at once in memory.
#[derive(Debug)]
pub(crate) struct Lines {
    bytes: ByteStream,
    buffer: BytesMut,
    ended: bool,
}

impl Lines {
    pub(crate) fn of(bytes: ByteStream) -> Self {
        Self {
            bytes,
            buffer: BytesMut::new(),
            ended: false,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut seen = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[seen..]) {
                let mut line = self.buffer.split_to(seen + at + 1);
                line.truncate(seen + at);
                return Ok(Some(line.freeze()));
            }
            seen = self.buffer.len();
            let next = match self.ended {
                true => None,
                false => self.bytes.next().await,
            };
            match next {
                Some(chunk) => self.buffer.extend_from_slice(&chunk?),
                None => {
                    self.ended = true;
                    let last = (seen > 0).then(|| self.buffer.split().freeze());
                    return Ok(last);
                }
            }
        }
    }

    pub(crate) async fn request(&mut self) -> Result<Option<Request>> {
        let line = self.next().await?;
        line.map(|line| Request::parse(&line)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_request_can_be_read_again() {
        for what in What::ALL {
            let name = if what == What::Aliases { "" } else { "a b/ü" };
            for body in [json!({"a": ["x y", 1]}), Value::Null] {
                let request = Request::new(what, name, body);
                let line = request.line();
                let read = Request::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
                assert_eq!(read, request);
            }
        }
    }

    #[test]
    fn a_request_of_another_kind_is_none() {
        for line in [
            "DELETE /orders {}",
            "PUT /a/b/_settings {}",
            "PUT /a/_close {}",
            "POST /_aliases/x {}",
            "PUT / {}",
            "PUT /orders",
            "PUT /orders {",
            "PUT /_cluster/settings {}",
        ] {
            assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn lines_are_whole_however_they_come() {
        let text = "one\n\ntwo and more\nlast";
        for size in 1..text.len() {
            let chunks: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .map(|c| Ok(Bytes::copy_from_slice(c)))
                .collect();
            let mut lines = Lines::of(ByteStream::new(futures::stream::iter(chunks)));
            let mut read = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                read.push(String::from_utf8(line.to_vec()).unwrap());
            }
            assert_eq!(read, ["one", "", "two and more", "last"]);
        }
    }
}
