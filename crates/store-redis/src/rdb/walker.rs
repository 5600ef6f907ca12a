use std::collections::BTreeMap;

use backup_core::{Error, ErrorKind, Result};

use super::checksum::Checksum;
use super::grammar::{self, Item, op};
use super::scratch::{self, Length, Scratch};
use super::visitor::{Entry, Visitor};
use super::{Content, MAGIC, Summary, Version};

/// Walks through an RDB while it streams, and tells at its end whether it was whole.
///
/// Takes it in pieces of any size and holds a few hundred bytes, whatever the input says: texts are
/// passed over, counts are counted down, and nothing is allocated by a length that was read.
/// Structure and checksum are checked by the same pass, and the end must be where both say.
///
/// A version that is newer than the tables, and has something that is not in them, is walked no
/// further: then only its checksum is known ([`Summary::content`] is `None`).
#[derive(Clone)]
pub(crate) struct Walker<V = ()> {
    visitor: V,
    checksum: Checksum,
    version: Option<Version>,
    /// Bytes that were taken.
    bytes: u64,
    /// Given up: a newer version has something that we do not know.
    unknown: bool,
    at: At,
    /// What is still to come of the current entry, the innermost last. At most six.
    frames: Vec<Frame>,
    scratch: Scratch,
    entry: Entry,
    /// Numbers and texts of the current entry that were read.
    numbers: u32,
    texts: u32,
    /// Beginnings of the current entry's first two texts.
    noted: [Vec<u8>; 2],
    database: u64,
    expires: bool,
    content: Content,
}

/// What the next byte belongs to.
#[derive(Clone, Copy)]
enum At {
    Magic,
    Opcode,
    Number,
    /// The number says how often these follow.
    Count(&'static [Item]),
    /// The number is an opcode of a module.
    Module,
    Text,
    /// The length of a compressed text, then that of what it was.
    Compressed,
    Expanded(u64),
    /// So many bytes more of a text.
    Payload(u64),
    /// So many bytes more of a thing of fixed size.
    Fixed(u64),
    /// An integer of so many bytes in the place of a text.
    Integer(usize),
    Score,
    Checksum,
    End,
}

#[derive(Clone)]
struct Frame {
    items: &'static [Item],
    next: usize,
    rounds: u64,
}

/// More than any server has.
const MAX_DATABASES: usize = 65_536;
const MAX_MODULES: usize = 64;
/// As much of a text as is of interest.
const NOTED: usize = 64;
/// What servers note ahead of the data, as far as it is of interest.
const AUX: [&str; 5] = ["redis-ver", "valkey-ver", "ctime", "repl-id", "repl-offset"];

impl Walker {
    pub(crate) fn new() -> Self {
        Self::with(())
    }
}

impl<V: Visitor> Walker<V> {
    /// A walk with a visitor.
    pub(crate) fn with(visitor: V) -> Self {
        Self {
            visitor,
            checksum: Checksum::new(),
            version: None,
            bytes: 0,
            unknown: false,
            at: At::Magic,
            frames: Vec::with_capacity(6),
            scratch: Scratch::default(),
            entry: Entry::Other(op::EOF),
            numbers: 0,
            texts: 0,
            noted: [Vec::new(), Vec::new()],
            database: 0,
            expires: false,
            content: Content::default(),
        }
    }

    /// Takes the next bytes. After an error the walk is over.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.checksum.update(bytes);
        let mut rest = bytes;
        let walked = match self.unknown {
            true => Ok(()),
            false => self.walk(&mut rest),
        };
        let at = self.bytes + (bytes.len() - rest.len()) as u64;
        self.bytes += bytes.len() as u64;
        match walked {
            Ok(()) => Ok(()),
            Err(_) if self.is_newer() => {
                self.unknown = true;
                Ok(())
            }
            Err(what) => Err(Error::new(
                ErrorKind::Corrupt,
                format!("the RDB is damaged at its byte {at}: {what}"),
            )),
        }
    }

    /// Whether structure and checksum are both at their end. `unchecked`: a checksum that the
    /// server was told not to make (`rdbchecksum no`) is no error.
    pub(crate) fn finish(self, unchecked: bool) -> Result<(Summary, V)> {
        let corrupt = |what: String| Err(Error::new(ErrorKind::Corrupt, what));
        let bytes = self.bytes;
        let Some(version) = self.version else {
            return corrupt(format!(
                "the RDB is cut off in its header, after {bytes} bytes"
            ));
        };
        let walked = matches!(self.at, At::End) && !self.unknown;
        if !walked && !self.is_newer() {
            return corrupt(format!("the RDB is cut off after {bytes} bytes"));
        }
        let (computed, written) = self.checksum.compare();
        let checksum = written != 0;
        if checksum && computed != written {
            return corrupt(format!(
                "the RDB is damaged: its checksum is {written:016x}, and its bytes give {computed:016x}"
            ));
        }
        if !checksum && !unchecked {
            return Err(Error::new(
                ErrorKind::Refused,
                "the RDB has no checksum: set `rdbchecksum yes` on its server, or `allow_unchecked` here",
            ));
        }
        let summary = Summary {
            version,
            bytes,
            checksum,
            content: walked.then_some(self.content),
        };
        Ok((summary, self.visitor))
    }

