//! Usage as engines tell it.

use memchr::memmem::FinderRev;
use serde::Deserialize;
use std::sync::LazyLock;

/// Token counts of one call. `cached` is a part of `input`, `reasoning` of `output`, `audio` of both, as engines count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cached: u64,
    pub cache_write: u64,
    pub reasoning: u64,
    pub audio: u64,
    /// Made by the call.
    pub images: u32,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

const NAME: &[u8] = br#""usage""#;
/// Made once: preparing the search costs more than the search.
static LAST_NAME: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(NAME));

/// The last `usage` object of an answer or frame. `"usage":null`, which engines send in every chunk when usage was asked for, is not one.
/// Text of the model cannot pose as it: inside a JSON string its quotes are escaped.
#[must_use]
pub fn find_usage(text: &[u8]) -> Option<Usage> {
    let mut end = text.len();
    while let Some(at) = LAST_NAME.rfind(&text[..end]) {
        let escaped = at > 0 && text[at - 1] == b'\\';
        let usage = if escaped { None } else { parse(&text[at + NAME.len()..]) };
        if usage.is_some() {
            return usage;
        }
        end = at;
    }
    None
}

fn parse(after_name: &[u8]) -> Option<Usage> {
    let value = after_name.trim_ascii_start().strip_prefix(b":")?;
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Wire>();
    let wire = values.next()?.ok()?;
    if wire.prompt_tokens.is_none() && wire.completion_tokens.is_none() {
        return None;
    }
    let (prompt, completion) = (wire.prompt_tokens_details, wire.completion_tokens_details);
    let audio = [prompt.as_ref().and_then(|d| d.audio_tokens), completion.as_ref().and_then(|d| d.audio_tokens)];
    Some(Usage {
        input: wire.prompt_tokens.unwrap_or(0),
        output: wire.completion_tokens.unwrap_or(0),
        cached: prompt.as_ref().and_then(|d| d.cached_tokens).unwrap_or(0),
        cache_write: prompt.and_then(|d| d.cache_write_tokens).unwrap_or(0),
        reasoning: completion.and_then(|d| d.reasoning_tokens).unwrap_or(0),
        audio: audio.into_iter().flatten().fold(0, u64::saturating_add),
        images: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_numbers_are_read_with_their_details() {
        let body = br#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":999}"}}],"usage":{"prompt_tokens":12,"completion_tokens":7,
            "total_tokens":19,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":2},"completion_tokens_details":{"reasoning_tokens":3,"audio_tokens":1}},"extra":null}"#;
        assert_eq!(find_usage(body), Some(Usage { input: 12, output: 7, cached: 8, reasoning: 3, audio: 3, ..Usage::default() }));
    }

    #[test]
    fn null_and_foreign_usage_is_none() {
        assert_eq!(find_usage(br#"{"choices":[],"usage":null}"#), None);
        assert_eq!(find_usage(br#"{"usage":{"prompt_tokens":"many"}}"#), None);
        assert_eq!(find_usage(br#"{"usage""#), None);
        assert_eq!(find_usage(br#"{"usage":{"prompt_tokens":5,"prompt_tokens_details":null}}"#), Some(Usage { input: 5, ..Usage::default() }));
    }
}
