//! What the scan notes of a body's members, so that its tokens can be bounded later.

use crate::json::Span;
use crate::request_format::RequestFormat;

/// Facts about a body's members, kept for the bound on its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// A member adds input that is not in the body, or changes how the prompt is rendered.
    pub(crate) foreign: bool,
    /// Bytes that templates render with extra spaces: at most twice as many.
    pub(crate) rewritten: usize,
    pub(crate) query: usize,
    pub(crate) prompts: u32,
    /// A system prompt in blocks.
    pub(crate) blocks_at: Option<Span>,
    /// Where the caller wrote a null cap. Our cap replaces it, because a key must not appear twice.
    pub(crate) null_cap_at: Option<Span>,
}

impl Proof {
    /// For bodies that were not scanned member by member.
    pub(crate) const NONE: Self = Self { foreign: true, rewritten: 0, query: 0, prompts: 0, blocks_at: None, null_cap_at: None };

    pub(crate) fn member(&mut self, format: RequestFormat, key: &[u8], at: Span, body: &[u8]) {
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
            b"documents" if format == RequestFormat::Rerank => self.prompts += 1,
            b"tools" | b"functions" | b"response_format" | b"documents" | b"text" if format != RequestFormat::Rerank => self.rewritten += bytes,
            b"query" => self.query = bytes,
            b"system" | b"instructions" if body[at.0] != b'"' && !is_harmless(&body[at.0..at.1]) => {
                self.foreign |= self.blocks_at.replace(at).is_some();
            }
            name if format.is_cap(name) && &body[at.0..at.1] == b"null" => self.null_cap_at = Some(at),
            _ => {}
        }
    }
}

/// Null, and modalities of text alone, add no input.
fn is_harmless(value: &[u8]) -> bool {
    matches!(value, b"null" | b"[\"text\"]")
}
