//! One pass over a request's body: what the gateway must know, and proof that nobody can read it differently.
//!
//! Parsers disagree about duplicate keys (first wins, last wins) and most know `mod\u0065l` as `model`; a policy that looked at the one and
//! an engine that obeys the other would be a way around the policy. So both are refused.
//!
//! What would live at the provider under the gateway's one credential, and what the provider would run and bill beside tokens, is refused
//! too: docs/reference/dialects.md says why.

mod error;
mod lists;

use crate::Form;
use crate::bound::Proof;
use crate::json::{Cursor, Text};
use lists::{input_items, tools};
use std::borrow::Cow;

pub use error::ScanError;

/// From here to there in the body.
pub type Span = (usize, usize);

/// What the gateway reads of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub model: Cow<'a, str>,
    /// Where the model's value stands, quotes included.
    pub model_at: Span,
    pub stream: bool,
    pub include_usage: IncludeUsage,
    /// Position after the `{` of `stream_options`.
    pub options_at: Option<usize>,
    /// The caller wrote `stream_options.continuous_usage_stats`, with whatever value.
    pub mentions_continuous_usage: bool,
    /// The bound on the output of one choice; the larger one where two were given.
    pub max_tokens: Option<u64>,
    /// Where its value stands.
    pub max_tokens_at: Option<Span>,
    /// Choices asked for (`n`, `best_of`), at least 1: each may take `max_tokens`.
    pub choices: u64,
    /// `system` or `instructions`, where it stands before the conversation.
    pub system_at: Option<Span>,
    /// `messages`, `prompt`, `input` or a reranker's `documents`.
    pub prompt_at: Option<Span>,
    /// Position after the first `{`.
    pub opening: usize,
    /// For its bound.
    pub proof: Proof,
}

/// How the caller stands to `stream_options.include_usage`, and where to put ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeUsage {
    Asked,
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

/// Keys that decide where a call goes, what it may cost or how it is answered. Each may appear once, whatever the form: an engine may obey
/// a key that its form does not have. The commonest stand first.
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
struct Found {
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

/// Reads a body. `UTF-8` is checked as a whole first (0.03 µs a kilobyte), because an engine may repair what we would pass on.
///
/// # Errors
/// When it is not one JSON object that every parser reads alike, a key we know has a wrong type, or it asks for what is not served.
pub fn scan(form: Form, body: &[u8]) -> Result<Head<'_>, ScanError> {
    simdutf8::basic::from_utf8(body).map_err(|_| ScanError::Utf8)?;
    let mut cursor = Cursor::new(body);
    cursor.take(b'{').map_err(|_| if body.trim_ascii().is_empty() { ScanError::Syntax } else { ScanError::NotObject })?;
    let opening = cursor.at;
    let mut found = Found::default();
    members(&mut cursor, |cursor, key| found.member(form, cursor, key))?;
    if cursor.peek().is_some() {
        return Err(ScanError::Trailing);
    }
    found.head(form, body, opening)
}

/// Calls `each` with every key of an object whose `{` was taken; `each` passes the value. Ends after the `}`.
pub(crate) fn members<'a>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&mut Cursor<'a>, &'a [u8]) -> Result<(), ScanError>,
) -> Result<(), ScanError> {
    if cursor.peek() == Some(b'}') {
        cursor.at += 1;
        return Ok(());
    }
    loop {
        let key = cursor.string()?;
        if key.escaped {
            return Err(ScanError::EscapedKey);
        }
        cursor.take(b':')?;
        cursor.peek();
        each(cursor, &cursor.text[key.start..key.end])?;
        if cursor.peek() != Some(b',') {
            return Ok(cursor.take(b'}')?);
        }
        cursor.at += 1;
    }
}

impl Found {
    fn member(&mut self, form: Form, cursor: &mut Cursor<'_>, key: &[u8]) -> Result<(), ScanError> {
        let start = cursor.at;
        self.value(form, cursor, key)?;
        self.proof.member(form, key, (start, cursor.at), cursor.text);
        Ok(())
    }

