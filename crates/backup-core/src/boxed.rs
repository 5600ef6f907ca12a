//! Boxed and shared plugins are plugins: what configuration chose at run time fits where a type
//! that was known at compile time does. Every method is forwarded, provided ones too.
#![deny(clippy::missing_trait_methods)]

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    ByteStream, Capabilities, Check, Delegated, Event, Facts, Key, Locator, Object, Observer,
    PartWriter, PutOptions, Request, RestoreStep, Result, Signer, Sink, Source, Swept, Verifier,
};

macro_rules! forward {
    ($($pointer:ident)*) => {$(
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
            fn incremental(&self) -> bool {
                (**self).incremental()
            }
            fn restore_steps(&self) -> Vec<RestoreStep> {
                (**self).restore_steps()
            }
            fn delegated(&self) -> Option<&dyn Delegated> {
                (**self).delegated()
            }
        }

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
            async fn free_space(&self) -> Result<Option<u64>> {
                (**self).free_space().await
            }
            async fn examine(&self) -> Result<Vec<Check>> {
                (**self).examine().await
            }
        }

        impl<S: Signer + ?Sized> Signer for $pointer<S> {
            fn sign_stream(&self, message: &mut dyn Read, comment: &str) -> Result<String> {
                (**self).sign_stream(message, comment)
            }
            fn sign(&self, message: &[u8], comment: &str) -> Result<String> {
                (**self).sign(message, comment)
            }
        }

        impl<V: Verifier + ?Sized> Verifier for $pointer<V> {
            fn verify(&self, message: &[u8], signature: &str) -> Result<String> {
                (**self).verify(message, signature)
            }
        }

        impl<O: Observer + ?Sized> Observer for $pointer<O> {
            fn event(&self, event: &Event<'_>) {
                (**self).event(event);
            }
        }
    )*};
}
forward!(Arc Box);
