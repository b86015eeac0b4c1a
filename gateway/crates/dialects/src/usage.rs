//! Usage as engines report it, in each dialect's own fields.

use crate::json::Cursor;
use crate::request_format::RequestFormat;
use memchr::memmem::{Finder, FinderRev};
use serde::Deserialize;
use std::sync::LazyLock;

/// Token counts of one call, as the contract's `UsageRecord` keeps them: `input` and `output` are whole; `cached` and `cache_write` are parts
/// of `input`, `reasoning` of `output`, `audio` of both together. Anthropic's `input_tokens`, which counts neither cache, is added up to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cached: u64,
    pub cache_write: u64,
    pub reasoning: u64,
    pub audio: u64,
    /// Images that the call produced.
    pub images: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OpenAiWire {
    #[serde(alias = "input_tokens")]
    prompt_tokens: Option<u64>,
    #[serde(alias = "output_tokens")]
    completion_tokens: Option<u64>,
    // Speech and realtime sessions write it without the s.
    #[serde(alias = "input_tokens_details", alias = "input_token_details")]
    prompt_tokens_details: Option<OpenAiDetails>,
    #[serde(alias = "output_tokens_details", alias = "output_token_details")]
    completion_tokens_details: Option<OpenAiDetails>,
    /// Rerankers and a few embedders report nothing else.
    total_tokens: Option<u64>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct OpenAiDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    audio_tokens: Option<u64>,
}

/// One `usage` object of Anthropic's. A stream has several: a field of a later one replaces the earlier value, an absent field keeps it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct AnthropicWire {
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cache_read_input_tokens: Option<u64>,
    pub cache_creation_input_tokens: Option<u64>,
    pub output_tokens_details: Option<ThinkingDetails>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct ThinkingDetails {
    pub thinking_tokens: Option<u64>,
}

impl AnthropicWire {
    pub fn merge(&mut self, later: &Self) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_read_input_tokens = later.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.cache_creation_input_tokens = later.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details);
    }

    /// `None` when it has no token count.
    pub fn usage(&self) -> Option<Usage> {
        if self.input_tokens.is_none() && self.output_tokens.is_none() {
            return None;
        }
        let (cached, cache_write) = (self.cache_read_input_tokens.unwrap_or(0), self.cache_creation_input_tokens.unwrap_or(0));
        Some(Usage {
            input: self.input_tokens.unwrap_or(0).saturating_add(cached).saturating_add(cache_write),
            output: self.output_tokens.unwrap_or(0),
            cached,
            cache_write,
            reasoning: self.output_tokens_details.and_then(|details| details.thinking_tokens).unwrap_or(0),
            ..Usage::default()
        })
    }
}

impl OpenAiWire {
    fn usage(self) -> Option<Usage> {
        if self.prompt_tokens.is_none() && self.completion_tokens.is_none() && self.total_tokens.is_none() {
            return None;
        }
        let prompt = self.prompt_tokens_details.unwrap_or_default();
        let completion = self.completion_tokens_details.unwrap_or_default();
        let output = self.completion_tokens.unwrap_or(0);
        Some(Usage {
            input: self.prompt_tokens.unwrap_or_else(|| self.total_tokens.unwrap_or(0).saturating_sub(output)),
            output,
            cached: prompt.cached_tokens.unwrap_or(0),
            cache_write: prompt.cache_write_tokens.unwrap_or(0),
            reasoning: completion.reasoning_tokens.unwrap_or(0),
            audio: prompt.audio_tokens.unwrap_or(0).saturating_add(completion.audio_tokens.unwrap_or(0)),
            images: 0,
        })
    }
}

const NAME: &[u8] = br#""usage""#;
/// Built once: preparing the search costs more than the search.
static LAST_NAME: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(NAME));
static ANY_NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NAME));
/// Where the name nearly always is. A forward search takes sixteen bytes or more at a time, a backward search one.
const NEAR_END: usize = 512;

/// The last `usage` object of an answer or frame. `"usage":null`, which engines send in every chunk when usage is requested, is not one.
/// Text of the model cannot pose as it: inside a JSON string its quotes are escaped. Only for forms whose answers repeat nothing of the
/// caller's as JSON; [`usage_of_answer`] is for all.
#[must_use]
pub fn find_usage(text: &[u8]) -> Option<Usage> {
    let mut end = text.len();
    let near = end.saturating_sub(NEAR_END);
    let mut next = ANY_NAME.find_iter(&text[near..]).last().map(|at| near + at);
    while let Some(at) = next.take().or_else(|| LAST_NAME.rfind(&text[..end])) {
        let escaped = at > 0 && text[at - 1] == b'\\';
        let usage = if escaped { None } else { parse_after_name(&text[at + NAME.len()..]) };
        if usage.is_some() {
            return usage;
        }
        end = at;
    }
    None
}

