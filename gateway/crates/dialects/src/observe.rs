//! Observes an event stream: frames pass unchanged while usage and the end are noted.
//!
//! A usage frame that we requested and the caller did not is taken out. Only then is an unfinished frame held back until its end
//! arrives.

use crate::frames::{CARRY_MAX, Frame, Lines};
use crate::request_format::RequestFormat;
use crate::usage::{AnthropicWire, Usage, find_usage, member, openai_usage};
use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde::Deserialize;

/// What the stream has shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamProgress {
    /// The engine's numbers: final ones where `is_final`, else the latest.
    pub usage: Option<Usage>,
    /// The numbers cover the whole answer.
    pub is_final: bool,
    /// The output numbers were current when they came: the engine reports them with every frame (`continuous_usage_stats`).
    pub is_running: bool,
    /// Frames with output, for an estimate when the stream breaks off.
    pub output_frames: u64,
    /// Bytes of output text, where frames hold several tokens each.
    pub output_bytes: u64,
    /// The dialect's own end marker has come.
    pub done: bool,
    /// OpenAI's usage frame, the one without choices, has come: every choice has finished.
    pub choices_finished: bool,
    pub error: bool,
}

/// Where a settlement's numbers come from, as in the contract's `UsageSource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Engine,
    /// The engine's running numbers at the point where the stream ended.
    Continuous,
    /// Counted from the bytes that passed; the input is the engine's own where it reported one.
    Estimated,
    None,
}

impl StreamProgress {
    /// Whether the answer is known to be complete. `[DONE]`, `message_stop` and `response.completed` prove it. So does OpenAI's usage frame (the
    /// one without choices): engines send it after every choice has finished, and some forget `[DONE]`. A `finish_reason` alone does not: other
    /// choices and the numbers may still be to come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.done || (self.choices_finished && !self.error)
    }

    /// What to bill. A complete answer without numbers is not estimated; one that ended with an error is not complete.
    #[must_use]
    pub fn measured(&self) -> (Usage, Source) {
        match self.usage {
            Some(usage) if self.is_final || self.done => (usage, Source::Engine),
            Some(usage) if self.is_running => (usage, Source::Continuous),
            reported if (!self.done || self.error) && (reported.is_some() || self.output_frames > 0) => {
                let reported = reported.unwrap_or_default();
                let counted = self.output_frames.max(self.output_bytes / 4);
                (Usage { output: reported.output.max(counted), ..reported }, Source::Estimated)
            }
            _ => (Usage::default(), Source::None),
        }
    }
}

/// How to read a stream's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamFormat {
    #[default]
    Chunks,
    Responses,
    Messages,
}

#[derive(Debug, Default)]
pub(crate) struct Notes {
    format: StreamFormat,
    pub progress: StreamProgress,
    anthropic: AnthropicWire,
}

#[derive(Debug, Default)]
pub struct Observer {
    notes: Notes,
    take_usage_out: bool,
    carry: BytesMut,
    lines: Lines,
    /// Inside a frame that outgrew the carry.
    blind: bool,
}

impl Observer {
    /// Of chat completions and completions.
    #[must_use]
    pub fn new(take_usage_out: bool) -> Self {
        Self { take_usage_out, ..Self::default() }
    }

    #[must_use]
    pub fn of(format: RequestFormat, take_usage_out: bool) -> Self {
        Self { notes: Notes::of(format), take_usage_out, ..Self::default() }
    }

    #[must_use]
    pub fn progress(&self) -> &StreamProgress {
        &self.notes.progress
    }