    fn is_newer(&self) -> bool {
        self.version.is_some_and(|version| !version.is_known())
    }

    fn walk(&mut self, input: &mut &[u8]) -> Result<(), String> {
        while !input.is_empty() {
            match self.at {
                At::Magic => {
                    if self.scratch.gather(MAGIC, input) {
                        self.magic()?;
                    }
                }
                At::Opcode => self.opcode(scratch::byte(input))?,
                At::Number => {
                    if let Some(number) = self.scratch.number(input)? {
                        self.take_number(number);
                        self.advance();
                    }
                }
                At::Count(items) => {
                    if let Some(rounds) = self.scratch.number(input)? {
                        self.visitor.number(rounds);
                        self.push(items, rounds);
                        self.advance();
                    }
                }
                At::Module => {
                    if let Some(opcode) = self.scratch.number(input)? {
                        self.visitor.number(opcode);
                        self.module(opcode)?;
                    }
                }
                At::Text => self.text(input)?,
                At::Compressed => {
                    if let Some(length) = self.scratch.number(input)? {
                        self.at = At::Expanded(length);
                    }
                }
                At::Expanded(length) => {
                    if self.scratch.number(input)?.is_some() {
                        self.begin_text(true, length);
                    }
                }
                At::Payload(left) => self.payload(left, input),
                At::Fixed(left) => {
                    let left = left - self.pass(left, input).len() as u64;
                    self.at = At::Fixed(left);
                    if left == 0 {
                        self.advance();
                    }
                }
                At::Integer(size) => {
                    if self.scratch.gather(size, input) {
                        self.integer(size);
                    }
                }
                At::Score => self.score(scratch::byte(input)),
                At::Checksum => {
                    if self.scratch.gather(8, input) {
                        self.at = At::End;
                    }
                }
                At::End => return Err("bytes follow its end".to_owned()),
            }
        }
        Ok(())
    }

    fn magic(&mut self) -> Result<(), String> {
        let Some(version) = Version::of_magic(&self.scratch.bytes) else {
            return Err("it does not begin with REDIS or VALKEY and a version".to_owned());
        };
        if version < Version(5) {
            return Err(format!("version {} has no checksum", version.0));
        }
        self.version = Some(version);
        self.at = At::Opcode;
        Ok(())
    }

    fn opcode(&mut self, opcode: u8) -> Result<(), String> {
        (self.numbers, self.texts) = (0, 0);
        if opcode == op::EOF {
            self.at = At::Checksum;
            return Ok(());
        }
        if let Some(items) = grammar::of_opcode(opcode) {
            self.entry = Entry::Other(opcode);
            if matches!(opcode, op::EXPIRETIME | op::EXPIRETIME_MS) {
                self.expires = true;
            }
            self.visitor.entry(self.entry);
            self.push(items, 1);
        } else {
            let version = self.version.unwrap_or(Version(0));
            let Some(items) = grammar::of_value(opcode, version) else {
                return Err(match opcode {
                    op::SLOT_IMPORT if version.is_valkey() => {
                        "a slot was moving into this node: wait until it has moved".to_owned()
                    }
                    _ => format!("{opcode} is no type or opcode of its version"),
                });
            };
            let (kind, database) = (opcode, self.database);
            let known = &self.content.keys;
            if known.len() >= MAX_DATABASES && !known.contains_key(&database) {
                return Err(format!("more than {MAX_DATABASES} databases"));
            }
            self.entry = Entry::Key { kind, database };
            self.content.expires += u64::from(std::mem::take(&mut self.expires));
            self.visitor.entry(self.entry);
            self.push(items, 1);
            self.push(grammar::KEY, 1);
        }
        self.advance();
        Ok(())
    }

    fn push(&mut self, items: &'static [Item], rounds: u64) {
        if rounds > 0 {
            self.frames.push(Frame {
                items,
                next: 0,
                rounds,
            });
        }
    }

    /// Goes on to what follows.
    fn advance(&mut self) {
        while let Some(frame) = self.frames.last_mut() {
            let Some(item) = frame.items.get(frame.next) else {
                frame.rounds -= 1;
                frame.next = 0;
                if frame.rounds == 0 {
                    self.frames.pop();
                }
                continue;
            };
            frame.next += 1;
            self.at = match *item {
                Item::Number => At::Number,
                Item::Text => At::Text,
                Item::Bytes(count) => At::Fixed(count.into()),
                Item::Score => At::Score,
                Item::Each(items) => At::Count(items),
                Item::Module => At::Module,
            };
            return;
        }
        self.visitor.entry_ends();
        self.at = At::Opcode;
    }

