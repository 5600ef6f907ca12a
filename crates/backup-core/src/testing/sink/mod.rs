//! What every [`Sink`] must do, one public function for each case.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::oneshot;

use crate::{ByteStream, CHUNK, Error, ErrorKind, Key, Locator, Object, PutOptions, Result, Sink};

mod atomic;
mod content;
mod naming;
mod upkeep;

pub use atomic::*;
pub use content::*;
pub use naming::*;
pub use upkeep::*;

/// An empty sink to be tested, and what must live as long.
pub struct SinkFixture {
    sink: Arc<dyn Sink>,
    leftovers: Box<dyn Fn() -> usize + Send + Sync>,
    secret: Option<String>,
    there: bool,
    _guard: Box<dyn Any + Send + Sync>,
}

impl SinkFixture {
    /// A fixture around an empty sink.
    pub fn new(sink: impl Sink) -> Self {
        Self {
            sink: Arc::new(sink),
            leftovers: Box::new(|| 0),
            secret: None,
            there: true,
            _guard: Box::new(()),
        }
    }

    /// Stands for a server that is not there: every case prints a note and passes. Only where
    /// nobody asked for the server: a test that did not run must not look green.
    pub fn missing(why: &str) -> Self {
        eprintln!("NOT RUN: {why}");
        Self {
            there: false,
            ..Self::new(crate::MemorySink::new())
        }
    }

    #[doc(hidden)]
    pub fn is_there(&self) -> bool {
        self.there
    }

    /// Keeps `guard` (a temporary folder, a server) until the test is over.
    #[must_use]
    pub fn keep(mut self, guard: impl Any + Send + Sync) -> Self {
        self._guard = Box::new(guard);
        self
    }

    /// How to count, past the sink, what abandoned puts left: temporary files, uploads. Without
    /// it the kit must believe what [`Sink::sweep`] says.
    #[must_use]
    pub fn leftovers(mut self, count: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        self.leftovers = Box::new(count);
        self
    }

    /// A password that the sink was given and must not show.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(secret.into());
        self
    }
}

impl<S: Sink> From<S> for SinkFixture {
    fn from(sink: S) -> Self {
        Self::new(sink)
    }
}

impl<S: Sink, G: Any + Send + Sync> From<(S, G)> for SinkFixture {
    fn from((sink, guard): (S, G)) -> Self {
        Self::new(sink).keep(guard)
    }
}

impl fmt::Debug for SinkFixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkFixture({:?})", self.sink)
    }
}

/// The cases, once: for the macro that makes tests of them and for the kit's own test.
#[doc(hidden)]
#[macro_export]
macro_rules! __sink_cases {
    ($then:path { $($arguments:tt)* }) => {
        $then! { [
            objects_come_back
            large_objects_come_back
            chunks_may_have_any_size
            ranges_are_half_open
            a_range_beyond_the_end_is_invalid
            bodies_do_not_disturb_each_other
            put_refuses_to_overwrite
            of_concurrent_puts_one_wins
            a_failed_stream_comes_back_and_leaves_nothing
            a_dropped_put_leaves_nothing
            a_dropped_put_lets_go_of_its_data
            a_put_dropped_at_any_moment_is_whole_or_absent
            an_abandoned_key_can_be_put_again
            keys_keep_their_spelling
            list_goes_by_whole_segments
            children_are_the_next_segments
            listings_go_beyond_a_thousand
            versions_show_what_list_shows
            stat_agrees_with_put_and_list
            what_is_missing_is_not_found
            a_folder_is_no_object
            delete_removes_one_object
            deleting_what_is_missing_is_ok
            a_lock_is_honoured_or_refused
            sweep_leaves_objects_alone
            sweep_spares_a_put_in_flight
            sweep_removes_what_abandoned_puts_left
            put_holds_no_more_than_it_declares
            it_names_itself_and_shows_no_secret
        ] $($arguments)* }
    };
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("the kit's keys are valid")
}

async fn put(sink: &dyn Sink, key: &Key, bytes: impl Into<Bytes>) -> Object {
    let data = ByteStream::from_bytes(bytes);
    match sink.put(key, data, &PutOptions::default()).await {
        Ok(object) => object,
        Err(error) => panic!("put `{key}` into an empty place: {error:?}"),
    }
}

async fn read(sink: &dyn Sink, at: &Locator, range: Option<Range<u64>>) -> Result<Bytes> {
    sink.get(at, range).await?.collect(usize::MAX).await
}