    /// Reads what arrived and passes on, in order, what the caller gets now.
    pub fn observe(&mut self, chunk: Bytes, mut pass: impl FnMut(Bytes)) {
        let mut begin = 0; // of the frame being scanned
        let mut sent = 0; // everything before was passed or taken out
        while let Some(end) = self.lines.frame_end(&chunk, begin.max(sent)) {
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

    /// The bytes held back when the stream ends.
    pub fn finish(&mut self) -> Option<Bytes> {
        let held = self.carry.split().freeze();
        if held.is_empty() {
            return None;
        }
        self.notes.note(&Frame::parse(&held));
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

    /// Notes a whole frame (`None` = the carried one). True when it is the usage frame that only we requested.
    fn judge(&mut self, frame: Option<&[u8]>) -> bool {
        if std::mem::take(&mut self.blind) {
            return false;
        }
        let out = self.notes.note(&Frame::parse(frame.unwrap_or(&self.carry)));
        out && self.take_usage_out
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageEvent<'a> {
    #[serde(rename = "type", borrow)]
    event_type: Option<&'a str>,
    message: Option<MessageStart>,
    usage: Option<AnthropicWire>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageStart {
    usage: Option<AnthropicWire>,
}

impl Notes {
    pub fn of(format: RequestFormat) -> Self {
        let format = match format {
            RequestFormat::Message => StreamFormat::Messages,
            RequestFormat::Response => StreamFormat::Responses,
            _ => StreamFormat::Chunks,
        };
        Self { format, ..Self::default() }
    }

    /// True when the frame holds usage and nothing else.
    pub fn note(&mut self, frame: &Frame<'_>) -> bool {
        let Some(data) = frame.data else {
            return false;
        };
        match self.format {
            StreamFormat::Chunks => self.note_chunk(data),
            StreamFormat::Messages => {
                self.note_message_event(frame.event, data);
                false
            }
            StreamFormat::Responses => {
                self.note_response_event(frame.event, data);
                false
            }
        }
    }

    fn note_chunk(&mut self, data: &[u8]) -> bool {
        if data.starts_with(b"[DONE]") {
            self.progress.done = true;
            return false;
        }
        let usage = memmem::find(data, br#""usage""#).and_then(|_| find_usage(data));
        let empty = usage.is_some() && has_no_choices(data);
        if usage.is_some() {
            self.progress.usage = usage;
            self.progress.is_final = empty;
            self.progress.is_running = !empty;
            self.progress.choices_finished |= empty;
        }
        let error = data.starts_with(br#"{"error""#);
        self.progress.error |= error;
        self.progress.output_frames += u64::from(!empty && !error && !data.is_empty());
        empty
    }

    fn note_message_event(&mut self, event: Option<&[u8]>, data: &[u8]) {
        match event {
            Some(b"content_block_delta") => return self.count(data, &[br#""text":"#, br#""partial_json":"#, br#""thinking":"#]),
            Some(b"ping" | b"content_block_start" | b"content_block_stop") => return,
            _ => {}
        }
        let Ok(read) = serde_json::from_slice::<MessageEvent<'_>>(data) else {
            self.progress.error |= event == Some(b"error");
            return;
        };
        match event.unwrap_or(read.event_type.unwrap_or_default().as_bytes()) {
            b"content_block_delta" => self.count(data, &[br#""text":"#, br#""partial_json":"#, br#""thinking":"#]),
            b"message_start" => self.note_anthropic(read.message.and_then(|message| message.usage)),
            b"message_delta" => {
                self.note_anthropic(read.usage);
                self.progress.is_final |= self.progress.usage.is_some();
            }
            b"message_stop" => self.progress.done = true,
            b"error" => self.progress.error = true,
            _ => {}
        }
    }

    fn note_anthropic(&mut self, usage: Option<AnthropicWire>) {
        if let Some(usage) = usage {
            self.anthropic.merge(&usage);
            self.progress.usage = self.anthropic.usage();
        }
    }

    fn note_response_event(&mut self, event: Option<&[u8]>, data: &[u8]) {
        let event_type = event.or_else(|| {
            let quoted = member(data, b"type")?;
            quoted.get(1..quoted.len() - 1)
        });
        match event_type {
            Some(name) if name.ends_with(b".delta") => self.count(data, &[br#""delta":"#]),
            Some(b"response.completed" | b"response.incomplete") => self.note_end(data),
            Some(b"response.failed") => {
                self.note_end(data);
                self.progress.error = true;
            }
            Some(b"error") => self.progress.error = true,
            _ => {}
        }
    }

    fn note_end(&mut self, data: &[u8]) {
        self.progress.usage = member(data, b"response").and_then(|response| openai_usage(member(response, b"usage")?));
        self.progress.is_final = self.progress.usage.is_some();
        self.progress.done = true;
    }

    /// Counts the bytes of a frame's text: those between the quotes after one of these names.
    fn count(&mut self, data: &[u8], names: &[&[u8]]) {
        self.progress.output_frames += 1;
        let text = names.iter().find_map(|name| {
            let after = data.get(memmem::find(data, name)? + name.len()..)?;
            let text = after.trim_ascii_start().strip_prefix(b"\"")?;
            let mut end = 0;
            while let Some(step) = memchr::memchr2(b'"', b'\\', &text[end.min(text.len())..]) {
                if text[end + step] == b'"' {
                    return Some(end + step);
                }
                end += step + 2;
            }
            None
        });
        self.progress.output_bytes += text.unwrap_or(0) as u64;
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
