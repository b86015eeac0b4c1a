//! One pass over a request's body: what the gateway must know, and proof that no parser reads it differently.
//!
//! Parsers disagree about duplicate keys (first wins, last wins), and most read `mod\u0065l` as `model`. A policy that checked the one and
//! an engine that obeys the other would let callers avoid the policy. So both are refused.
//!
//! State kept at the provider under the gateway's one credential, and tools that the provider runs and bills, are refused
//! too: docs/reference/dialects.md explains why.

mod error;
mod values;
mod lists;

use crate::json::{Cursor, Span, Text};
use crate::proof::Proof;
use crate::request_format::RequestFormat;
use lists::{input_items, tools};
use std::borrow::Cow;
use values::{absent, boolean, integer};

pub use error::ScanError;
pub(crate) use values::{decode, members};

/// What the gateway reads of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub model: Cow<'a, str>,
    /// The position of the model's value, quotes included.
    pub model_at: Span,
    pub stream: bool,
    pub include_usage: IncludeUsage,
    /// Position after the `{` of `stream_options`.
    pub options_at: Option<usize>,
    /// The caller wrote `stream_options.continuous_usage_stats`, with whatever value.
    pub mentions_continuous_usage: bool,
    /// The bound on the output of one choice; the larger one where two were given.
    pub max_tokens: Option<u64>,
    /// The position of its value.
    pub max_tokens_at: Option<Span>,
    /// Requested choices (`n`, `best_of`), at least 1: each may use `max_tokens`.
    pub choices: u64,
    /// The position of `system` or `instructions`.
    pub system_at: Option<Span>,
    /// The position of `messages`, `prompt`, `input` or a reranker's `documents`.
    pub prompt_at: Option<Span>,
    /// Position after the first `{`.
    pub opening: usize,
    /// For the bound on its tokens.
    pub proof: Proof,
}

/// The caller's `stream_options.include_usage`, and where to write ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeUsage {
    Requested,
    /// No `stream_options`.
    Absent,
    /// `stream_options` is null: replace these bytes.
    Null(usize, usize),
    /// An object without it: insert at this position; `empty` = no comma after it.
    Missing {
        at: usize,
        empty: bool,
    },
    /// Present as false or null: replace these bytes.
    Declined(usize, usize),
}

/// Keys that decide where a call goes, what it may cost or how it is answered. Each may appear once, in every format: an engine may obey
/// a key that does not belong to the format. The most common keys come first.
const KEYS: [&str; 24] = [
    "model",
    "messages",
    "stream",
    "max_tokens",
    "stream_options",
    "max_completion_tokens",
    "tools",
    "system",
    "input",
    "prompt",
    "n",
    "best_of",
    "instructions",
    "max_output_tokens",
    "previous_response_id",
    "conversation",
    "background",
    "container",
    "mcp_servers",
    "web_search_options",
    "documents",
    "query",
    "service_tier",
    "store",
];
const USAGE_KEY: &str = "stream_options.include_usage";

#[derive(Default)]
struct HeadBuilder {
    seen: u32,
    model: Option<Text>,
    stream: bool,
    include_usage: Option<IncludeUsage>,
    options_at: Option<usize>,
    mentions_continuous_usage: bool,
    max_tokens: Option<u64>,
    max_tokens_at: Option<Span>,
    choices: u64,
    system_at: Option<Span>,
    prompt_at: Option<Span>,
    proof: Proof,
}

/// Reads a body. UTF-8 is checked as a whole first (0.03 µs a kilobyte), because an engine may repair bad bytes that we would pass on.
///
/// # Errors
/// When parsers could read it differently, a known key has a wrong type, or it requests what is not served.
pub fn scan(format: RequestFormat, body: &[u8]) -> Result<Head<'_>, ScanError> {
    simdutf8::basic::from_utf8(body).map_err(|_| ScanError::Utf8)?;
    let mut cursor = Cursor::new(body);
    cursor.take(b'{').map_err(|_| if body.trim_ascii().is_empty() { ScanError::Syntax } else { ScanError::NotObject })?;
    let opening = cursor.at;
    let mut head = HeadBuilder::default();
    members(&mut cursor, |cursor, key| head.member(format, cursor, key))?;
    if cursor.peek().is_some() {
        return Err(ScanError::Trailing);
    }
    head.build(format, body, opening)
}

impl HeadBuilder {
    fn member(&mut self, format: RequestFormat, cursor: &mut Cursor<'_>, key: &[u8]) -> Result<(), ScanError> {
        let start = cursor.at;
        self.value(format, cursor, key)?;
        self.proof.member(format, key, (start, cursor.at), cursor.text);
        Ok(())
    }