fn parse_after_name(after_name: &[u8]) -> Option<Usage> {
    let value = after_name.trim_ascii_start().strip_prefix(b":")?;
    if let Some(wire) = plain(value) {
        return wire.usage();
    }
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<OpenAiWire>();
    values.next()?.ok()?.usage()
}

/// An object as nearly every engine writes it, read without serde's machinery, which cost more than all the rest of the answer: known keys
/// once, numbers without sign or point. `None` = it is not that simple, and serde decides.
fn plain(value: &[u8]) -> Option<OpenAiWire> {
    let (mut cursor, mut wire) = (Cursor::new(value), OpenAiWire::default());
    cursor.take(b'{').ok()?;
    loop {
        let key = cursor.string().ok()?;
        cursor.take(b':').ok()?;
        cursor.peek();
        let start = cursor.at;
        cursor.value(1).ok()?;
        let value = &value[start..cursor.at];
        let field = match &cursor.text[key.start..key.end] {
            _ if key.escaped => return None,
            b"prompt_tokens" | b"input_tokens" => Some(&mut wire.prompt_tokens),
            b"completion_tokens" | b"output_tokens" => Some(&mut wire.completion_tokens),
            b"total_tokens" => Some(&mut wire.total_tokens),
            name if name.ends_with(b"_details") && value != b"null" => return None,
            _ => None,
        };
        if let Some(field) = field {
            let number = value.iter().try_fold(0_u64, |sum, digit| {
                let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
                sum.checked_mul(10)?.checked_add(u64::from(digit))
            });
            if field.replace(number?).is_some() {
                return None;
            }
        }
        match cursor.peek()? {
            b',' => cursor.at += 1,
            b'}' => return Some(wire),
            _ => return None,
        }
    }
}

/// The usage of a whole answer. `responses` repeats the caller's tools and `messages` holds the input of tools as plain JSON, either of which
/// may have a key named `usage`: there only the answer's own counts.
#[must_use]
pub fn usage_of_answer(format: RequestFormat, text: &[u8]) -> Option<Usage> {
    match format {
        RequestFormat::Message => serde_json::from_slice::<AnthropicWire>(member(text, b"usage")?).ok()?.usage(),
        RequestFormat::Response => openai_usage(member(text, b"usage")?),
        // Counting tokens uses none.
        RequestFormat::CountTokens => None,
        RequestFormat::Rerank => rerank_usage(text),
        RequestFormat::Chat
        | RequestFormat::Completion
        | RequestFormat::Embedding
        | RequestFormat::Speech
        | RequestFormat::Image
        | RequestFormat::Transcription
        | RequestFormat::ImageEdit => find_usage(text),
    }
}

/// vLLM and Jina report `usage`; Cohere `meta.tokens` or `meta.billed_units`.
fn rerank_usage(text: &[u8]) -> Option<Usage> {
    if let Some(usage) = member(text, b"usage").and_then(openai_usage) {
        return Some(usage);
    }
    let meta = member(text, b"meta")?;
    [b"tokens".as_slice(), b"billed_units"].into_iter().find_map(|name| openai_usage(member(meta, name)?))
}

pub(crate) fn openai_usage(value: &[u8]) -> Option<Usage> {
    serde_json::from_slice::<OpenAiWire>(value).ok()?.usage()
}

