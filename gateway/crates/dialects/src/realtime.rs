//! Events of a realtime session (OpenAI's `/v1/realtime`): models named in the caller's events, usage in the server's.

use crate::json::Cursor;
use crate::scan::{ScanError, decode, members};
use crate::usage::{Usage, openai_usage};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A model named in a caller's event.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedModel<'a> {
    pub model: Cow<'a, str>,
    /// The position of its value, quotes included.
    pub at: (usize, usize),
    /// It is the session's own model; otherwise one that transcribes the input.
    pub is_own: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct ClientEvent<'a> {
    /// It requests an answer.
    pub starts_response: bool,
    /// The caller's id of the event, returned in error messages about it.
    pub id: Option<Cow<'a, str>>,
    /// `response.max_output_tokens`, where it is a number.
    pub max_output_tokens: Option<u64>,
    /// In the order of the text.
    pub models: Vec<NamedModel<'a>>,
}

/// Objects that may hold a model's name; everything else is skipped.
#[derive(Clone, Copy)]
enum EventObject {
    Event,
    Session,
    Response,
    Audio,
    Input,
    Transcription,
}

impl EventObject {
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Event => &["type", "session", "response", "event_id"],
            Self::Session => &["model", "input_audio_transcription", "audio"],
            Self::Response => &["model", MAX_OUTPUT],
            Self::Transcription => &["model"],
            Self::Audio => &["input"],
            Self::Input => &["transcription"],
        }
    }

    fn below(self, key: &str) -> Option<Self> {
        match (self, key) {
            (Self::Event, "session") => Some(Self::Session),
            (Self::Event, "response") => Some(Self::Response),
            (Self::Session, "audio") => Some(Self::Audio),
            (Self::Audio, "input") => Some(Self::Input),
            (Self::Session, "input_audio_transcription") | (Self::Input, "transcription") => Some(Self::Transcription),
            _ => None,
        }
    }
}

const MAX_OUTPUT: &str = "max_output_tokens";

/// Reads a caller's event.
///
/// # Errors
/// When it is not one JSON object that every parser reads alike where it names its type or a model.
pub fn scan_client_event(text: &str) -> Result<ClientEvent<'_>, ScanError> {
    let mut cursor = Cursor::new(text.as_bytes());
    if cursor.peek() != Some(b'{') {
        return Err(ScanError::NotObject);
    }
    let mut event = ClientEvent { starts_response: false, id: None, max_output_tokens: None, models: Vec::new() };
    let mut event_type = None;
    object(&mut cursor, EventObject::Event, 0, &mut event, &mut event_type)?;
    if cursor.peek().is_some() {
        return Err(ScanError::Trailing);
    }
    event.starts_response = event_type.ok_or(ScanError::Missing("type"))? == "response.create";
    Ok(event)
}

fn object<'a>(
    cursor: &mut Cursor<'a>,
    container: EventObject,
    depth: u32,
    event: &mut ClientEvent<'a>,
    event_type: &mut Option<Cow<'a, str>>,
) -> Result<(), ScanError> {
    if cursor.peek() != Some(b'{') {
        return Ok(cursor.value(depth)?);
    }
    cursor.at += 1;
    let mut seen: u8 = 0;
    members(cursor, |cursor, key| {
        let Some(known) = container.keys().iter().position(|known| known.as_bytes() == key) else {
            return Ok(cursor.value(depth + 1)?);
        };
        let key = container.keys()[known];
        if seen & (1 << known) != 0 {
            return Err(ScanError::Duplicate(key));
        }
        seen |= 1 << known;
        if let Some(below) = container.below(key) {
            return object(cursor, below, depth + 1, event, event_type);
        }
        let first = cursor.peek();
        if key == MAX_OUTPUT || first != Some(b'"') {
            // Null switches a transcription off; the event's type must be text.
            if key == "type" {
                return Err(ScanError::Type(key, "a string"));
            }
            let from = cursor.at;
            cursor.value(depth + 1)?;
            if key == MAX_OUTPUT {
                event.max_output_tokens = std::str::from_utf8(&cursor.text[from..cursor.at]).ok().and_then(|number| number.parse().ok());
            }
            return Ok(());
        }
        let string = cursor.string()?;
        let text = decode(cursor.text, string, key)?;
        if key == "type" {
            *event_type = Some(text);
        } else if key == "event_id" {
            event.id = Some(text);
        } else {
            event.models.push(NamedModel {
                model: text,
                at: (string.start - 1, string.end + 1),
                is_own: !matches!(container, EventObject::Transcription),
            });
        }
        Ok(())
    })
}

