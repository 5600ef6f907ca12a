//! Listings, page by page.

use std::collections::HashSet;

use backup_core::{Error, ErrorKind, Key, Object, Result};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http::Method;

use crate::answer::{Listed, Listing};
use crate::client::Request;
use crate::failure::Failure;
use crate::{S3Sink, time};

/// Where the next page begins.
#[derive(Clone)]
enum Place {
    Start,
    Token(String),
    Marker(String, Option<String>),
    End,
}

impl S3Sink {
    /// Every page of what begins with `prefix`, a key of the bucket.
    fn pages(&self, prefix: String, one_level: bool) -> BoxStream<'_, Result<Listing>> {
        stream::try_unfold(Place::Start, move |place| {
            let prefix = prefix.clone();
            async move {
                if matches!(place, Place::End) {
                    return Ok(None);
                }
                let page = self.page(&prefix, one_level, &place).await;
                let page = page.map_err(|f| f.into_error(format_args!("list `{prefix}`"), self))?;
                let next = match page.is_truncated {
                    false => Place::End,
                    true => match (&page.next_continuation_token, &page.next_key_marker) {
                        (Some(token), _) => Place::Token(token.clone()),
                        (None, Some(key)) => {
                            Place::Marker(key.clone(), page.next_version_id_marker.clone())
                        }
                        (None, None) => {
                            let why = "a page says that there are more, and not where";
                            let failure = Failure::nonsense("s3:ListBucket", why);
                            return Err(failure.into_error("list", self));
                        }
                    },
                };
                Ok(Some((page, next)))
            }
        })
        .boxed()
    }

    async fn page(&self, prefix: &str, one_level: bool, place: &Place) -> Result<Listing, Failure> {
        let mut request = match self.0.versions {
            true => Request::bucket("s3:ListBucketVersions", Method::GET).query("versions", ""),
            false => Request::bucket("s3:ListBucket", Method::GET).query("list-type", "2"),
        };
        request = request.query("prefix", prefix);
        if one_level {
            request = request.query("delimiter", "/");
        }
        request = match place {
            Place::Token(token) => request.query("continuation-token", token),
            Place::Marker(key, version) => {
                let request = request.query("key-marker", key);
                match version {
                    Some(version) => request.query("version-id-marker", version),
                    None => request,
                }
            }
            Place::Start | Place::End => request,
        };
        self.0.client.document(&request).await
    }

    /// Everything under `prefix`, what is hidden too if `hidden`. Names what can be no object in
    /// an `Err` at the end.
    pub(crate) fn objects(
        &self,
        prefix: Option<&Key>,
        hidden: bool,
    ) -> BoxStream<'_, Result<Object>> {
        let base = self.0.prefix.clone();
        let all = match prefix {
            None => self.listed(base),
            Some(key) => {
                let exact = self.path(key);
                let below = format!("{exact}/");
                // The shortest of all that begin with it comes first.
                let own = self.listed(exact.clone()).try_take_while(move |listed| {
                    let same = listed.key == exact;
                    async move { Ok(same) }
                });
                own.chain(self.listed(below)).boxed()
            }
        };
        // How many strangers, and the first of them.
        let state = (all, 0_u64, String::new());
        stream::try_unfold(state, move |(mut all, mut count, mut first)| async move {
            while let Some(listed) = all.try_next().await? {
                if !hidden && listed.is_latest == Some(false) || is_folder(&listed) {
                    continue;
                }
                match self.entry(&listed) {
                    Some(object) => return Ok(Some((object, (all, count, first)))),
                    None if count == 0 => (count, first) = (1, listed.key),
                    None => count += 1,
                }
            }
            match count {
                0 => Ok(None),
                n => Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "{self} holds {n} that cannot be objects, the first is {first:?}: move \
                         them elsewhere"
                    ),
                )),
            }
        })
        .boxed()
    }

    fn listed(&self, prefix: String) -> BoxStream<'_, Result<Listed>> {
        let items = |page: Listing| stream::iter(page.objects.into_iter().map(Ok));
        let all = self.pages(prefix, false).map_ok(items).try_flatten();
        // versitygw 1.8 begins a page of versions with the one that the last page ended with.
        let mut last = None;
        all.try_filter(move |listed| {
            let this = Some((listed.key.clone(), listed.version_id.clone()));
            let new = this != last;
            last = this;
            std::future::ready(new)
        })
        .boxed()
    }

    fn entry(&self, listed: &Listed) -> Option<Object> {
        let key = Key::parse(listed.key.strip_prefix(&self.0.prefix)?).ok()?;
        let mut object = Object::new(key, listed.size);
        object.version = listed.version_id.clone().filter(|_| self.0.versions);
        object.modified = listed.last_modified.as_deref().and_then(time::from_xml);
        Some(object)
    }

    /// The next segments under `prefix`. Where there are versions, also of what is hidden.
    pub(crate) fn segments(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        let below = match prefix {
            Some(key) => format!("{}/", self.path(key)),
            None => self.0.prefix.clone(),
        };
        let start = below.len();
        let mut seen = HashSet::new();
        let names = move |page: Listing| {
            let objects = page.objects.into_iter().filter(|l| !is_folder(l));
            let folders = page.common_prefixes.into_iter().map(|p| p.prefix);
            let mut names = Vec::new();
            for path in objects.map(|listed| listed.key).chain(folders) {
                let name = path.get(start..).unwrap_or_default().trim_end_matches('/');
                if Key::check(name).is_err() {
                    tracing::warn!(sink = %self, path, "skips what can be no object");
                } else if seen.insert(name.to_owned()) {
                    names.push(Ok(name.to_owned()));
                }
            }
            stream::iter(names)
        };
        self.pages(below, true).map_ok(names).try_flatten().boxed()
    }
}

/// What consoles make for a folder.
fn is_folder(listed: &Listed) -> bool {
    listed.size == 0 && listed.key.ends_with('/')
}
