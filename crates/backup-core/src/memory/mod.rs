//! A sink, a source and a target in memory: for examples, tests and simulations. Each is a
//! handle, clones share what it holds.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod sink;
mod store;

pub use sink::MemorySink;
pub use store::{MemorySource, MemoryTarget};

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
