//! The observer of an event stream (WHATWG HTML §9.2: lines end in LF, CR or CRLF; an empty line ends a frame).
//!
//! Frames pass untouched. What arrives split over reads is carried over. When the usage frame was asked for by us and not by the caller, it
//! is taken out; only then is an unfinished frame held back until its end is seen.

use super::usage::{Usage, find_usage};
use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memmem};

/// An unfinished frame longer than this is passed on and no longer looked at: memory is not for engines to fill.
const CARRY_MAX: usize = 1 << 20;

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub usage: Option<Usage>,
    /// Frames with output, for an estimate when the stream breaks off.
    pub output_frames: u64,
    pub done: bool,
    pub error: bool,
}

#[derive(Debug, Default)]
pub struct Observer {
    seen: Seen,
    take_usage_out: bool,
    carry: BytesMut,
    /// Length of the line at the end of what was scanned so far.
    line: usize,
    after_cr: bool,
    /// Inside a frame that outgrew the carry.
    blind: bool,
}

impl Observer {
    #[must_use]
    pub fn new(take_usage_out: bool) -> Self {
        Self { take_usage_out, ..Self::default() }
    }

    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Looks at what arrived and gives to `pass`, in order, what the caller is to get now.
    pub fn observe(&mut self, chunk: Bytes, mut pass: impl FnMut(Bytes)) {
        let mut begin = 0; // of the frame being scanned
        let mut sent = 0; // everything before was passed or taken out
        while let Some(end) = self.frame_end(&chunk, begin.max(sent)) {
            let whole = !self.carry.is_empty();
            if whole {
                self.carry.extend_from_slice(&chunk[begin..end]);
            }
            let out = self.judge(if whole { None } else { Some(&chunk[begin..end]) });
            if self.take_usage_out && (whole || out) {
                if begin > sent {
                    pass(chunk.slice(sent..begin));
                }
                let carried = self.carry.split().freeze();
                if !out && !carried.is_empty() {
                    pass(carried);
                }
                sent = end;
            }
            self.carry.clear();
            begin = end;
        }
        self.keep(&chunk, begin, sent, pass);
    }

    /// What is held back when the stream ends.
    pub fn finish(&mut self) -> Option<Bytes> {
        let held = self.carry.split().freeze();
        if held.is_empty() {
            return None;
        }
        self.note(&held);
        self.take_usage_out.then_some(held)
    }

    fn keep(&mut self, chunk: &Bytes, begin: usize, sent: usize, mut pass: impl FnMut(Bytes)) {
        let tail = &chunk[begin..];
        let hold = if self.blind || self.carry.len() + tail.len() > CARRY_MAX {
            self.blind = true;
            if self.take_usage_out && !self.carry.is_empty() {
                pass(self.carry.split().freeze());
            }
            self.carry.clear();
            false
        } else {
            self.carry.extend_from_slice(tail);
            self.take_usage_out
        };
        let upto = if hold { begin } else { chunk.len() };
        if upto > sent {
            pass(chunk.slice(sent..upto));
        }
    }

    /// Position after the empty line that ends the frame; `None` when the chunk ends first. Keeps its place between chunks.
    fn frame_end(&mut self, chunk: &[u8], from: usize) -> Option<usize> {
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

    /// Notes what a whole frame says (`None` = the carried one). True when it is the usage frame that only we asked for.
    fn judge(&mut self, frame: Option<&[u8]>) -> bool {
        if std::mem::take(&mut self.blind) {
            return false;
        }
        let carried = std::mem::take(&mut self.carry);
        let out = self.note(frame.unwrap_or(&carried));
        self.carry = carried;
        out && self.take_usage_out
    }

    fn note(&mut self, frame: &[u8]) -> bool {
        let Some(data) = data_of(frame) else {
            return false;
        };
        if data.starts_with(b"[DONE]") {
            self.seen.done = true;
            return false;
        }
        let usage = memmem::find(data, br#""usage""#).and_then(|_| find_usage(data));
        self.seen.usage = usage.or(self.seen.usage);
        let empty = usage.is_some() && has_no_choices(data);
        self.seen.error |= data.starts_with(br#"{"error""#);
        self.seen.output_frames += u64::from(!empty && !data.is_empty());
        empty
    }
}

/// The data of a frame's first data line; engines write one.
fn data_of(frame: &[u8]) -> Option<&[u8]> {
    let mut rest = frame;
    loop {
        let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        if let Some(data) = rest[..end].strip_prefix(b"data:") {
            return Some(data.strip_prefix(b" ").unwrap_or(data));
        }
        rest = rest.get(end + 1..)?;
    }
}

/// `"choices":[]`, white space allowed: the frame holds nothing but usage.
fn has_no_choices(data: &[u8]) -> bool {
    memmem::find_iter(data, br#""choices""#).any(|at| {
        let after = data[at + 9..].trim_ascii_start();
        let list = after.strip_prefix(b":").map(<[u8]>::trim_ascii_start).and_then(|list| list.strip_prefix(b"["));
        list.is_some_and(|list| list.trim_ascii_start().starts_with(b"]"))
    })
}
