//! What bounds a call's tokens, for hard budgets. Computed only where one applies: it reads the whole body once more.

use crate::Form;
use crate::json::{Cursor, Fault};
use crate::media::{Media, completions};
use crate::scan::{Head, Span};
use crate::splice::Cap;

/// What the body itself proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// All input stands in the body as text.
    pub is_text: bool,
    /// An engine makes at most as many tokens of the text, its template aside.
    pub input_bytes: u64,
    /// Answers, each of which may take the cap.
    pub completions: u64,
    /// Where the caller wrote that it wants no cap; ours goes there, for a key must not stand twice.
    null_cap_at: Option<Span>,
    name: &'static str,
}

/// Keys that bring in what does not stand in the body, or say how it is written out.
const FOREIGN: [&[u8]; 15] = [
    b"chat_template",
    b"chat_template_kwargs",
    b"mm_processor_kwargs",
    b"media_io_kwargs",
    b"modalities",
    b"audio",
    b"prediction",
    b"prompt_embeds",
    b"input_embeds",
    b"image_data",
    b"video_data",
    b"audio_data",
    b"session_params",
    b"images",
    b"truncate_prompt_tokens",
];
/// Written out by templates with spaces of their own: at most doubled.
const REWRITTEN: [&[u8]; 5] = [b"tools", b"functions", b"response_format", b"documents", b"text"];
const CAPS: [&[u8]; 3] = [b"max_tokens", b"max_completion_tokens", b"max_output_tokens"];

#[derive(Default)]
struct Seen {
    foreign: bool,
    rewritten: u64,
    query: u64,
    documents: u64,
    prompts: u32,
    null_cap_at: Option<Span>,
}

impl Form {
    /// The name of the cap on output in this form; `None` = it has none.
    #[must_use]
    pub const fn cap_name(self) -> Option<&'static str> {
        match self {
            Self::Chat | Self::Completion | Self::Message => Some("max_tokens"),
            Self::Response => Some("max_output_tokens"),
            _ => None,
        }
    }

    #[must_use]
    pub fn bound(self, head: &Head<'_>, body: &[u8]) -> Bound {
        let seen = if self.is_multipart() { None } else { look(self, body).ok() };
        let name = self.cap_name().unwrap_or("max_tokens");
        let Some(seen) = seen else {
            return Bound { is_text: false, input_bytes: body.len() as u64, completions: head.choices, null_cap_at: None, name };
        };
        // Two conversations in one body: which of them an engine reads is its own affair.
        let is_text = !seen.foreign && seen.prompts == 1 && head.media(body) == Media::None;
        let again = if self == Self::Rerank { seen.query.saturating_mul(seen.documents) } else { 0 };
        let input_bytes = (body.len() as u64).saturating_add(seen.rewritten).saturating_add(again);
        Bound { is_text, input_bytes, completions: completions(self, head, body), null_cap_at: seen.null_cap_at, name }
    }
}

impl Bound {
    /// The cap to splice in where the caller has none.
    #[must_use]
    pub fn cap(&self, head: &Head<'_>, tokens: u64) -> Cap {
        match self.null_cap_at {
            Some(at) => Cap { at, name: None, tokens },
            None => Cap { at: (head.opening, head.opening), name: Some(self.name), tokens },
        }
    }
}

fn look(form: Form, body: &[u8]) -> Result<Seen, Fault> {
    let (mut cursor, mut seen) = (Cursor::new(body), Seen::default());
    cursor.take(b'{')?;
    while cursor.peek() != Some(b'}') {
        let key = cursor.string()?;
        cursor.take(b':')?;
        cursor.peek();
        let start = cursor.at;
        let key = &body[key.start..key.end];
        if key == b"documents" && cursor.peek() == Some(b'[') {
            seen.documents = items(&mut cursor)?;
        } else {
            cursor.value(1)?;
        }
        seen.member(form, key, (start, cursor.at), body);
        if cursor.peek() == Some(b',') {
            cursor.at += 1;
        }
    }
    Ok(seen)
}

fn items(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let mut count = 0;
    cursor.take(b'[')?;
    while cursor.peek() != Some(b']') {
        cursor.value(2)?;
        count += 1;
        if cursor.peek() == Some(b',') {
            cursor.at += 1;
        }
    }
    cursor.take(b']')?;
    Ok(count)
}

impl Seen {
    fn member(&mut self, form: Form, key: &[u8], at: Span, body: &[u8]) {
        let bytes = (at.1 - at.0) as u64;
        let value = &body[at.0..at.1];
        // What asks for nothing but text says nothing.
        let harmless = matches!(value, b"null" | b"[\"text\"]");
        self.foreign |= FOREIGN.contains(&key) && !harmless;
        if REWRITTEN.contains(&key) && form != Form::Rerank {
            self.rewritten += bytes;
        }
        match key {
            b"query" => self.query = bytes,
            b"messages" | b"prompt" | b"input" => self.prompts += 1,
            b"documents" if form == Form::Rerank => self.prompts += 1,
            // Blocks of a system prompt are text in every dialect; what else they may become tomorrow is not promised.
            b"system" | b"instructions" => self.foreign |= !(value.starts_with(b"\"") || is_text_blocks(value) || harmless),
            _ if CAPS.contains(&key) && value == b"null" && form.cap_name().is_some() => self.null_cap_at = Some(at),
            _ => {}
        }
    }
}

fn is_text_blocks(value: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Block {
        r#type: String,
        #[serde(rename = "text")]
        _text: serde::de::IgnoredAny,
        #[serde(default, rename = "cache_control")]
        _cache_control: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Vec<Block>>(value).is_ok_and(|blocks| blocks.iter().all(|block| matches!(&*block.r#type, "text" | "input_text")))
}
