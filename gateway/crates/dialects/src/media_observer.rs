//! Observes answers of the speech and image routes: their usage, and how many images they hold.
//!
//! They differ in how they count (tokens by another name, seconds, nothing) and can be large. So they are not kept whole: only the first and
//! the last bytes, and a few marks in between.

use crate::usage::{Usage, find_usage};
use bytes::{Buf, BytesMut};
use memchr::memmem;

/// Bytes kept of the beginning and of the end; usage is in one of them.
const EDGE: usize = 16 << 10;
/// A mark, `"type":"image_generation.completed"` with some white space, is not longer.
const MARK: usize = 96;

/// Observes an answer as it passes.
#[derive(Debug, Default)]
pub struct MediaObserver {
    /// A stream of events, not one JSON text.
    events: bool,
    head: BytesMut,
    tail: BytesMut,
    /// The end of what passed, for marks that are split over reads.
    edge: Vec<u8>,
    urls: u32,
    encoded: u32,
    /// `[DONE]`, or an event whose type ends in `.done` or `.completed`.
    done: bool,
    image: bool,
    error: bool,
}

impl MediaObserver {
    #[must_use]
    pub fn new(events: bool) -> Self {
        Self { events, ..Self::default() }
    }

    pub fn observe(&mut self, chunk: &[u8]) {
        let room = EDGE - self.head.len().min(EDGE);
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.tail.extend_from_slice(&chunk[chunk.len().saturating_sub(EDGE)..]);
        if self.tail.len() > 2 * EDGE {
            self.tail.advance(self.tail.len() - EDGE);
        }
        let edge = std::mem::take(&mut self.edge);
        let seam = [&edge[..], &chunk[..chunk.len().min(MARK)]].concat();
        if self.events {
            self.marks(&seam);
            self.marks(chunk);
        } else {
            let across = |mark: &[u8]| memmem::find_iter(&seam, mark).filter(|at| *at < edge.len() && at + mark.len() > edge.len()).count();
            let count = |mark: &[u8]| u32::try_from(across(mark) + memmem::find_iter(chunk, mark).count()).unwrap_or(u32::MAX);
            self.urls = self.urls.saturating_add(count(br#""url""#));
            self.encoded = self.encoded.saturating_add(count(br#""b64_json""#));
        }
        self.edge = if chunk.len() >= MARK { chunk[chunk.len() - MARK..].to_vec() } else { seam[seam.len().saturating_sub(MARK)..].to_vec() };
    }

    fn marks(&mut self, text: &[u8]) {
        self.done |= memmem::find(text, b"data: [DONE]").or_else(|| memmem::find(text, b"data:[DONE]")).is_some();
        for at in memmem::find_iter(text, br#""type""#) {
            let Some(name) = string_after(&text[at + 6..]) else {
                continue;
            };
            let ended = name.ends_with(b".done") || name.ends_with(b".completed");
            self.done |= ended;
            self.image |= ended && name.starts_with(b"image");
            self.error |= name == b"error";
        }
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    #[must_use]
    pub fn has_error(&self) -> bool {
        self.error
    }

    /// The usage that the answer reports. With `images` (the answer holds images) its images are counted.
    #[must_use]
    pub fn usage(&self, images: bool) -> Option<Usage> {
        let reported = find_usage(&self.tail).or_else(|| find_usage(&self.head));
        let images = match (images, self.events) {
            (false, _) => 0,
            (true, true) => u32::from(self.image),
            (true, false) => self.urls.max(self.encoded),
        };
        match (reported, images) {
            (None, 0) => None,
            (reported, images) => Some(Usage { images, ..reported.unwrap_or_default() }),
        }
    }
}

/// The string in `: "name"` after a key.
fn string_after(text: &[u8]) -> Option<&[u8]> {
    let value = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    value.get(..memchr::memchr(b'"', value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(events: bool, text: &[u8], size: usize) -> MediaObserver {
        let mut watch = MediaObserver::new(events);
        text.chunks(size).for_each(|chunk| watch.observe(chunk));
        watch
    }

    #[test]
    fn images_are_counted_however_the_answer_is_split() {
        let image = format!(r#"{{"b64_json":"{}","revised_prompt":"a \"url\" and a \"b64_json\""}}"#, "A".repeat(40_000));
        let text = format!(r#"{{"created":1,"data":[{image},{image},{image}],"usage":{{"input_tokens":5,"output_tokens":7}}}}"#);
        for size in [1, 7, 10, 100, 8192, text.len()] {
            let usage = watched(false, text.as_bytes(), size).usage(true).unwrap();
            assert_eq!((usage.images, usage.input, usage.output), (3, 5, 7), "in pieces of {size}");
        }
        assert_eq!(watched(false, br#"{"data":[{"url":"http://x"},{"url":"http://y"}]}"#, 9).usage(true).unwrap().images, 2);
        assert_eq!(watched(false, br#"{"data":[]}"#, 9).usage(true), None);
    }

    #[test]
    fn a_stream_is_done_when_it_says_so_itself() {
        let done = b"event: x\ndata: {\"type\": \"transcript.text.done\",\"text\":\"hi\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}\n\n";
        for size in [1, 5, 50, 500] {
            let watch = watched(true, done, size);
            assert!(watch.is_done() && !watch.has_error(), "in pieces of {size}");
            assert_eq!(watch.usage(false).map(|usage| (usage.input, usage.output)), Some((3, 4)));
        }
        assert!(!watched(true, b"data: {\"type\":\"transcript.text.delta\",\"delta\":\"well.done\"}\n\n", 500).is_done());
        assert!(watched(true, b"data: [DONE]\n\n", 3).is_done());
        assert!(watched(true, b"data: {\"type\":\"error\"}\n\n", 500).has_error());
        let image = watched(true, b"data: {\"type\":\"image_generation.completed\",\"b64_json\":\"AA\"}\n\n", 500);
        assert_eq!(image.usage(true).map(|usage| usage.images), Some(1));
    }
}
