//! Frames of an event stream (WHATWG HTML §9.2: lines end in LF, CR or CRLF; an empty line ends a frame), however the reads cut them.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// An unfinished frame longer than this is not kept, so that an engine cannot fill the memory.
pub(crate) const CARRY_MAX: usize = 1 << 20;

/// Where in a line the last chunk ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    /// Length of the line at the end of what was scanned so far.
    line: usize,
    after_cr: bool,
}

impl Lines {
    /// Position after the empty line that ends the frame; `None` when the chunk ends first. Keeps its position between chunks.
    pub fn frame_end(&mut self, chunk: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            if self.after_cr {
                let &byte = chunk.get(at)?;
                self.after_cr = false;
                if byte == b'\n' {
                    at += 1;
                    continue;
                }
            }
            let Some(stop) = memchr2(b'\n', b'\r', chunk.get(at..)?) else {
                self.line += chunk.len() - at;
                return None;
            };
            let empty = self.line + stop == 0;
            self.line = 0;
            at += stop + 1;
            let cr = chunk[at - 1] == b'\r';
            self.after_cr = cr;
            if empty {
                if cr && chunk.get(at) == Some(&b'\n') {
                    self.after_cr = false;
                    at += 1;
                }
                return Some(at);
            }
        }
    }
}

/// The fields of a frame. Of several data lines, only the first: engines write one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub event: Option<&'a [u8]>,
    pub data: Option<&'a [u8]>,
}

impl<'a> Frame<'a> {
    pub fn parse(text: &'a [u8]) -> Self {
        let mut frame = Self::default();
        let mut rest = text;
        loop {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            if let Some(data) = line.strip_prefix(b"data:") {
                frame.data = Some(data.strip_prefix(b" ").unwrap_or(data));
                // Fields may come in any order, but no engine writes `event` after `data`.
                return frame;
            }
            if let Some(event) = line.strip_prefix(b"event:") {
                frame.event = Some(event.strip_prefix(b" ").unwrap_or(event));
            }
            let Some(more) = rest.get(end + 1..) else {
                return frame;
            };
            rest = more;
        }
    }
}

/// An unfinished frame grew beyond what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlong;

/// Splits a stream into whole frames, for a reader that forwards none of the original bytes.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    lines: Lines,
    carry: BytesMut,
}

impl Framer {
    pub fn feed<E: From<Overlong>>(&mut self, chunk: &Bytes, mut each: impl FnMut(&Frame<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut begin = 0;
        while let Some(end) = self.lines.frame_end(chunk, begin) {
            if self.carry.is_empty() {
                each(&Frame::parse(&chunk[begin..end]))?;
            } else {
                self.carry.extend_from_slice(&chunk[begin..end]);
                let whole = self.carry.split();
                each(&Frame::parse(&whole))?;
            }
            begin = end;
        }
        if self.carry.len() + chunk.len() - begin > CARRY_MAX {
            return Err(Overlong.into());
        }
        self.carry.extend_from_slice(&chunk[begin..]);
        Ok(())
    }

    /// The last frame, if the stream ended without an empty line after it.
    pub fn rest(&mut self) -> BytesMut {
        self.carry.split()
    }
}