    fn value(&mut self, format: RequestFormat, cursor: &mut Cursor<'_>, key: &[u8]) -> Result<(), ScanError> {
        let Some(known) = KEYS.iter().position(|known| known.as_bytes() == key) else {
            return Ok(cursor.value(1)?);
        };
        if self.seen & (1 << known) != 0 {
            return Err(ScanError::Duplicate(KEYS[known]));
        }
        self.seen |= 1 << known;
        let start = cursor.at;
        match KEYS[known] {
            "model" if cursor.peek() == Some(b'"') => self.model = Some(cursor.string()?),
            "model" => return Err(ScanError::Type("model", "a string")),
            "stream" => self.stream = boolean(cursor, "stream")?,
            "stream_options" => self.include_usage = Some(self.stream_options(cursor)?),
            name @ ("max_tokens" | "max_completion_tokens" | "max_output_tokens") => self.bound(format, cursor, name)?,
            name @ ("n" | "best_of") => self.choices = self.choices.max(integer(cursor, name)?.unwrap_or(1)),
            "tools" if format.has_tools() => tools(format, cursor)?,
            "input" if format == RequestFormat::Response => input_items(cursor)?,
            "prompt" if format == RequestFormat::Response => absent(cursor, ScanError::ProviderState("prompt"))?,
            "background" if format == RequestFormat::Response => {
                if boolean(cursor, "background")? {
                    return Err(ScanError::ProviderState("background"));
                }
            }
            name @ ("previous_response_id" | "conversation" | "container" | "mcp_servers") => absent(cursor, ScanError::ProviderState(name))?,
            "web_search_options" => absent(cursor, ScanError::HostedTool("web_search_options"))?,
            _ => cursor.value(1)?,
        }
        match KEYS[known] {
            "system" | "instructions" => self.system_at = Some((start, cursor.at)),
            "messages" | "prompt" | "input" | "documents" => self.prompt_at = Some((start, cursor.at)),
            _ => {}
        }
        Ok(())
    }

    /// Only the keys of its format bound a call; the engine ignores another format's key.
    fn bound(&mut self, format: RequestFormat, cursor: &mut Cursor<'_>, name: &'static str) -> Result<(), ScanError> {
        let start = cursor.at;
        let number = integer(cursor, name)?;
        if format.is_cap(name.as_bytes()) && number.is_some() {
            self.max_tokens = self.max_tokens.max(number);
            self.max_tokens_at = Some((start, cursor.at));
        }
        Ok(())
    }

    fn stream_options(&mut self, cursor: &mut Cursor<'_>) -> Result<IncludeUsage, ScanError> {
        let start = cursor.at;
        if cursor.peek() != Some(b'{') {
            cursor.value(1)?;
            let null = &cursor.text[start..cursor.at] == b"null";
            return if null { Ok(IncludeUsage::Null(start, cursor.at)) } else { Err(ScanError::Type("stream_options", "an object")) };
        }
        cursor.at += 1;
        let at = cursor.at;
        self.options_at = Some(at);
        let empty = cursor.peek() == Some(b'}');
        let mut usage = None;
        members(cursor, |cursor, key| {
            if key != b"include_usage" {
                self.mentions_continuous_usage |= key == b"continuous_usage_stats";
                return Ok(cursor.value(2)?);
            }
            let start = cursor.at;
            let requested = boolean(cursor, USAGE_KEY)?;
            let value = if requested { IncludeUsage::Requested } else { IncludeUsage::Declined(start, cursor.at) };
            usage.replace(value).map_or(Ok(()), |_| Err(ScanError::Duplicate(USAGE_KEY)))
        })?;
        Ok(usage.unwrap_or(IncludeUsage::Missing { at, empty }))
    }

    fn build(self, format: RequestFormat, body: &[u8], opening: usize) -> Result<Head<'_>, ScanError> {
        let model = self.model.ok_or(ScanError::Missing("model"))?;
        let text = decode(body, model, "model")?;
        if text.is_empty() {
            return Err(ScanError::Type("model", "a model's name"));
        }
        if format == RequestFormat::Message && self.max_tokens.is_none() {
            return Err(ScanError::Missing("max_tokens"));
        }
        Ok(Head {
            model: text,
            model_at: (model.start - 1, model.end + 1),
            stream: self.stream,
            include_usage: self.include_usage.unwrap_or(IncludeUsage::Absent),
            options_at: self.options_at,
            mentions_continuous_usage: self.mentions_continuous_usage,
            max_tokens: self.max_tokens,
            max_tokens_at: self.max_tokens_at,
            choices: self.choices.max(1),
            system_at: self.system_at,
            prompt_at: self.prompt_at,
            opening,
            proof: self.proof,
        })
    }
}

impl Head<'_> {
    /// The beginning of the prompt, for prefix affinity: at most `bytes`, the system prompt before the conversation.
    #[must_use]
    pub fn prompt_head<'b>(&self, body: &'b [u8], bytes: usize) -> [&'b [u8]; 2] {
        let part = |span: Option<Span>, most: usize| span.map_or(&body[..0], |(start, end)| &body[start..end.min(start + most)]);
        let system = part(self.system_at, bytes);
        [system, part(self.prompt_at, bytes - system.len())]
    }
}