/// The object's bytes are these. Says how they differ without printing them.
async fn assert_holds(sink: &dyn Sink, key: &Key, expected: &Bytes) {
    match read(sink, &key.into(), None).await {
        Ok(bytes) => assert_same(&bytes, expected, &format!("`{key}`")),
        Err(error) => panic!("read `{key}`: {error:?}"),
    }
}

fn assert_same(found: &Bytes, expected: &Bytes, what: &str) {
    let (f, e) = (found.len(), expected.len());
    assert_eq!(f, e, "{what} came back with another length");
    let differs = found.iter().zip(expected).position(|(f, e)| f != e);
    assert_eq!(differs, None, "{what} differs at this byte");
}

fn assert_kind<T>(outcome: Result<T>, kind: ErrorKind, what: &str) -> Error {
    match outcome {
        Ok(_) => panic!("{what}: ok, where {kind:?} was due"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{what}: {error:?}");
            error
        }
    }
}

/// Everything listed, sorted by key. A key that is listed twice fails.
async fn listed(sink: &dyn Sink, prefix: Option<&Key>) -> Vec<Object> {
    let mut objects: Vec<Object> = match sink.list(prefix).try_collect().await {
        Ok(objects) => objects,
        Err(error) => panic!("list {prefix:?}: {error:?}"),
    };
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    let twice = objects.windows(2).find(|pair| pair[0].key == pair[1].key);
    assert_eq!(twice, None, "listed twice");
    objects
}

async fn listed_keys(sink: &dyn Sink, prefix: Option<&Key>) -> Vec<String> {
    let objects = listed(sink, prefix).await;
    objects.iter().map(|o| o.key.as_str().to_owned()).collect()
}

/// All children, sorted. Duplicates stay.
async fn children(sink: &dyn Sink, prefix: Option<&Key>) -> Vec<String> {
    let mut names: Vec<String> = match sink.children(prefix).try_collect().await {
        Ok(names) => names,
        Err(error) => panic!("children {prefix:?}: {error:?}"),
    };
    names.sort();
    names
}

/// No way of looking shows anything at `key`. The key has two segments.
async fn assert_invisible(sink: &dyn Sink, key: &Key, after: &str) {
    let at = Locator::from(key);
    assert_kind(
        sink.stat(&at).await,
        ErrorKind::NotFound,
        &format!("stat after {after}"),
    );
    assert_kind(
        read(sink, &at, None).await,
        ErrorKind::NotFound,
        &format!("get after {after}"),
    );
    let listed = listed(sink, None).await;
    let shown = listed.iter().find(|object| object.key == *key);
    assert_eq!(shown, None, "listed after {after}");
    let folder = crate::testing::sink::key(key.as_str().split('/').next().unwrap_or_default());
    let children = children(sink, Some(&folder)).await;
    assert!(
        !children.iter().any(|c| c == key.name()),
        "a child after {after}"
    );
}

/// Data that stops half way until somebody lets it go on.
struct Gate {
    reached: oneshot::Receiver<()>,
    open: oneshot::Sender<()>,
    dropped: oneshot::Receiver<()>,
}

impl Gate {
    /// The first of the streams gives all of `bytes`, then waits for ever or for
    /// [`open`](Self::open), then ends.
    fn after(bytes: Bytes) -> (ByteStream, Gate) {
        let (reach, reached) = oneshot::channel();
        let (open, opened) = oneshot::channel::<()>();
        let (drop, dropped) = oneshot::channel::<()>();
        let wait = stream::once(async move {
            let _drop = drop;
            let _ = reach.send(());
            if opened.await.is_err() {
                // Nobody will ever open it.
                std::future::pending::<()>().await;
            }
            Ok(Bytes::new())
        });
        let gate = Gate {
            reached,
            open,
            dropped,
        };
        (ByteStream::new(cut(bytes).chain(wait)), gate)
    }
}

/// `bytes` in chunks, with a pause for other tasks before each.
fn cut(bytes: Bytes) -> impl stream::Stream<Item = Result<Bytes>> + Send + 'static {
    stream::unfold(bytes, async |mut rest| {
        tokio::task::yield_now().await;
        let n = rest.len().min(CHUNK);
        (n > 0).then(|| (Ok(rest.split_to(n)), rest))
    })
}

/// Gives `bytes`, then fails with `error`.
fn failing(bytes: Bytes, error: Error) -> ByteStream {
    ByteStream::new(cut(bytes).chain(stream::iter([Err(error)])))
}
