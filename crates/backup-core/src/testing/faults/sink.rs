//! A sink that fails.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};

use super::{Armed, Call, Fault, First, Plan, tamper};
use crate::{
    ByteStream, Capabilities, Check, Key, Locator, Object, PutOptions, Result, Sink, Swept,
};

/// A sink in front of another that fails as planned. Clones share the counts.
#[derive(Clone, Debug)]
pub struct FaultySink<S> {
    inner: S,
    plan: Plan,
}

impl<S: Sink> FaultySink<S> {
    /// Passes everything on, until faults are added.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            plan: Plan::default(),
        }
    }

    /// The `nth` call of this method, counted from 1, goes wrong.
    #[must_use]
    pub fn at(mut self, call: Call, nth: u64, fault: Fault) -> Self {
        self.plan.add(call, First::Only(nth), fault);
        self
    }

    /// The `nth` call of this method and all after it go wrong.
    #[must_use]
    pub fn from(mut self, call: Call, nth: u64, fault: Fault) -> Self {
        self.plan.add(call, First::From(nth), fault);
        self
    }

    /// How many calls went wrong.
    pub fn fired(&self) -> u64 {
        self.plan.fired()
    }

    /// How many calls of this method there were.
    pub fn calls(&self, call: Call) -> u64 {
        self.plan.calls(call)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Sink> Sink for FaultySink<S> {
    async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object> {
        let Some(mut armed) = self.plan.next(Call::Put) else {
            return self.inner.put(key, data, options).await;
        };
        match armed.fault {
            Fault::Fail(kind) => Err(armed.fail(kind)),
            Fault::LoseReply(_) => armed.leave(self.inner.put(key, data, options).await?),
            Fault::WrongLength => {
                let object = self.inner.put(key, data, options).await?;
                Ok(longer(object, &mut armed))
            }
            Fault::Pretend => {
                let (data, sent) = counted(data);
                match super::drain(data).await {
                    Some(error) => Err(error),
                    None => {
                        armed.fire();
                        Ok(Object::new(key.clone(), sent.get()))
                    }
                }
            }
            _ => {
                let (data, sent) = counted(data);
                let mut object = self.inner.put(key, tamper(data, armed), options).await?;
                object.len = sent.get();
                Ok(object)
            }
        }
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        let Some(mut armed) = self.plan.next(Call::Get) else {
            return self.inner.get(at, range).await;
        };
        match armed.fault {
            Fault::Fail(kind) => Err(armed.fail(kind)),
            Fault::Pretend => {
                armed.fire();
                Ok(ByteStream::from_bytes(""))
            }
            _ => Ok(tamper(self.inner.get(at, range).await?, armed)),
        }
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        let Some(mut armed) = self.plan.next(Call::Stat) else {
            return self.inner.stat(at).await;
        };
        armed.enter().await?;
        let object = self.inner.stat(at).await?;
        let object = longer(object, &mut armed);
        armed.leave(object)
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        let Some(mut armed) = self.plan.next(Call::Delete) else {
            return self.inner.delete(at).await;
        };
        armed.enter().await?;
        if armed.fault == Fault::Pretend {
            armed.fire();
            return Ok(());
        }
        self.inner.delete(at).await?;
        armed.leave(())
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        listing(self.inner.list(prefix), self.plan.next(Call::List), longer)
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        let inner = self.inner.children(prefix);
        listing(inner, self.plan.next(Call::Children), |name, _| name)
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        let inner = self.inner.versions(prefix);
        listing(inner, self.plan.next(Call::Versions), longer)
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        let Some(mut armed) = self.plan.next(Call::Sweep) else {
            return self.inner.sweep(older_than).await;
        };
        armed.enter().await?;
        if armed.fault == Fault::Pretend {
            armed.fire();
            return Ok(Swept::default());
        }
        let swept = self.inner.sweep(older_than).await?;
        armed.leave(swept)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        self.inner.free_space().await
    }

    async fn examine(&self) -> Result<Vec<Check>> {
        self.inner.examine().await
    }
}

fn longer(mut object: Object, armed: &mut Armed) -> Object {
    if armed.fault == Fault::WrongLength {
        armed.fire();
        object.len += 1;
    }
    object
}

/// A listing with a fault in it.
fn listing<'a, T: Send + 'a>(
    items: BoxStream<'a, Result<T>>,
    armed: Option<Armed>,
    change: fn(T, &mut Armed) -> T,
) -> BoxStream<'a, Result<T>> {
    let Some(armed) = armed else {
        return items;
    };
    stream::unfold(Some((items, armed, 0)), move |state| async move {
        let (mut items, mut armed, passed) = state?;
        match armed.fault {
            Fault::Fail(kind) => return Some((Err(armed.fail(kind)), None)),
            Fault::FailAfter(end, kind) if passed >= end => {
                return Some((Err(armed.fail(kind)), None));
            }
            Fault::StallAfter(end) if passed >= end => {
                armed.fire();
                std::future::pending::<()>().await;
            }
            Fault::Slow(delay) => {
                armed.fire();
                tokio::time::sleep(delay).await;
            }
            _ => {}
        }
        match (items.next().await, armed.fault) {
            (None, Fault::LoseReply(kind)) => Some((Err(armed.fail(kind)), None)),
            (None, _) => None,
            (Some(Err(error)), _) => Some((Err(error), None)),
            (Some(Ok(_)), Fault::Pretend) => {
                armed.fire();
                None
            }
            (Some(Ok(_)), Fault::Cut(end)) if passed >= end => {
                armed.fire();
                None
            }
            (Some(Ok(item)), _) => {
                let item = change(item, &mut armed);
                Some((Ok(item), Some((items, armed, passed + 1))))
            }
        }
    })
    .boxed()
}

/// Counts what was sent, whatever is kept of it.
fn counted(data: ByteStream) -> (ByteStream, Sent) {
    let sent = Sent::default();
    let counter = sent.clone();
    let data = data.inspect(move |chunk| {
        let n = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        counter.0.fetch_add(n, std::sync::atomic::Ordering::SeqCst);
    });
    (ByteStream::new(data), sent)
}

#[derive(Clone, Default)]
struct Sent(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl Sent {
    fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl<S: Sink> fmt::Display for FaultySink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}
