//! Whether a prompt is plain text, so that its bytes bound its tokens. Computed only for hard budgets.

use crate::json::{Cursor, Fault};
use crate::scan::Head;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Text alone: an engine makes at most as many tokens of it as it has bytes, templates aside.
    None,
    /// Images, sound, video or files.
    Some,
    /// Something this gateway does not know, or that the provider fetches: no bound is known.
    Unknown,
}

impl Head<'_> {
    /// Checks the conversation key by key. Only an allow-list of keys is proof: engines also accept an image in a part without a type.
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

/// What a key of a message, part, item or block means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Its value is checked in turn.
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

/// Values of `type` for parts that are text.
fn is_text(part_type: &[u8]) -> bool {
    matches!(
        part_type,
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

/// Reads text that the scan has already proved to be JSON.
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
            let part_type = self.cursor.proven_string()?;
            if part_type.escaped || !is_text(&self.cursor.text[part_type.start..part_type.end]) {
                self.worse(Media::Unknown);
            }
            return Ok(());
        }
        self.value(false)
    }
}