    fn value(&mut self, form: Form, cursor: &mut Cursor<'_>, key: &[u8]) -> Result<(), ScanError> {
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
            name @ ("max_tokens" | "max_completion_tokens" | "max_output_tokens") => self.bound(form, cursor, name)?,
            name @ ("n" | "best_of") => self.choices = self.choices.max(integer(cursor, name)?.unwrap_or(1)),
            "tools" if form.has_tools() => tools(form, cursor)?,
            "input" if form == Form::Response => input_items(cursor)?,
            "prompt" if form == Form::Response => absent(cursor, ScanError::ProviderState("prompt"))?,
            "background" if form == Form::Response => {
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

    /// Only the keys of its form bound a call; a foreign one would be believed here and ignored by the engine.
    fn bound(&mut self, form: Form, cursor: &mut Cursor<'_>, name: &'static str) -> Result<(), ScanError> {
        let start = cursor.at;
        let number = integer(cursor, name)?;
        if form.is_cap(name.as_bytes()) && number.is_some() {
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
            let asked = boolean(cursor, USAGE_KEY)?;
            let told = if asked { IncludeUsage::Asked } else { IncludeUsage::Declined(start, cursor.at) };
            usage.replace(told).map_or(Ok(()), |_| Err(ScanError::Duplicate(USAGE_KEY)))
        })?;
        Ok(usage.unwrap_or(IncludeUsage::Missing { at, empty }))
    }

    fn head(self, form: Form, body: &[u8], opening: usize) -> Result<Head<'_>, ScanError> {
        let model = self.model.ok_or(ScanError::Missing("model"))?;
        let text = decode(body, model, "model")?;
        if text.is_empty() {
            return Err(ScanError::Type("model", "a model's name"));
        }
        if form == Form::Message && self.max_tokens.is_none() {
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
    /// The prompt's head, for affinity by prefix: at most `bytes` of what stands first, the system prompt before the conversation.
    #[must_use]
    pub fn prompt_head<'b>(&self, body: &'b [u8], bytes: usize) -> [&'b [u8]; 2] {
        let part = |span: Option<Span>, most: usize| span.map_or(&body[..0], |(start, end)| &body[start..end.min(start + most)]);
        let system = part(self.system_at, bytes);
        [system, part(self.prompt_at, bytes - system.len())]
    }
}

pub(crate) fn decode<'a>(body: &'a [u8], text: Text, key: &'static str) -> Result<Cow<'a, str>, ScanError> {
    if text.escaped {
        let quoted = &body[text.start - 1..=text.end];
        return serde_json::from_slice(quoted).map(Cow::Owned).map_err(|_| ScanError::Type(key, "a string of whole characters"));
    }
    std::str::from_utf8(&body[text.start..text.end]).map(Cow::Borrowed).map_err(|_| ScanError::Utf8)
}

/// True, false or null (= false). The cursor stands at the value.
fn boolean(cursor: &mut Cursor<'_>, key: &'static str) -> Result<bool, ScanError> {
    let start = cursor.at;
    cursor.value(2)?;
    match &cursor.text[start..cursor.at] {
        b"true" => Ok(true),
        b"false" | b"null" => Ok(false),
        _ => Err(ScanError::Type(key, "true or false")),
    }
}

/// A plain non-negative integer or null: `1e3` and `12.0` are read differently by engines.
fn integer(cursor: &mut Cursor<'_>, key: &'static str) -> Result<Option<u64>, ScanError> {
    let start = cursor.at;
    cursor.value(1)?;
    match &cursor.text[start..cursor.at] {
        b"null" => Ok(None),
        digits => {
            let number = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|c| c.is_ascii_digit()));
            number.and_then(|text| text.parse().ok()).map(Some).ok_or(ScanError::Type(key, "a whole number"))
        }
    }
}

/// Null and empty lists ask for nothing.
fn absent(cursor: &mut Cursor<'_>, otherwise: ScanError) -> Result<(), ScanError> {
    let start = cursor.at;
    cursor.value(1)?;
    if matches!(&cursor.text[start..cursor.at], b"null" | b"[]") { Ok(()) } else { Err(otherwise) }
}
