/// What is between two opcodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A key and its value, of the type `kind`.
    Key { kind: u8, database: u64 },
    /// Anything else, by its opcode.
    Other(u8),
}

/// Watches a walk. Every thing of an entry comes in its order.
pub(crate) trait Visitor {
    /// An entry begins.
    fn entry(&mut self, _: Entry) {}
    /// A number.
    fn number(&mut self, _: u64) {}
    /// A text begins; `compressed`: its bytes come as LZF. [`text_ends`](Self::text_ends) ends it.
    fn text(&mut self, _compressed: bool) {}
    /// Bytes of a text, or of a thing of fixed size outside of one.
    fn bytes(&mut self, _: &[u8]) {}
    /// The text is over.
    fn text_ends(&mut self) {}
    /// The entry is over.
    fn entry_ends(&mut self) {}
}

/// Sees nothing.
impl Visitor for () {}