    fn take_number(&mut self, number: u64) {
        self.visitor.number(number);
        let first = self.numbers == 0;
        self.numbers = self.numbers.saturating_add(1);
        match self.entry {
            Entry::Other(op::SELECTDB) => self.database = number,
            Entry::Other(op::MODULE_AUX) | Entry::Key { kind: 7, .. } if first => {
                let name = module_name(number);
                let known = &mut self.content.modules;
                if !known.contains(&name) && known.len() < MAX_MODULES {
                    known.push(name);
                }
            }
            _ => {}
        }
    }

    fn module(&mut self, opcode: u64) -> Result<(), String> {
        if opcode > 0 {
            let Some(items) = grammar::of_module(opcode) else {
                return Err(format!("{opcode} is no opcode of a module"));
            };
            // The same item once more, after what this opcode announces.
            if let Some(frame) = self.frames.last_mut() {
                frame.next -= 1;
            }
            self.push(items, 1);
        }
        self.advance();
        Ok(())
    }

    fn text(&mut self, input: &mut &[u8]) -> Result<(), String> {
        match self.scratch.length(input)? {
            None => {}
            Some(Length::Plain(length)) => self.begin_text(false, length),
            Some(Length::Special(encoding @ 0..=2)) => {
                self.visitor.text(false);
                self.at = At::Integer(1 << encoding);
            }
            Some(Length::Special(3)) => self.at = At::Compressed,
            Some(Length::Special(other)) => {
                return Err(format!("{other} is no encoding of a text"));
            }
        }
        Ok(())
    }

    fn begin_text(&mut self, compressed: bool, length: u64) {
        self.visitor.text(compressed);
        if let Some(noted) = self.noted() {
            noted.clear();
        }
        match length {
            0 => self.end_text(),
            _ => self.at = At::Payload(length),
        }
    }

    /// Where the beginning of the text that comes now is kept.
    fn noted(&mut self) -> Option<&mut Vec<u8>> {
        match self.entry {
            Entry::Other(op::AUX) => self.noted.get_mut(self.texts as usize),
            _ => None,
        }
    }

    fn payload(&mut self, left: u64, input: &mut &[u8]) {
        let taken = self.pass(left, input);
        if let Some(noted) = self.noted() {
            let room = NOTED - noted.len().min(NOTED);
            noted.extend_from_slice(&taken[..room.min(taken.len())]);
        }
        let left = left - taken.len() as u64;
        self.at = At::Payload(left);
        if left == 0 {
            self.end_text();
        }
    }

    /// Passes over at most so many bytes.
    fn pass<'a>(&mut self, most: u64, input: &mut &'a [u8]) -> &'a [u8] {
        let n = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
        let (taken, rest) = input.split_at(n);
        *input = rest;
        self.visitor.bytes(taken);
        taken
    }

    /// Little-endian, of one, two or four bytes, with a sign.
    fn integer(&mut self, size: usize) {
        let bytes = &self.scratch.bytes;
        let number = match size {
            1 => i8::from_le_bytes([bytes[0]]).into(),
            2 => i16::from_le_bytes([bytes[0], bytes[1]]).into(),
            _ => i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        };
        let text = number.to_string();
        self.visitor.bytes(text.as_bytes());
        if let Some(noted) = self.noted() {
            *noted = text.into_bytes();
        }
        self.end_text();
    }

    fn score(&mut self, length: u8) {
        match length {
            // Minus infinity, infinity, not a number.
            253..=255 => {
                self.visitor.number(length.into());
                self.advance();
            }
            length => self.begin_text(false, length.into()),
        }
    }

    fn end_text(&mut self) {
        self.visitor.text_ends();
        let index = self.texts;
        self.texts = self.texts.saturating_add(1);
        match (self.entry, index) {
            (Entry::Key { database, .. }, 0) => {
                *self.content.keys.entry(database).or_default() += 1;
            }
            (Entry::Other(op::FUNCTION2), _) => self.content.functions += 1,
            (Entry::Other(op::AUX), 1) => self.note_aux(),
            _ => {}
        }
        self.advance();
    }

    fn note_aux(&mut self) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let [name, value] = &self.noted;
        if let Some(name) = AUX.into_iter().find(|known| known.as_bytes() == name) {
            let aux: &mut BTreeMap<_, _> = &mut self.content.aux;
            aux.insert(name.to_owned(), text(value));
        }
    }
}

/// Nine letters of six bits each, ahead of ten bits of a version (`moduleTypeNameByID`).
fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |index: u32| char::from(LETTERS[(id >> (58 - 6 * index) & 63) as usize]);
    (0..9).map(letter).collect()
}
