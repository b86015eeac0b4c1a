//! What bounds a call's tokens, for hard budgets.

use crate::json::{Cursor, Span};
use crate::prompt_media::Media;
use crate::request_format::RequestFormat;
use crate::scan::Head;
use crate::splice::Cap;

/// The bound that the body itself proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// All input is text in the body.
    pub is_text: bool,
    /// The prompt has at most this many tokens, not counting the engine's template.
    pub input_bytes: u64,
    /// Answers, each of which may take the cap.
    pub completions: u64,
}

impl RequestFormat {
    /// Computed only where a hard budget applies, because it reads the conversation again.
    #[must_use]
    pub fn bound(self, head: &Head<'_>, body: &[u8]) -> Bound {
        let proof = &head.proof;
        // With two conversations in one body, we cannot know which one an engine reads.
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

/// Blocks of a system prompt are text in every dialect today. Any other block type is unknown and bounds nothing.
fn is_text_or_none(blocks_at: Option<Span>, body: &[u8]) -> bool {
    blocks_at.is_none_or(|(start, end)| is_text_blocks(&body[start..end]))
}

/// The length of a list.
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

/// How many completions the call produces: `n` or `best_of`, times the prompts in a list. Each may use
/// `max_tokens`.
#[must_use]
pub fn completions(format: RequestFormat, head: &Head<'_>, body: &[u8]) -> u64 {
    let prompts = match (format, head.prompt_at) {
        (RequestFormat::Completion, Some((start, end))) => prompts_of(&body[start..end]),
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
