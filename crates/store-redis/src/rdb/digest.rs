//! What an RDB holds, as a number that does not depend on how it is encoded.

use sha2::{Digest as _, Sha256};

use super::grammar::op;
use super::packed::{Elements, Lzf, Packing, Unpacker};
use super::visitor::{Entry, Visitor};

/// Sums up every key with its value and its expiry, and every library of functions.
///
/// A server loads what it was given, and writes it in another order, and a set that has become
/// small in another encoding: so keys, fields and members count in any order, and integers and
/// texts that read the same are the same. Not made to withstand somebody who looks for two that
/// agree: it finds what went wrong. What a module wrote is left out: nobody else knows what of it
/// has an order.
#[derive(Default)]
pub(crate) struct Digest {
    total: u128,
    /// An encoding that is taken for what it is, not for what it means, was seen.
    opaque: bool,
    body: Body,
    kind: u8,
    /// `None` until the key is over.
    head: Option<Sha256>,
    key: Sha256,
    expires: [u8; 8],
    unpacker: Option<Unpacker>,
    lzf: Option<Lzf>,
    in_text: bool,
    /// Whether this entry counts.
    counts: bool,
    container: u64,
}

/// The type of a module's value.
const MODULE: u8 = 7;

/// What is summed up of one value.
#[derive(Default)]
struct Body {
    shape: Shape,
    /// Of a sequence: all of it. Else: the current group.
    hash: Sha256,
    sum: u128,
    /// Elements of the current group, and the current one's length.
    elements: usize,
    length: u64,
    /// A score or a time, as text or in eight bytes.
    number: Vec<u8>,
    /// When the current field expires, 0 for never; and what that is counted from.
    ttl: u64,
    base: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// Everything in its order.
    #[default]
    Sequence,
    Set,
    /// Field and value, and where `timed` when the field expires, behind them.
    Hash {
        timed: bool,
    },
    /// Member and score.
    Sorted,
}

impl Digest {
    /// The sum; `None`: something was in it that can only be compared byte by byte.
    pub(crate) fn value(&self) -> Option<u128> {
        (!self.opaque).then_some(self.total)
    }

    fn packing(&self) -> Packing {
        match self.kind {
            11 => Packing::Intset,
            16 | 17 | 20 | 25 => Packing::Listpack,
            // A node of a quicklist: 1 is one element, 2 a listpack (`quicklist.h`).
            18 if self.container == 2 => Packing::Listpack,
            _ => Packing::Plain,
        }
    }
}

impl Visitor for Digest {
    fn entry(&mut self, entry: Entry) {
        self.head = None;
        self.counts = matches!(entry, Entry::Key { .. } | Entry::Other(op::FUNCTION2));
        match entry {
            Entry::Other(kind) => self.kind = kind,
            Entry::Key { kind, database } => {
                self.kind = kind;
                self.key = Sha256::new();
                self.key.update(database.to_le_bytes());
                self.key.update(std::mem::take(&mut self.expires));
                // Ziplists and zipmaps, and scores as text: no version that is in use writes them.
                self.opaque |= matches!(kind, 3 | 9 | 10 | 12..=14);
            }
        }
        self.body = Body {
            shape: match self.kind {
                2 | 11 | 20 => Shape::Set,
                4 | 16 | 24 => Shape::Hash { timed: false },
                22 | 25 => Shape::Hash { timed: true },
                5 | 17 => Shape::Sorted,
                _ => Shape::Sequence,
            },
            ..Body::default()
        };
        if matches!(entry, Entry::Other(op::FUNCTION2)) {
            self.head = Some(Sha256::new());
        }
    }

    fn number(&mut self, number: u64) {
        match self.kind {
            18 => self.container = number,
            // Counts of elements, which their sum has already; and what a module wrote.
            1 | 2 | 4 | 5 | MODULE | 22 => {}
            24 => {
                let at = match number {
                    0 => Some(0),
                    _ => self.body.base.checked_add(number - 1),
                };
                self.opaque |= at.is_none();
                self.body.ttl = at.unwrap_or(0);
            }
            _ if self.counts => self.body.hash.update(number.to_le_bytes()),
            _ => {}
        }
    }

