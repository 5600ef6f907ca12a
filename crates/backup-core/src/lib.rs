//! Traits, pipeline, stored format and retention of the Lifebelt backup library.

mod clock;
mod error;
mod event;
mod id;
mod key;
mod memory;
mod pipeline;
mod restore;
mod signature;
mod sink;
mod source;
mod stream;
mod target;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
pub mod transform;

pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Observer, Quiet};
pub use id::Id;
pub use key::Key;
pub use memory::{MemorySink, MemorySource, MemoryTarget};
pub use pipeline::PartWriter;
pub use restore::PartReader;
pub use signature::{Signer, Verifier};
pub use sink::{Capabilities, Locator, Object, PutOptions, Sink, Swept};
pub use source::{Delegated, Facts, Request, RestoreStep, Source};
pub use stream::{ByteStream, CHUNK};
pub use target::{Occupancy, RestoreOptions, Target};
pub use time::Stamp;
pub use transform::{Coding, StockCommand, Transform};

pub use async_trait::async_trait;
