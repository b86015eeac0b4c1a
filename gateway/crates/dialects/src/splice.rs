//! Changes at most three places of a body without copying it: the pieces between them are slices of the original bytes.

use crate::scan::{Head, IncludeUsage};
use bytes::Bytes;

/// A body in pieces, in order. Small, because it is moved several times on its way into a connection.
#[derive(Clone, Debug)]
pub enum Pieces {
    One(Bytes),
    Many(std::vec::IntoIter<Bytes>),
}

impl Pieces {
    #[must_use]
    pub fn remaining(&self) -> usize {
        match self {
            Self::One(whole) => whole.len(),
            Self::Many(pieces) => pieces.as_slice().iter().map(Bytes::len).sum(),
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::One(whole) if whole.is_empty() => None,
            Self::One(whole) => Some(std::mem::take(whole)),
            Self::Many(pieces) => pieces.next(),
        }
    }
}

struct Edit {
    at: (usize, usize),
    with: Bytes,
}

/// Which usage numbers to request from the engine in a stream of chat completions or completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageRequest {
    None,
    /// At the end.
    Total,
    /// In every chunk and at the end, so the billed usage is known wherever the stream ends. Set for endpoints that support it.
    Continuous,
}

/// A cap on the output that a hard budget needs and the caller did not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    pub(crate) at: (usize, usize),
    /// The key to write; `None` = `at` covers only the value.
    pub(crate) name: Option<&'static str>,
    pub tokens: u64,
}

impl Cap {
    /// Under another key, where the caller wrote none.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self { name: self.name.map(|_| name), ..self }
    }
}

/// What to change in a body before the engine gets it.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// The model's name at the endpoint; `None` = the caller's stays.
    pub model: Option<&'a str>,
    /// A `continuous_usage_stats` that the caller wrote stays as it is.
    pub usage: UsageRequest,
    pub cap: Option<&'a Cap>,
}

/// The body with these changes.
#[must_use]
pub fn splice(body: &Bytes, head: &Head<'_>, changes: &Changes<'_>) -> Pieces {
    let usage = match changes.usage {
        UsageRequest::None => None,
        UsageRequest::Continuous if !head.mentions_continuous_usage => continuous_change(head),
        UsageRequest::Total | UsageRequest::Continuous => usage_change(head),
    };
    let model = changes.model.map(|name| Edit { at: head.model_at, with: serde_json::Value::from(name).to_string().into() });
    let cap = changes.cap.map(|cap| Edit {
        at: cap.at,
        // `model` follows it, so a comma is always right.
        with: cap.name.map_or_else(|| cap.tokens.to_string(), |name| format!("\"{name}\":{},", cap.tokens)).into(),
    });
    let mut edits = [usage, model, cap];
    if edits.iter().all(Option::is_none) {
        return Pieces::One(body.clone());
    }
    edits.sort_by_key(|change| change.as_ref().map(|change| change.at));
    let mut pieces = Vec::with_capacity(7);
    let mut done = 0;
    for change in edits.into_iter().flatten() {
        pieces.push(body.slice(done..change.at.0));
        pieces.push(change.with);
        done = change.at.1;
    }
    pieces.push(body.slice(done..));
    pieces.retain(|piece| !piece.is_empty());
    Pieces::Many(pieces.into_iter())
}

fn usage_change(head: &Head<'_>) -> Option<Edit> {
    let insert = |at: usize, with: &'static str| Some(Edit { at: (at, at), with: Bytes::from_static(with.as_bytes()) });
    let replace = |start: usize, end: usize, with: &'static str| Some(Edit { at: (start, end), with: Bytes::from_static(with.as_bytes()) });
    match head.include_usage {
        IncludeUsage::Requested => None,
        // `model` follows it, so a comma is always right.
        IncludeUsage::Absent => insert(head.opening, r#""stream_options":{"include_usage":true},"#),
        IncludeUsage::Null(start, end) => replace(start, end, r#"{"include_usage":true}"#),
        IncludeUsage::Missing { at, empty: true } => insert(at, r#""include_usage":true"#),
        IncludeUsage::Missing { at, empty: false } => insert(at, r#""include_usage":true,"#),
        IncludeUsage::Declined(start, end) => replace(start, end, "true"),
    }
}

fn continuous_change(head: &Head<'_>) -> Option<Edit> {
    let (at, with) = match head.include_usage {
        // `include_usage` follows it.
        IncludeUsage::Requested => head.options_at.map(|at| ((at, at), r#""continuous_usage_stats":true,"#))?,
        IncludeUsage::Absent => ((head.opening, head.opening), r#""stream_options":{"include_usage":true,"continuous_usage_stats":true},"#),
        IncludeUsage::Null(start, end) => ((start, end), r#"{"include_usage":true,"continuous_usage_stats":true}"#),
        IncludeUsage::Missing { at, empty: true } => ((at, at), r#""include_usage":true,"continuous_usage_stats":true"#),
        IncludeUsage::Missing { at, empty: false } => ((at, at), r#""include_usage":true,"continuous_usage_stats":true,"#),
        IncludeUsage::Declined(start, end) => ((start, end), r#"true,"continuous_usage_stats":true"#),
    };
    Some(Edit { at, with: Bytes::from_static(with.as_bytes()) })
}
