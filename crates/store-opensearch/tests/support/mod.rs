//! The servers that `scripts/services` runs. Tests share them: each has names of its own.

#![allow(dead_code, reason = "each test file uses its share")]

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use backup_core::testing::service;
use backup_core::{
    Event, Job, JobBuilder, MemorySink, Observer, Pipeline, RestoreRequest, Result, RunOptions,
    Sink,
};
use base64::Engine;
use reqwest::Method;
use serde_json::Value;
use store_opensearch::{OpenSearch, OpenSearchCluster};

pub(crate) mod gate;
pub(crate) mod proxy;
mod seed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 3.8
    V3,
    /// 2.19
    V2,
}

/// The servers that everything is tested with.
pub(crate) const KINDS: [Kind; 2] = [Kind::V3, Kind::V2];

/// A part of a cluster: everything whose name begins with `prefix`. Deleted with the test.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) url: String,
    pub(crate) prefix: String,
    http: reqwest::Client,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Kind {
    pub(crate) fn at_hand(self) -> Option<Cluster> {
        let variable = match self {
            Self::V3 => "LIFEBELT_OPENSEARCH_URL",
            Self::V2 => "LIFEBELT_OPENSEARCH2_URL",
        };
        let url = service(variable)?;
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        Some(Cluster::at(
            url,
            format!("t{}-{number}-", std::process::id()),
        ))
    }

    /// Where its repositories may lie.
    pub(crate) fn repositories(self) -> Option<PathBuf> {
        let variable = match self {
            Self::V3 => "LIFEBELT_OPENSEARCH_REPOSITORIES",
            Self::V2 => "LIFEBELT_OPENSEARCH2_REPOSITORIES",
        };
        service(variable).map(Into::into)
    }

    pub(crate) fn all() -> impl Iterator<Item = Cluster> {
        KINDS.into_iter().filter_map(Self::at_hand)
    }
}

impl Cluster {
    pub(crate) fn at(url: String, prefix: String) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url, prefix, http }
    }

    /// The same names on another server.
    pub(crate) fn on(&self, url: &str) -> Self {
        Self::at(url.to_owned(), self.prefix.clone())
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Everything of this test and nothing of another.
    pub(crate) fn source(&self) -> OpenSearch {
        let own = format!("{}*", self.prefix);
        OpenSearch::from_url(&self.url)
            .unwrap()
            .indices([&own])
            .state([&own])
    }

    pub(crate) fn target(&self) -> OpenSearchCluster {
        let own = format!("{}*", self.prefix);
        OpenSearchCluster::from_url(&self.url)
            .unwrap()
            .indices([&own])
            .state([&own])
    }

    pub(crate) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: impl Into<String>,
    ) -> (u16, String) {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let request = match body.into() {
            body if body.is_empty() => request,
            body => request
                .header("content-type", "application/json")
                .body(body),
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The answer, which must be yes.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, said) = self.try_ask(method.clone(), path, body).await;
        assert!(status < 300, "{method} {path}: {status} {said}");
        serde_json::from_str(&said).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, Value::Null).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) {
        self.ask(Method::PUT, path, body).await;
    }

    /// Sends lines to `_bulk`; all must be taken.
    pub(crate) async fn bulk(&self, lines: &str) {
        let (status, said) = self
            .try_ask(Method::POST, "/_bulk?refresh=true", lines)
            .await;
        let said: Value = serde_json::from_str(&said).unwrap();
        assert!(status < 300 && said["errors"] == false, "{said}");
    }

    pub(crate) async fn wipe_indices(&self) {
        let own = &self.prefix;
        self.delete([format!("/_data_stream/*{own}*"), format!("/*{own}*")])
            .await;
    }

    pub(crate) async fn wipe(&self) {
        self.wipe_indices().await;
        let own = &self.prefix;
        self.delete([
            format!("/_index_template/{own}*"),
            format!("/_component_template/{own}*"),
            format!("/_ingest/pipeline/{own}*"),
            format!("/_search/pipeline/{own}*"),
            format!("/_scripts/{own}double"),
        ])
        .await;
    }

    async fn delete(&self, paths: impl IntoIterator<Item = String>) {
        for path in paths {
            let (status, said) = self.try_ask(Method::DELETE, &path, "").await;
            assert!(status < 300 || status == 404, "{path}: {said}");
        }
    }

    /// Repositories that hold something of ours, by their names.
    pub(crate) async fn repositories(&self) -> Vec<String> {
        let mut left = Vec::new();
        for name in self.get("/_snapshot").await.as_object().unwrap().keys() {
            // Another test may have taken it away meanwhile.
            let (_, said) = self
                .try_ask(Method::GET, &format!("/_snapshot/{name}/_all"), "")
                .await;
            if said.contains(&self.prefix) {
                left.push(name.clone());
            }
        }
        left
    }

    /// Points in time of our indices. An id has the names of its indices in it.
    pub(crate) async fn points(&self) -> Vec<String> {
        let (_, said) = self
            .try_ask(Method::GET, "/_search/point_in_time/_all", "")
            .await;
        let said: Value = serde_json::from_str(&said).unwrap();
        let ids = said["pits"].as_array().into_iter().flatten();
        let ids = ids.filter_map(|pit| pit["pit_id"].as_str().map(str::to_owned));
        let engine = base64::engine::GeneralPurpose::new(
            &base64::alphabet::URL_SAFE,
            base64::engine::general_purpose::PAD,
        );
        let ours = |id: &String| {
            let bytes = engine.decode(id).unwrap();
            String::from_utf8_lossy(&bytes).contains(&self.prefix)
        };
        ids.filter(ours).collect()
    }

    pub(crate) async fn count(&self) -> u64 {
        let own = format!("*{}*", self.prefix);
        let names = self
            .get(&format!("/_resolve/index/{own}?expand_wildcards=all"))
            .await;
        names["indices"].as_array().unwrap().len() as u64
    }
}