/// Usage and answers counted from the server's events so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct UsageTally {
    usage: Option<Usage>,
    /// Answers that ended.
    pub responses: u64,
    running: u64,
    /// Output events of answers that are running.
    frames: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    ResponseCreated,
    ResponseDone(ResponseUsage),
    /// The caller's audio was transcribed.
    Transcribed(ResponseUsage),
    /// A piece of an answer.
    Output,
    Other,
}

/// The usage of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseUsage {
    /// `None` = the endpoint did not say.
    pub usage: Option<Usage>,
    pub failed: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    response: Option<Answer<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<EventError<'a>>,
}

#[derive(Deserialize)]
struct EventError<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

const MARKS: [&[u8]; 3] = [b"response.created", b"response.done", b"input_audio_transcription.completed"];

impl UsageTally {
    /// Reads one event of the server.
    pub fn observe(&mut self, text: &str) -> ServerEvent {
        // Audio deltas are many and long; only the marks are searched for in them, they are not parsed.
        if !MARKS.iter().any(|mark| memmem::find(text.as_bytes(), mark).is_some()) {
            let is_output = self.running > 0 && memmem::find(text.as_bytes(), b".delta\"").is_some();
            self.frames += u64::from(is_output);
            return if is_output { ServerEvent::Output } else { ServerEvent::Other };
        }
        let Ok(event) = serde_json::from_str::<Event<'_>>(text) else {
            return ServerEvent::Other;
        };
        match &*event.r#type {
            "response.created" => {
                self.running += 1;
                ServerEvent::ResponseCreated
            }
            "response.done" => {
                self.responses += 1;
                self.running = self.running.saturating_sub(1);
                self.frames = if self.running == 0 { 0 } else { self.frames };
                let failed = event.response.as_ref().is_some_and(|answer| answer.status.as_deref() == Some("failed"));
                ServerEvent::ResponseDone(ResponseUsage { usage: self.add(event.response.and_then(|answer| answer.usage)), failed })
            }
            "conversation.item.input_audio_transcription.completed" => {
                ServerEvent::Transcribed(ResponseUsage { usage: self.add(event.usage), failed: false })
            }
            _ => ServerEvent::Other,
        }
    }

    fn add(&mut self, reported: Option<&RawValue>) -> Option<Usage> {
        let used = openai_usage(reported?.get().as_bytes())?;
        self.usage = Some(sum(self.usage.unwrap_or_default(), &used));
        Some(used)
    }

    /// Answers have begun and not ended.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.running > 0
    }

    /// The sum of the reported usage. Output events of an unfinished answer are added; then the second value is true: an estimate.
    #[must_use]
    pub fn usage(&self) -> (Option<Usage>, bool) {
        match (self.usage, self.frames) {
            (reported, 0) => (reported, false),
            (reported, frames) => {
                let reported = reported.unwrap_or_default();
                (Some(Usage { output: reported.output.saturating_add(frames), ..reported }), true)
            }
        }
    }
}

