//! How bytes run from a source to its sinks.

pub(crate) mod thread;

use crate::{ByteStream, Result};

/// Where a source puts its parts.
#[derive(Debug)]
pub struct PartWriter {}

impl PartWriter {
    /// Writes one part.
    pub async fn write(&self, _name: &str, _data: ByteStream) -> Result<()> {
        Ok(())
    }
}