    fn text(&mut self, compressed: bool) {
        self.in_text = true;
        self.lzf = compressed.then(Lzf::default);
        let packing = if self.head.is_some() {
            self.packing()
        } else {
            Packing::Plain
        };
        self.unpacker = Some(Unpacker::new(packing));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if !self.in_text {
            match (self.kind, &self.head) {
                (op::EXPIRETIME_MS | op::EXPIRETIME, _) => {
                    // They come in pieces, the lowest first.
                    self.body.number.extend_from_slice(bytes);
                    let known = self.body.number.len().min(8);
                    self.expires[..known].copy_from_slice(&self.body.number[..known]);
                }
                (kind, Some(_)) if kind != MODULE => self.body.fixed(kind, bytes),
                _ => {}
            }
            return;
        }
        if !self.counts {
            return;
        }
        let (Some(unpacker), head) = (&mut self.unpacker, self.head.is_some()) else {
            return;
        };
        if head && self.kind == MODULE {
            return;
        }
        let (key, body) = (&mut self.key, &mut self.body);
        let mut out = |bytes: &[u8]| match head {
            true => unpacker.feed(bytes, body),
            false => key.update(bytes),
        };
        match &mut self.lzf {
            Some(lzf) => self.opaque |= lzf.feed(bytes, out).is_none(),
            None => out(bytes),
        }
    }

    fn text_ends(&mut self) {
        self.in_text = false;
        if !self.counts {
            return;
        }
        match (&self.head, self.unpacker.take()) {
            (None, _) => self.head = Some(std::mem::take(&mut self.key)),
            (Some(_), Some(unpacker)) => unpacker.end(&mut self.body),
            _ => {}
        }
    }

    fn entry_ends(&mut self) {
        let Some(mut head) = self.head.take().filter(|_| self.counts) else {
            return;
        };
        let body = std::mem::take(&mut self.body);
        head.update([body.shape.tag()]);
        head.update(body.sum.to_le_bytes());
        if body.shape == Shape::Sequence {
            head.update(body.hash.finalize());
        }
        self.total = self.total.wrapping_add(first(head));
    }
}

impl Shape {
    fn tag(self) -> u8 {
        match self {
            Self::Sequence => 0,
            Self::Set => 1,
            Self::Hash { .. } => 2,
            Self::Sorted => 3,
        }
    }

    /// How many elements are one thing.
    fn group(self) -> usize {
        match self {
            Self::Sequence => usize::MAX,
            Self::Set => 1,
            Self::Hash { timed: false } | Self::Sorted => 2,
            Self::Hash { timed: true } => 3,
        }
    }

    /// Whether the element of this index is a number.
    fn is_number(self, index: usize) -> bool {
        matches!(
            (self, index),
            (Self::Sorted, 1) | (Self::Hash { timed: true }, 2)
        )
    }
}

impl Body {
    /// Bytes outside of a text: a score, or a time.
    fn fixed(&mut self, kind: u8, bytes: &[u8]) {
        if !matches!(kind, 5 | 22 | 24 | 25) {
            return self.hash.update(bytes);
        }
        self.number.extend_from_slice(bytes);
        let Ok(eight) = <[u8; 8]>::try_from(self.number.as_slice()) else {
            return;
        };
        let number = u64::from_le_bytes(eight);
        self.number.clear();
        match kind {
            // Ahead of all fields: what their times are counted from.
            24 | 25 => self.base = number,
            // Never is -1.
            22 => self.ttl = if number == u64::MAX { 0 } else { number },
            _ => self.ttl = score(f64::from_bits(number)),
        }
        if matches!(kind, 5 | 22) {
            self.elements += 1;
            self.close_group();
        }
    }

    fn close_group(&mut self) {
        if self.elements < self.shape.group() {
            return;
        }
        self.hash
            .update(std::mem::take(&mut self.ttl).to_le_bytes());
        self.sum = self.sum.wrapping_add(first(std::mem::take(&mut self.hash)));
        self.elements = 0;
    }
}

impl Elements for Body {
    fn bytes(&mut self, bytes: &[u8]) {
        if self.shape.is_number(self.elements) {
            let room = 64 - self.number.len().min(64);
            self.number
                .extend_from_slice(&bytes[..room.min(bytes.len())]);
            return;
        }
        self.length += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn ends(&mut self) {
        if self.shape.is_number(self.elements) {
            let text = String::from_utf8_lossy(&self.number);
            self.ttl = match self.shape {
                // As text here, in eight bytes there.
                Shape::Sorted => text.parse::<f64>().map_or(0, score),
                _ => text.parse().unwrap_or(0),
            };
            self.number.clear();
        } else {
            self.hash
                .update(std::mem::take(&mut self.length).to_le_bytes());
        }
        self.elements = self.elements.saturating_add(1);
        self.close_group();
    }
}

/// A score as a number: -0 is 0, which is what is left of it in a listpack.
fn score(score: f64) -> u64 {
    (score + 0.0).to_bits()
}

/// As much of a hash as is summed up.
fn first(hash: Sha256) -> u128 {
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(16)
        .fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}
