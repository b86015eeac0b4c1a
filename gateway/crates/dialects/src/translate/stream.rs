//! Translates a stream frame by frame. Only an unfinished frame is kept.

use super::chunks_to_events::ToEvents;
use super::direction::Direction;
use super::error::MalformedAnswer;
use super::events_to_chunks::ToChunks;
use crate::frames::{Frame, Framer};
use crate::observe::{Notes, StreamProgress};
use bytes::Bytes;

#[derive(Debug)]
pub struct Translator {
    framer: Framer,
    /// Usage and end of the endpoint's stream in its own dialect: this is what is billed.
    notes: Notes,
    turning: Turning,
}

#[derive(Debug)]
enum Turning {
    ToChunks(ToChunks),
    ToEvents(ToEvents),
}

impl Translator {
    /// `include_usage`: the caller requested a usage chunk. `created` in seconds, for OpenAI's field.
    #[must_use]
    pub fn new(direction: Direction, include_usage: bool, created: u64) -> Self {
        let turning = match direction {
            Direction::ChatToMessages => Turning::ToChunks(ToChunks::new(include_usage, created)),
            Direction::MessagesToChat => Turning::ToEvents(ToEvents::default()),
        };
        Self { framer: Framer::default(), notes: Notes::of(direction.endpoint_format()), turning }
    }

    #[must_use]
    pub fn progress(&self) -> &StreamProgress {
        &self.notes.progress
    }

    /// The caller's frames for the bytes that arrived; may be empty.
    ///
    /// # Errors
    /// When the stream does not follow the endpoint's dialect. Frames of this chunk are lost: the stream cannot go on.
    pub fn translate(&mut self, chunk: &Bytes) -> Result<Bytes, MalformedAnswer> {
        let mut out = Vec::new();
        let (notes, turning) = (&mut self.notes, &mut self.turning);
        self.framer.feed(chunk, |frame| turn(notes, turning, frame, &mut out))?;
        Ok(out.into())
    }

    /// At the stream's end: a last frame without its empty line, and the closing frames if the endpoint's stream was complete.
    ///
    /// # Errors
    /// As [`Self::translate`].
    pub fn finish(&mut self) -> Result<Bytes, MalformedAnswer> {
        let mut out = Vec::new();
        let rest = self.framer.rest();
        if !rest.is_empty() {
            turn(&mut self.notes, &mut self.turning, &Frame::parse(&rest), &mut out)?;
        }
        if self.notes.progress.is_whole() && !self.notes.progress.done {
            match &mut self.turning {
                Turning::ToEvents(events) => events.end(&mut out),
                Turning::ToChunks(_) => {}
            }
        }
        Ok(out.into())
    }
}

fn turn(notes: &mut Notes, turning: &mut Turning, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), MalformedAnswer> {
    notes.note(frame);
    let Some(data) = frame.data else {
        return Ok(());
    };
    let data = std::str::from_utf8(data).map_err(|_| MalformedAnswer("a frame of the stream is not valid UTF-8"))?;
    match turning {
        Turning::ToChunks(chunks) => chunks.event(data, &notes.progress, out),
        Turning::ToEvents(events) => events.chunk(data, &notes.progress, out),
    }
}
