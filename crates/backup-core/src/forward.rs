//! A pointer to a plugin is a plugin: what takes an `impl Sink` takes an `Arc<dyn Sink>` too.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::transform::{Reader, Stage};
use crate::{
    ByteStream, Capabilities, Coding, Delegated, Facts, Key, Locator, Object, Occupancy,
    PartReader, PartWriter, PutOptions, Request, RestoreOptions, RestoreStep, Result, Sink, Source,
    StockCommand, Swept, Target, Transform,
};

macro_rules! forward {
    ($($pointer:ident)*) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<S: Sink + ?Sized> Sink for $pointer<S> {
            async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object> {
                (**self).put(key, data, options).await
            }

            async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
                (**self).get(at, range).await
            }

            async fn stat(&self, at: &Locator) -> Result<Object> {
                (**self).stat(at).await
            }

            async fn delete(&self, at: &Locator) -> Result<()> {
                (**self).delete(at).await
            }

            fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
                (**self).list(prefix)
            }

            fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
                (**self).children(prefix)
            }

            fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
                (**self).versions(prefix)
            }

            async fn sweep(&self, older_than: Duration) -> Result<Swept> {
                (**self).sweep(older_than).await
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<S: Source + ?Sized> Source for $pointer<S> {
            fn kind(&self) -> &str {
                (**self).kind()
            }

            async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
                (**self).backup(request, out).await
            }

            fn parts_at_once(&self) -> usize {
                (**self).parts_at_once()
            }

            fn restore_steps(&self) -> Vec<RestoreStep> {
                (**self).restore_steps()
            }

            fn delegated(&self) -> Option<&dyn Delegated> {
                (**self).delegated()
            }
        }

        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: Target + ?Sized> Target for $pointer<T> {
            fn kind(&self) -> &str {
                (**self).kind()
            }

            async fn occupancy(&self) -> Result<Occupancy> {
                (**self).occupancy().await
            }

            fn publishes_atomically(&self) -> bool {
                (**self).publishes_atomically()
            }

            async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
                (**self).restore(parts, options).await
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl<T: Transform + ?Sized> Transform for $pointer<T> {
            fn id(&self) -> &str {
                (**self).id()
            }

            fn suffix(&self) -> &str {
                (**self).suffix()
            }

            fn stage(&self) -> Stage {
                (**self).stage()
            }

            fn encode(&self, plain: Reader, coding: &Coding) -> Result<Reader> {
                (**self).encode(plain, coding)
            }

            fn decode(&self, coded: Reader, coding: &Coding) -> Result<Reader> {
                (**self).decode(coded, coding)
            }

            fn can_decode(&self) -> bool {
                (**self).can_decode()
            }

            fn undo(&self) -> StockCommand {
                (**self).undo()
            }

            fn memory(&self, threads: usize) -> usize {
                (**self).memory(threads)
            }
        }
    )*};
}

forward!(Arc Box);
