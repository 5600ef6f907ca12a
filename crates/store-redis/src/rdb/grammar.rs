//! What an RDB consists of, as tables.
//!
//! Everything is made of five things: numbers, texts, bytes of a fixed count, scores as text, and
//! a number that says how often something follows. So a value is a list of [`Item`]s, and one
//! loop walks all of them.
//!
//! Sources: `rdb.h` and `rdbLoadObject` in `rdb.c` of Redis 7.4 (types 0 to 25) and Valkey 9.1
//! (type 22); each is tried with a real server in `tests/service.rs`, but for those that only
//! older servers wrote.

use super::Version;

/// One thing that follows in the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    /// A number in one, two, five or nine bytes.
    Number,
    /// A text: plain, a number in its place, or compressed.
    Text,
    /// So many bytes.
    Bytes(u8),
    /// A score of the first kind of sorted sets: a length and digits, or a special length.
    Score,
    /// A number, and then these so many times.
    Each(&'static [Item]),
    /// What a module wrote: opcodes with what they announce, until 0.
    Module,
}

use Item::{Bytes, Each, Module, Number, Score, Text};

/// Ahead of every value.
pub(crate) const KEY: &[Item] = &[Text];

/// Opcodes that stand in the place of a value's type.
pub(crate) mod op {
    /// Valkey 9: a slot moves in while this is written.
    pub(crate) const SLOT_IMPORT: u8 = 243;
    pub(crate) const SLOT_INFO: u8 = 244;
    pub(crate) const FUNCTION2: u8 = 245;
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQ: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const RESIZEDB: u8 = 251;
    pub(crate) const EXPIRETIME_MS: u8 = 252;
    pub(crate) const EXPIRETIME: u8 = 253;
    pub(crate) const SELECTDB: u8 = 254;
    pub(crate) const EOF: u8 = 255;
}

/// What follows an opcode; `None`: it is none that we know.
pub(crate) fn of_opcode(opcode: u8) -> Option<&'static [Item]> {
    Some(match opcode {
        op::SLOT_INFO => &[Number, Number, Number],
        op::FUNCTION2 => &[Text],
        op::MODULE_AUX => &[Number, Number, Number, Module],
        op::IDLE | op::SELECTDB => &[Number],
        op::FREQ => &[Bytes(1)],
        op::AUX => &[Text, Text],
        op::RESIZEDB => &[Number, Number],
        op::EXPIRETIME_MS => &[Bytes(8)],
        op::EXPIRETIME => &[Bytes(4)],
        _ => return None,
    })
}

/// What follows a key whose value is of type `kind`; `None`: it is none of this version.
pub(crate) fn of_value(kind: u8, version: Version) -> Option<&'static [Item]> {
    let since = match kind {
        22.. => 12,
        20 | 21 => 11,
        16..=19 => 10,
        _ => 0,
    };
    let valkey = version.is_valkey();
    if version < Version(since) {
        return None;
    }
    Some(match kind {
        // A string; and zipmap, ziplists, intset and listpacks, which are one text each.
        0 | 9..=13 | 16 | 17 | 20 => &[Text],
        // A list, a set.
        1 | 2 => &[Each(&[Text])],
        // Sorted sets: scores as text, then as binary doubles.
        3 => &[Each(&[Text, Score])],
        5 => &[Each(&[Text, Bytes(8)])],
        // A hash.
        4 => &[Each(&[Text, Text])],
        // A module's value: its type, and what it wrote.
        7 => &[Number, Module],
        // Quicklists: of ziplists; of plain nodes and listpacks.
        14 => &[Each(&[Text])],
        18 => &[Each(&[Number, Text])],
        15 => STREAM,
        19 => STREAM_2,
        21 => STREAM_3,
        // Hashes whose fields expire: Valkey's, at a time of each; Redis 7.4's, of its release
        // candidates, and since then with the earliest time ahead.
        22 if valkey => &[Each(&[Text, Text, Bytes(8)])],
        22 => &[Each(&[Number, Text, Text])],
        23 if !valkey => &[Text],
        24 if !valkey => &[Bytes(8), Each(&[Number, Text, Text])],
        25 if !valkey => &[Bytes(8), Text],
        _ => return None,
    })
}

/// Nodes by their first id, length, last id; groups with a name, their last id, what is pending,
/// and consumers with a name, a time and what is pending for them.
const STREAM: &[Item] = &[
    Each(&[Text, Text]),
    Number,
    Number,
    Number,
    Each(&[
        Text,
        Number,
        Number,
        PENDING,
        Each(&[Text, Bytes(8), PENDING_FOR_ONE]),
    ]),
];

/// Besides: the first id, the highest that was deleted, how many were added, and a count for each
/// group.
const STREAM_2: &[Item] = &[
    Each(&[Text, Text]),
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Each(&[
        Text,
        Number,
        Number,
        Number,
        PENDING,
        Each(&[Text, Bytes(8), PENDING_FOR_ONE]),
    ]),
];

/// Besides: a second time for each consumer.
const STREAM_3: &[Item] = &[
    Each(&[Text, Text]),
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Each(&[
        Text,
        Number,
        Number,
        Number,
        PENDING,
        Each(&[Text, Bytes(8), Bytes(8), PENDING_FOR_ONE]),
    ]),
];

const PENDING: Item = Each(&[Bytes(16), Bytes(8), Number]);
const PENDING_FOR_ONE: Item = Each(&[Bytes(16)]);

/// What a module's opcode announces; `None`: it is none that we know. 0 ends the value.
pub(crate) fn of_module(opcode: u64) -> Option<&'static [Item]> {
    Some(match opcode {
        1 | 2 => &[Number],
        3 => &[Bytes(4)],
        4 => &[Bytes(8)],
        5 => &[Text],
        _ => return None,
    })
}
