//! gRPC's messages in a body of HTTP/2: a byte that says whether it is compressed, four of length, the message.

use bytes::{Buf, Bytes, BytesMut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// No compression was agreed on, and the scan could not read it.
    Compressed,
    TooLarge,
}

/// Puts messages together from pieces.
#[derive(Debug, Default)]
pub struct Framer {
    held: BytesMut,
}

impl Framer {
    pub fn push(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// The next whole message.
    pub fn next(&mut self, max: usize) -> Result<Option<Bytes>, Broken> {
        let Some(head) = self.held.first_chunk::<5>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).unwrap_or(usize::MAX);
        if head[0] != 0 {
            return Err(Broken::Compressed);
        }
        if length > max {
            return Err(Broken::TooLarge);
        }
        if self.held.len() < 5 + length {
            return Ok(None);
        }
        self.held.advance(5);
        Ok(Some(self.held.split_to(length).freeze()))
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// As [`Framer`], for observing: messages longer than `max` are skipped, and nothing is refused.
#[derive(Debug, Default)]
pub struct MessageObserver {
    framer: Framer,
    skip: usize,
}

impl MessageObserver {
    pub fn observe(&mut self, mut piece: &[u8], max: usize, mut each: impl FnMut(&[u8])) {
        let skipped = self.skip.min(piece.len());
        self.skip -= skipped;
        piece = &piece[skipped..];
        self.framer.push(piece);
        loop {
            match self.framer.next(max) {
                Ok(Some(message)) => each(&message),
                Ok(None) => return,
                Err(_) => {
                    let head = self.framer.held.first_chunk::<5>().copied().unwrap_or_default();
                    let whole = 5 + usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).unwrap_or(0);
                    let here = whole.min(self.framer.held.len());
                    self.framer.held.advance(here);
                    self.skip = whole - here;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_however_they_are_split() {
        let wire = [&b"\0\0\0\0\x03abc"[..], b"\0\0\0\0\0", b"\0\0\0\0\x02de"].concat();
        for size in 1..wire.len() {
            let (mut framer, mut seen, mut observed) = (Framer::default(), Vec::new(), Vec::new());
            let mut observer = MessageObserver::default();
            for piece in wire.chunks(size) {
                framer.push(piece);
                while let Some(message) = framer.next(3).unwrap() {
                    seen.push(message.to_vec());
                }
                observer.observe(piece, 2, |message| observed.push(message.to_vec()));
            }
            assert_eq!(seen, [&b"abc"[..], b"", b"de"]);
            assert_eq!(observed, [&b""[..], b"de"], "a message that is too long is skipped, in pieces of {size}");
            assert!(framer.is_empty());
        }
        let mut framer = Framer::default();
        framer.push(b"\x01\0\0\0\x01a");
        assert_eq!(framer.next(9), Err(Broken::Compressed));
    }
}
