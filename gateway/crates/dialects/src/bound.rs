//! What bounds a call's tokens, for hard budgets.

use crate::Form;
use crate::json::Cursor;
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
}

/// What the scan notes of a body's members, for those who ask for its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// A member brings in what does not stand in the body, or says how it is written out.
    foreign: bool,
    /// Bytes that templates write out with spaces of their own: at most doubled.
    rewritten: usize,
    query: usize,
    prompts: u32,
    /// A system prompt in blocks.
    blocks_at: Option<Span>,
    /// Where the caller wrote that it wants no cap; ours goes there, for a key must not stand twice.
    null_cap_at: Option<Span>,
}

impl Proof {
    /// Of bodies that were not looked at member by member.
    pub(crate) const NONE: Self = Self { foreign: true, rewritten: 0, query: 0, prompts: 0, blocks_at: None, null_cap_at: None };

    pub(crate) fn member(&mut self, form: Form, key: &[u8], at: Span, body: &[u8]) {
        let bytes = at.1 - at.0;
        match key {
            b"messages" | b"prompt" | b"input" => self.prompts += 1,
            b"chat_template"
            | b"chat_template_kwargs"
            | b"mm_processor_kwargs"
            | b"media_io_kwargs"
            | b"modalities"
            | b"audio"
            | b"prediction"
            | b"prompt_embeds"
            | b"input_embeds"
            | b"image_data"
            | b"video_data"
            | b"audio_data"
            | b"session_params"
            | b"images"
            | b"truncate_prompt_tokens" => self.foreign |= !is_harmless(&body[at.0..at.1]),
            b"documents" if form == Form::Rerank => self.prompts += 1,
            b"tools" | b"functions" | b"response_format" | b"documents" | b"text" if form != Form::Rerank => self.rewritten += bytes,
            b"query" => self.query = bytes,
            b"system" | b"instructions" if body[at.0] != b'"' && !is_harmless(&body[at.0..at.1]) => {
                self.foreign |= self.blocks_at.replace(at).is_some();
            }
            name if form.is_cap(name) && &body[at.0..at.1] == b"null" => self.null_cap_at = Some(at),
            _ => {}
        }
    }
}

/// What asks for nothing but text says nothing.
fn is_harmless(value: &[u8]) -> bool {
    matches!(value, b"null" | b"[\"text\"]")
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

    /// Whether this key bounds the output. Another form's does not: it would be believed here and ignored by the engine.
    pub(crate) fn is_cap(self, name: &[u8]) -> bool {
        match self {
            Self::Chat => matches!(name, b"max_tokens" | b"max_completion_tokens"),
            _ => self.cap_name().is_some_and(|own| own.as_bytes() == name),
        }
    }

    /// Computed only where a hard budget applies: it looks at the conversation once more.
    #[must_use]
    pub fn bound(self, head: &Head<'_>, body: &[u8]) -> Bound {
        let proof = &head.proof;
        // Two conversations in one body: which of them an engine reads is its own affair.
        let is_text = !proof.foreign && proof.prompts == 1 && is_text_or_none(proof.blocks_at, body) && head.media(body) == Media::None;
        let again = match (self, head.prompt_at) {
            (Self::Rerank, Some((start, end))) => (proof.query as u64).saturating_mul(items(&body[start..end])),
            _ => 0,
        };
        let input_bytes = (body.len() as u64).saturating_add(proof.rewritten as u64).saturating_add(again);
        Bound { is_text, input_bytes, completions: completions(self, head, body) }
    }

    /// The cap to splice in where the caller has none.
    #[must_use]
    pub fn cap(self, head: &Head<'_>, tokens: u64) -> Cap {
        match head.proof.null_cap_at {
            Some(at) => Cap { at, name: None, tokens },
            None => Cap { at: (head.opening, head.opening), name: Some(self.cap_name().unwrap_or("max_tokens")), tokens },
        }
    }
}

/// Blocks of a system prompt are text in every dialect; what else they may become tomorrow is not promised.
fn is_text_or_none(blocks_at: Option<Span>, body: &[u8]) -> bool {
    blocks_at.is_none_or(|(start, end)| is_text_blocks(&body[start..end]))
}

/// How many a list holds.
fn items(list: &[u8]) -> u64 {
    let (mut cursor, mut count) = (Cursor::new(list), 0);
    if cursor.take(b'[').is_err() {
        return 0;
    }
    while cursor.peek().is_some_and(|next| next != b']') && cursor.value(2).is_ok() {
        count += 1;
        if cursor.peek() == Some(b',') {
            cursor.at += 1;
        }
    }
    count
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
