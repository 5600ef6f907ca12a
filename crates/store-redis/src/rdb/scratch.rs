use super::MAGIC;

/// Collects the few bytes of a number, over as many pieces as they come in.
#[derive(Clone, Default)]
pub(crate) struct Scratch {
    pub(crate) bytes: [u8; MAGIC],
    gathered: usize,
}

/// What stands ahead of a text.
pub(crate) enum Length {
    Plain(u64),
    /// No length: how the text is encoded.
    Special(u8),
}

impl Scratch {
    /// Takes bytes until there are `size`; whether there are.
    pub(crate) fn gather(&mut self, size: usize, input: &mut &[u8]) -> bool {
        let n = (size - self.gathered).min(input.len());
        let (taken, rest) = input.split_at(n);
        self.bytes[self.gathered..self.gathered + n].copy_from_slice(taken);
        *input = rest;
        self.gathered += n;
        let complete = self.gathered == size;
        if complete {
            self.gathered = 0;
        }
        complete
    }

    pub(crate) fn number(&mut self, input: &mut &[u8]) -> Result<Option<u64>, String> {
        match self.length(input)? {
            Some(Length::Special(_)) => Err("a number is missing".to_owned()),
            Some(Length::Plain(number)) => Ok(Some(number)),
            None => Ok(None),
        }
    }

    /// One, two, five or nine bytes, the highest first (`rdbLoadLenByRef`). `None`: more is needed.
    pub(crate) fn length(&mut self, input: &mut &[u8]) -> Result<Option<Length>, String> {
        if self.gathered == 0 {
            let Some(first) = input.first().copied() else {
                return Ok(None);
            };
            let low = first & 0x3f;
            match first >> 6 {
                0 => {
                    byte(input);
                    return Ok(Some(Length::Plain(low.into())));
                }
                3 => {
                    byte(input);
                    return Ok(Some(Length::Special(low)));
                }
                2 if low > 1 => return Err(format!("{first:#x} begins no number")),
                _ => self.bytes[0] = first,
            }
        }
        let size = match self.bytes[0] {
            0x80 => 5,
            0x81 => 9,
            _ => 2,
        };
        if !self.gather(size, input) {
            return Ok(None);
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, b| sum << 8 | u64::from(*b));
        Ok(Some(Length::Plain(match size {
            2 => number(&self.bytes[..2]) & 0x3fff,
            _ => number(&self.bytes[1..size]),
        })))
    }
}

/// The next byte, of an input that is not empty.
pub(crate) fn byte(input: &mut &[u8]) -> u8 {
    match input.split_first() {
        Some((first, rest)) => {
            *input = rest;
            *first
        }
        None => 0,
    }
}