/// The last member of this name in the object itself, not in nested objects.
pub(crate) fn member<'a>(object: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut cursor = Cursor::new(object);
    cursor.take(b'{').ok()?;
    let mut last = None;
    while cursor.peek()? != b'}' {
        let key = cursor.string().ok()?;
        cursor.take(b':').ok()?;
        cursor.peek();
        let start = cursor.at;
        cursor.value(1).ok()?;
        if &object[key.start..key.end] == name {
            last = Some(&object[start..cursor.at]);
        }
        if cursor.peek()? == b',' {
            cursor.at += 1;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_numbers_are_read_with_their_details() {
        let body = br#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":999}"}}],"usage":{"prompt_tokens":12,"completion_tokens":7,
            "total_tokens":19,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":2},"completion_tokens_details":{"reasoning_tokens":3,"audio_tokens":1}},"extra":null}"#;
        assert_eq!(find_usage(body), Some(Usage { input: 12, output: 7, cached: 8, cache_write: 0, reasoning: 3, audio: 3, ..Usage::default() }));
    }

    #[test]
    fn the_short_way_reads_what_the_long_way_reads() {
        let read = |text: &[u8]| serde_json::from_slice::<OpenAiWire>(text).ok().map(OpenAiWire::usage);
        for text in [
            &br#"{"prompt_tokens":12,"completion_tokens":7,"total_tokens":19}"#[..],
            br#"{ "total_tokens" : 31 , "other" : {"prompt_tokens":1} }"#,
            br#"{"input_tokens":18446744073709551615,"output_tokens":0,"prompt_tokens_details":null}"#,
        ] {
            assert_eq!(plain(text).map(OpenAiWire::usage), read(text));
        }
        for text in [
            &br#"{"prompt_tokens":12,"prompt_tokens_details":{"cached_tokens":8}}"#[..],
            br#"{"prompt_tokens":18446744073709551616}"#,
            br#"{"prompt_tokens":1,"input_tokens":2}"#,
            br#"{"prompt_tokens":null}"#,
            br#"{"prompt_tokens":-1}"#,
            br#"{"prompt_tokens":1.0}"#,
            br#"{"prompt\u005ftokens":1}"#,
            br"{}",
        ] {
            assert!(plain(text).is_none(), "left to serde");
        }
    }

    #[test]
    fn null_and_foreign_usage_is_none() {
        assert_eq!(find_usage(br#"{"choices":[],"usage":null}"#), None);
        assert_eq!(find_usage(br#"{"usage":{"prompt_tokens":"many"}}"#), None);
        assert_eq!(find_usage(br#"{"usage""#), None);
        assert_eq!(find_usage(br#"{"usage":{"prompt_tokens":5,"prompt_tokens_details":null}}"#), Some(Usage { input: 5, ..Usage::default() }));
    }

    #[test]
    fn kinds_are_added_up_alike_in_every_dialect() {
        let expected = Some(Usage { input: 17, output: 9, cached: 8, cache_write: 4, reasoning: 2, ..Usage::default() });
        let message = br#"{"type":"message","usage":{"input_tokens":5,"cache_read_input_tokens":8,"cache_creation_input_tokens":4,"output_tokens":9,"output_tokens_details":{"thinking_tokens":2}}}"#;
        assert_eq!(usage_of_answer(RequestFormat::Message, message), expected);
        let response = br#"{"object":"response","usage":{"input_tokens":17,"input_tokens_details":{"cached_tokens":8,"cache_write_tokens":4},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":26}}"#;
        assert_eq!(usage_of_answer(RequestFormat::Response, response), expected);
        let spoken = br#"{"usage":{"prompt_tokens":5,"completion_tokens":4,"prompt_tokens_details":{"audio_tokens":2},"completion_tokens_details":{"audio_tokens":3}}}"#;
        assert_eq!(usage_of_answer(RequestFormat::Chat, spoken).map(|usage| usage.audio), Some(5));
    }

    #[test]
    fn what_the_caller_or_the_model_wrote_is_not_believed() {
        let echoed = br#"{"usage":{"input_tokens":17,"output_tokens":9},"tools":[{"parameters":{"usage":{"input_tokens":0,"output_tokens":0}}}],"metadata":{"usage":{"input_tokens":1}}}"#;
        assert_eq!(usage_of_answer(RequestFormat::Response, echoed).map(|usage| (usage.input, usage.output)), Some((17, 9)));
        let tool = br#"{"usage":{"input_tokens":3,"output_tokens":4},"content":[{"type":"tool_use","input":{"usage":{"input_tokens":0,"output_tokens":0}}}]}"#;
        assert_eq!(usage_of_answer(RequestFormat::Message, tool).map(|usage| (usage.input, usage.output)), Some((3, 4)));
    }

    #[test]
    fn rerankers_report_tokens_in_three_ways() {
        let input = |text: &[u8]| usage_of_answer(RequestFormat::Rerank, text).map(|usage| usage.input);
        assert_eq!(input(br#"{"results":[],"usage":{"total_tokens":31}}"#), Some(31));
        assert_eq!(input(br#"{"results":[],"meta":{"billed_units":{"search_units":1},"tokens":{"input_tokens":7}}}"#), Some(7));
        assert_eq!(input(br#"{"results":[]}"#), None);
    }
}