/// Whether the endpoint refuses to begin an answer because one is running. Called for short events only, while an answer is awaited.
#[must_use]
pub fn refuses_response(text: &str) -> bool {
    const CODE: &str = "conversation_already_has_active_response";
    memmem::find(text.as_bytes(), CODE.as_bytes()).is_some()
        && serde_json::from_str::<Event<'_>>(text)
            .is_ok_and(|event| event.r#type == "error" && event.error.is_some_and(|error| error.code.as_deref() == Some(CODE)))
}

fn sum(so_far: Usage, more: &Usage) -> Usage {
    Usage {
        input: so_far.input.saturating_add(more.input),
        output: so_far.output.saturating_add(more.output),
        cached: so_far.cached.saturating_add(more.cached),
        cache_write: so_far.cache_write.saturating_add(more.cache_write),
        reasoning: so_far.reasoning.saturating_add(more.reasoning),
        audio: so_far.audio.saturating_add(more.audio),
        images: so_far.images.saturating_add(more.images),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(text: &str) -> Vec<(String, bool)> {
        let event = scan_client_event(text).expect(text);
        event.models.into_iter().map(|named| (named.model.into_owned(), named.is_own)).collect()
    }

    #[test]
    fn models_are_found_where_servers_look_for_them() {
        let text = r#"{"event_id":"1","session":{"type":"realtime","model":"m","audio":{"input":{"transcription":{"model":"w","language":"de"}}},"tools":[{"model":"no"}]},"type":"session.update"}"#;
        assert_eq!(models(text), [("m".into(), true), ("w".into(), false)]);
        let event = scan_client_event(text).unwrap();
        assert_eq!(&text[event.models[0].at.0..event.models[0].at.1], "\"m\"");
        assert_eq!(models(r#"{"type":"session.update","session":{"input_audio_transcription":{"model":"w"}}}"#), [("w".into(), false)]);
        assert_eq!(models(r#"{"type":"session.update","session":{"input_audio_transcription":null,"audio":null}}"#), []);
        assert_eq!(models(r#"{"type":"response.create","response":{"model":"m\u0065"}}"#), [("me".into(), true)]);
        assert!(scan_client_event(r#"{"type":"response.create"}"#).unwrap().starts_response);
        assert!(!scan_client_event(r#"{"type":"input_audio_buffer.append","audio":"response.create"}"#).unwrap().starts_response);
        let capped = r#"{"event_id":"mine","type":"response.create","response":{"max_output_tokens": 77 ,"x":1}}"#;
        let event = scan_client_event(capped).unwrap();
        assert_eq!((event.id.as_deref(), event.max_output_tokens), (Some("mine"), Some(77)));
        for endless in [r#""inf""#, "null", "-1"] {
            assert_eq!(scan_client_event(&capped.replace("77", endless)).unwrap().max_output_tokens, None, "{endless}");
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let of = |text: &str| scan_client_event(text).expect_err(text);
        assert_eq!(of(r#"{"type":"a","type":"response.create"}"#), ScanError::Duplicate("type"));
        assert_eq!(of(r#"{"type":"session.update","session":{"model":"a","model":"b"}}"#), ScanError::Duplicate("model"));
        assert_eq!(of(r#"{"type":"session.update","session":{},"session":{"model":"b"}}"#), ScanError::Duplicate("session"));
        assert_eq!(of(r#"{"type":"session.update","session":{"mod\u0065l":"b"}}"#), ScanError::EscapedKey);
        assert_eq!(of(r#"{"typ\u0065":"response.create"}"#), ScanError::EscapedKey);
        assert_eq!(of(r#"{"session":{}}"#), ScanError::Missing("type"));
        assert_eq!(of(r#"{"type":7}"#), ScanError::Type("type", "a string"));
        assert_eq!(of(r#"[{"type":"response.create"}]"#), ScanError::NotObject);
        assert_eq!(of(r#"{"type":"a"} {"type":"b"}"#), ScanError::Trailing);
        assert_eq!(of(&format!(r#"{{"type":"a","x":{}{}}}"#, "[".repeat(70), "]".repeat(70))), ScanError::Depth);
    }

    #[test]
    fn only_the_endpoints_own_word_refuses_an_answer() {
        assert!(refuses_response(r#"{"type":"error","error":{"type":"invalid_request_error","code":"conversation_already_has_active_response"}}"#));
        assert!(!refuses_response(r#"{"type":"error","error":{"code":null,"message":"conversation_already_has_active_response"}}"#));
        assert!(!refuses_response(r#"{"type":"response.output_text.done","text":"conversation_already_has_active_response"}"#));
    }

    #[test]
    fn usage_of_all_answers_is_added_up() {
        let mut tally = UsageTally::default();
        let done = r#"{"type":"response.done","event_id":"e","response":{"id":"r","status":"completed","usage":{"total_tokens":300,"input_tokens":200,"output_tokens":100,"input_token_details":{"text_tokens":50,"audio_tokens":150,"cached_tokens":64,"cached_tokens_details":{"text_tokens":64}},"output_token_details":{"text_tokens":30,"audio_tokens":70}}}}"#;
        assert_eq!(
            tally.observe(r#"{"type":"response.created","response":{"id":"r","usage":null,"metadata":{"a":"response.done"}}}"#),
            ServerEvent::ResponseCreated
        );
        assert_eq!(tally.usage(), (None, false));
        assert!(tally.is_answering());
        tally.observe(done);
        tally.observe(done);
        tally.observe(r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"tokens","input_tokens":10,"output_tokens":3,"input_token_details":{"audio_tokens":10}}}"#);
        tally.observe(r#"{"type":"response.output_audio.delta","delta":"AAAA"}"#);
        let expected = Usage { input: 410, output: 203, cached: 128, audio: 450, ..Usage::default() };
        assert_eq!((tally.usage().0, tally.responses), (Some(expected), 2));
        assert!(!tally.is_answering());
        tally.observe(r#"{"type":"response.done","response":{"status":"cancelled"}}"#);
        assert_eq!((tally.usage(), tally.responses), ((Some(expected), false), 3));
        // One that breaks off.
        tally.observe(r#"{"type":"response.created","response":{}}"#);
        tally.observe(r#"{"type":"response.output_text.delta","delta":"a"}"#);
        assert_eq!(tally.observe(r#"{"type":"response.output_text.delta","delta":"b"}"#), ServerEvent::Output);
        assert_eq!(tally.usage(), (Some(Usage { output: 205, ..expected }), true));
    }
}
