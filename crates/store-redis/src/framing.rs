use bytes::BytesMut;
use memchr::memmem::Finder;

/// How a server says where a snapshot ends (`syncReadBulk` of `redis-cli.c`).
#[derive(Debug)]
pub(crate) enum Framing {
    /// `$LENGTH`: so many bytes are still to come.
    Length(u64),
    /// `$EOF:MARKER`: until the same 40 random bytes come. Line ends may follow them
    /// (redis/redis#11261), so they are looked for everywhere.
    Marker(Box<Finder<'static>>),
}

const MARKER: usize = 40;

impl Framing {
    /// Of the line ahead of a snapshot; `None`: it is no such line.
    pub(crate) fn of_line(line: &[u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"$")?;
        if let Some(marker) = rest.strip_prefix(b"EOF:") {
            let finder = || Self::Marker(Box::new(Finder::new(marker).into_owned()));
            return (marker.len() == MARKER).then(finder);
        }
        let digits = std::str::from_utf8(rest).ok()?;
        digits.parse().ok().map(Self::Length)
    }

    /// Takes what surely belongs to the snapshot out of what was read.
    pub(crate) fn take(&mut self, read: &mut BytesMut) -> BytesMut {
        match self {
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= n as u64;
                read.split_to(n)
            }
            Self::Marker(finder) => match finder.find(read) {
                Some(at) => {
                    let taken = read.split_to(at);
                    *self = Self::Length(0);
                    taken
                }
                // The end of it may be the beginning of the marker.
                None => read.split_to(read.len().saturating_sub(MARKER - 1)),
            },
        }
    }

    /// Whether all of it was taken.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &[u8] = b"0123456789abcdefghijABCDEFGHIJ0123456789";

    fn read(mut framing: Framing, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut buffer, mut taken) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            if !framing.is_over() {
                taken.extend_from_slice(&framing.take(&mut buffer));
            }
        }
        (taken, framing.is_over())
    }

    fn marker() -> Framing {
        Framing::of_line(&[b"$EOF:", MARK].concat()).unwrap()
    }

    #[test]
    fn a_marker_is_found_wherever_it_is_cut_and_whatever_follows() {
        for tail in ["", "\n", "\n\n\r\n"] {
            let bytes = [&b"REDIS0123456789"[..], MARK, tail.as_bytes()].concat();
            for at in 0..=bytes.len() {
                let (a, b) = bytes.split_at(at);
                assert_eq!(read(marker(), &[a, b]), (b"REDIS0123456789".to_vec(), true));
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(marker(), &single), (b"REDIS0123456789".to_vec(), true));
        }
    }

    #[test]
    fn without_its_marker_it_is_not_over() {
        let cut = &MARK[..39];
        assert_eq!(read(marker(), &[b"REDIS", cut]), (b"REDIS".to_vec(), false));
    }

    #[test]
    fn a_length_is_counted_down() {
        let five = || Framing::of_line(b"$5").unwrap();
        assert_eq!(read(five(), &[b"RE", b"DISx"]), (b"REDIS".to_vec(), true));
        assert_eq!(read(five(), &[b"RE"]), (b"RE".to_vec(), false));
        for bad in ["", "5", "$", "$-1", "$EOF:short", "$5x", "-ERR"] {
            assert!(Framing::of_line(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
