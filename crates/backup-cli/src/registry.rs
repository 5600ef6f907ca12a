//! Which stores, places and targets a program knows: its `type`s.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use backup_core::{Result, Sink, Source, Target};

use crate::config::Options;

type Make<T> = Box<dyn Fn(&Options) -> Result<T> + Send + Sync>;

/// Makes sources, sinks and targets from their tables in the configuration.
///
/// ```
/// # use backup_cli::Registry;
/// # use backup_core::{Result, Source};
/// # fn kafka(_: &backup_cli::config::Options) -> Result<Box<dyn Source>> { unimplemented!() }
/// let mut registry = Registry::standard();
/// registry.source("kafka", kafka);
/// ```
#[derive(Default)]
pub struct Registry {
    sources: BTreeMap<String, Make<Box<dyn Source>>>,
    sinks: BTreeMap<String, Make<Arc<dyn Sink>>>,
    targets: BTreeMap<String, Make<Box<dyn Target>>>,
}

impl Registry {
    /// Everything in the box. [`Registry::default`] is empty.
    pub fn standard() -> Self {
        crate::builtin::registry()
    }

    /// Knows `source = { type = "<kind>", .. }`. A second one of a kind replaces the first.
    ///
    /// `make` has no side effects: it is called for configurations that are only looked at.
    pub fn source(
        &mut self,
        kind: &str,
        make: impl Fn(&Options) -> Result<Box<dyn Source>> + Send + Sync + 'static,
    ) -> &mut Self {
        self.sources.insert(kind.to_owned(), Box::new(make));
        self
    }

    /// Knows `[sinks.NAME]` with `type = "<kind>"`. `make` has no side effects.
    pub fn sink(
        &mut self,
        kind: &str,
        make: impl Fn(&Options) -> Result<Arc<dyn Sink>> + Send + Sync + 'static,
    ) -> &mut Self {
        self.sinks.insert(kind.to_owned(), Box::new(make));
        self
    }

    /// Knows `[targets.NAME]` with `type = "<kind>"`, and `restore --to` for backups of this
    /// kind: there `make` is given `path`, or `url` if what stands behind `--to` has a `://`.
    ///
    /// A source whose options have a `path` or `url` is a place too: restoring into it is
    /// restoring into production. `make` has no side effects.
    pub fn target(
        &mut self,
        kind: &str,
        make: impl Fn(&Options) -> Result<Box<dyn Target>> + Send + Sync + 'static,
    ) -> &mut Self {
        self.targets.insert(kind.to_owned(), Box::new(make));
        self
    }

    pub(crate) fn source_types(&self) -> Vec<&str> {
        self.sources.keys().map(String::as_str).collect()
    }

    pub(crate) fn sink_types(&self) -> Vec<&str> {
        self.sinks.keys().map(String::as_str).collect()
    }

    pub(crate) fn target_types(&self) -> Vec<&str> {
        self.targets.keys().map(String::as_str).collect()
    }

    pub(crate) fn make_source(&self, options: &Options) -> Result<Box<dyn Source>> {
        make(&self.sources, options)
    }

    pub(crate) fn make_sink(&self, options: &Options) -> Result<Arc<dyn Sink>> {
        make(&self.sinks, options)
    }

    pub(crate) fn make_target(&self, options: &Options) -> Result<Box<dyn Target>> {
        make(&self.targets, options)
    }
}

fn make<T>(makers: &BTreeMap<String, Make<T>>, options: &Options) -> Result<T> {
    match makers.get(options.kind()) {
        Some(make) => make(options).map_err(|error| options.locate(error)),
        None => Err(options.wrong("type", format!("{:?} is not known", options.kind()))),
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("sources", &self.source_types())
            .field("sinks", &self.sink_types())
            .field("targets", &self.target_types())
            .finish()
    }
}
