//! Whether a prompt is text that stands in the body, so that its bytes bound its tokens. Computed only when somebody asks (a hard budget).

use crate::Form;
use crate::json::{Cursor, Fault};
use crate::scan::Head;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Text alone: an engine makes at most as many tokens of it as it has bytes, templates aside.
    None,
    /// Images, sound, video or files.
    Some,
    /// Something this gateway does not know, or that the provider fetches: nothing is promised.
    Unknown,
}

impl Head<'_> {
    /// Judges the conversation, key by key: engines also take an image from a part that names no type, so an allow-list of keys alone proves.
    #[must_use]
    pub fn media(&self, body: &[u8]) -> Media {
        let Some((start, end)) = self.prompt_at else {
            return Media::Unknown;
        };
        let mut walk = Walk { cursor: Cursor::new(&body[..end]), worst: Media::None };
        walk.cursor.at = start;
        if walk.value(false).is_err() { Media::Unknown } else { walk.worst }
    }
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    worst: Media,
}

/// What a key of a message, part, item or block says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Its value is walked on.
    Yes,
    Media,
    No,
}

fn known(key: &[u8]) -> Known {
    match key {
        b"role" | b"content" | b"type" | b"text" | b"name" | b"tool_calls" | b"id" | b"function" | b"arguments" | b"tool_call_id"
        | b"cache_control" | b"ttl" | b"refusal" | b"reasoning_content" | b"reasoning" | b"thinking" | b"thinking_blocks" | b"signature"
        | b"tool_use_id" | b"is_error" | b"status" | b"call_id" | b"output" | b"summary" | b"phase" | b"annotations" | b"logprobs"
        | b"encrypted_content" | b"strict" | b"citations" | b"index" => Known::Yes,
        b"image_url" | b"image" | b"input_audio" | b"audio" | b"audio_url" | b"video" | b"video_url" | b"file" | b"file_id" | b"file_data"
        | b"file_url" | b"source" | b"image_embeds" | b"detail" => Known::Media,
        _ => Known::No,
    }
}

/// Values of `type` that say the part is text.
fn is_text(kind: &[u8]) -> bool {
    matches!(
        kind,
        b"text"
            | b"input_text"
            | b"output_text"
            | b"refusal"
            | b"function"
            | b"custom"
            | b"tool_use"
            | b"tool_result"
            | b"thinking"
            | b"redacted_thinking"
            | b"message"
            | b"function_call"
            | b"function_call_output"
            | b"reasoning"
            | b"summary_text"
            | b"reasoning_text"
            | b"ephemeral"
    )
}

/// Over what the scan has proved to be JSON.
impl Walk<'_> {
    fn worse(&mut self, media: Media) {
        if self.worst == Media::None || media == Media::Some {
            self.worst = media;
        }
    }

    /// `opaque`: below a tool's input, whose keys are the caller's own and mean nothing to an engine.
    fn value(&mut self, opaque: bool) -> Result<(), Fault> {
        match self.cursor.peek() {
            Some(b'{') => self.object(opaque),
            Some(b'[') => self.list(opaque),
            Some(b'"') => self.cursor.proven_string().map(|_| ()),
            _ => self.cursor.value(0),
        }
    }

    fn list(&mut self, opaque: bool) -> Result<(), Fault> {
        self.cursor.take(b'[')?;
        while self.cursor.peek() != Some(b']') {
            self.value(opaque)?;
            if self.cursor.peek() == Some(b',') {
                self.cursor.at += 1;
            }
        }
        self.cursor.take(b']')
    }

    fn object(&mut self, opaque: bool) -> Result<(), Fault> {
        self.cursor.take(b'{')?;
        while self.cursor.peek() != Some(b'}') {
            let key = self.cursor.proven_string()?;
            self.cursor.take(b':')?;
            self.member(&self.cursor.text[key.start..key.end], key.escaped, opaque)?;
            if self.cursor.peek() == Some(b',') {
                self.cursor.at += 1;
            }
        }
        self.cursor.take(b'}')
    }

    fn member(&mut self, key: &[u8], escaped: bool, opaque: bool) -> Result<(), Fault> {
        if opaque || (key == b"input" && self.cursor.peek() == Some(b'{')) {
            return self.value(true);
        }
        let known = if escaped { Known::No } else { known(key) };
        if known == Known::No {
            self.worse(Media::Unknown);
        } else if known == Known::Media {
            self.worse(Media::Some);
        } else if key == b"type" && self.cursor.peek() == Some(b'"') {
            let kind = self.cursor.proven_string()?;
            if kind.escaped || !is_text(&self.cursor.text[kind.start..kind.end]) {
                self.worse(Media::Unknown);
            }
            return Ok(());
        }
        self.value(false)
    }
}

/// How many completions the call makes: `n` or `best_of`, times the prompts of a list (`completions` takes several at once). Each may take
/// `max_tokens`.
#[must_use]
pub fn completions(form: Form, head: &Head<'_>, body: &[u8]) -> u64 {
    let prompts = match (form, head.prompt_at) {
        (Form::Completion, Some((start, end))) => prompts_of(&body[start..end]),
        _ => 1,
    };
    head.choices.saturating_mul(prompts)
}

/// A list of strings or of lists of tokens holds several prompts; a list of numbers is one.
fn prompts_of(prompt: &[u8]) -> u64 {
    let mut cursor = Cursor::new(prompt);
    if cursor.take(b'[').is_err() || !matches!(cursor.peek(), Some(b'"' | b'[' | b'{')) {
        return 1;
    }
    let mut prompts = 0;
    while cursor.peek().is_some_and(|next| next != b']') {
        if cursor.value(1).is_err() {
            break;
        }
        prompts += 1;
        if cursor.peek() == Some(b',') {
            cursor.at += 1;
        }
    }
    prompts.max(1)
}