/// Compares two fingerprints, and shows only what differs.
#[track_caller]
pub(crate) fn assert_same(after: &str, before: &str, what: &str) {
    let missing = |from: &str, of: &str| -> Vec<String> {
        let known: std::collections::BTreeSet<&str> = of.lines().collect();
        let new = from.lines().filter(|line| !known.contains(line));
        new.take(3)
            .map(|line| line.chars().take(1500).collect())
            .collect()
    };
    let (gone, new) = (missing(before, after), missing(after, before));
    assert!(
        after == before,
        "{what}: it had\n{gone:#?}\nand has\n{new:#?}"
    );
}

/// A job that keeps the bytes as they are.
pub(crate) fn job(source: OpenSearch, sink: impl Sink) -> JobBuilder {
    let job = Job::builder("search").source(source).sink("sink", sink);
    job.pipeline(Pipeline::unencrypted())
}

pub(crate) async fn back_up(source: OpenSearch, sink: &MemorySink) -> Result<backup_core::Report> {
    let job = job(source, sink.clone()).build().unwrap();
    job.run(RunOptions::default()).await
}

/// The same, and `once` sees what happens meanwhile.
pub(crate) async fn back_up_watched(
    source: OpenSearch,
    sink: &MemorySink,
    once: &Arc<Once>,
) -> Result<backup_core::Report> {
    let job = job(source, sink.clone())
        .observer(once.observers())
        .build()
        .unwrap();
    job.run(RunOptions::default()).await
}

pub(crate) async fn restore(
    job: &Job,
    target: &OpenSearchCluster,
    request: RestoreRequest,
) -> Result<()> {
    let id = job.find("latest").await?.manifest.id.clone();
    job.restore(&id, target, request).await.map(drop)
}

/// A backup of all that `source` is asked for of `cluster`, which is empty then.
pub(crate) async fn backed_up(cluster: &Cluster, source: OpenSearch) -> Job {
    let sink = MemorySink::new();
    back_up(source.clone(), &sink).await.unwrap();
    cluster.wipe().await;
    job(source, sink).build().unwrap()
}

/// The restore succeeds, and everything is as it was `before`. Empties the cluster.
pub(crate) async fn restores(
    job: &Job,
    cluster: &Cluster,
    target: &OpenSearchCluster,
    before: &str,
) {
    let outcome = restore(job, target, RestoreRequest::default()).await;
    outcome.unwrap_or_else(|e| panic!("{e:?}"));
    assert_same(&cluster.fingerprint().await, before, &cluster.url);
    cluster.wipe().await;
}

/// An error that an operator can do something with.
pub(crate) fn one_clear_line(error: &backup_core::Error) -> String {
    let line = error.chain();
    assert!(!line.contains('\n') && line.len() < 700, "{line}");
    line
}

/// Does something to the server in the midst of a job: at the first event that fits.
pub(crate) struct Once {
    when: fn(&Event<'_>) -> bool,
    work: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Once {
    pub(crate) fn new(
        when: fn(&Event<'_>) -> bool,
        work: impl FnOnce() + Send + 'static,
    ) -> Arc<Self> {
        let work = Mutex::new(Some(Box::new(work) as Box<_>));
        Arc::new(Self { when, work })
    }

    /// As soon as the first part is begun: the points in time are open by then.
    pub(crate) fn at_first_part(work: impl FnOnce() + Send + 'static) -> Arc<Self> {
        let first = |event: &Event<'_>| matches!(event, Event::PartStarted { .. });
        Self::new(first, work)
    }

    pub(crate) fn observers(self: &Arc<Self>) -> Vec<Arc<dyn Observer>> {
        vec![Arc::clone(self) as Arc<dyn Observer>]
    }

    pub(crate) fn fired(&self) -> bool {
        self.work.lock().unwrap().is_none()
    }
}

impl Observer for Once {
    fn event(&self, event: &Event<'_>) {
        if (self.when)(event) {
            let work = self.work.lock().unwrap().take();
            work.into_iter().for_each(|work| work());
        }
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

/// Waits for `work` where nothing can be awaited: in an observer, and after a panic.
pub(crate) fn wait_for<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let thread = thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(work)
    });
    thread.join().unwrap()
}
