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

struct Change {
    at: (usize, usize),
    with: Bytes,
}

/// Which usage numbers to request from the engine in a stream of chat completions or completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskUsage {
    No,
    /// At the end.
    Total,
    /// In every chunk and at the end, so the billed usage is known wherever the stream ends. Set for endpoints that support it.
    Continuous,
}

/// The body as the engine gets it: another model name if the route has one, and `include_usage` when `ask_usage`.
#[must_use]
pub fn splice(body: &Bytes, head: &Head<'_>, upstream_model: Option<&str>, ask_usage: bool) -> Pieces {
    splice_asking(body, head, upstream_model, if ask_usage { AskUsage::Total } else { AskUsage::No })
}

/// A bound on the output that the caller did not give and a hard budget needs.
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

/// As [`splice`]. What the caller said of continuous numbers stands.
#[must_use]
pub fn splice_asking(body: &Bytes, head: &Head<'_>, upstream_model: Option<&str>, ask: AskUsage) -> Pieces {
    splice_capped(body, head, upstream_model, ask, None)
}

/// As [`splice_asking`], with a bound on the output.
#[must_use]
pub fn splice_capped(body: &Bytes, head: &Head<'_>, upstream_model: Option<&str>, ask: AskUsage, cap: Option<&Cap>) -> Pieces {
    let usage = match ask {
        AskUsage::No => None,
        AskUsage::Continuous if !head.mentions_continuous_usage => continuous_change(head),
        AskUsage::Total | AskUsage::Continuous => usage_change(head),
    };
    let model = upstream_model.map(|name| Change { at: head.model_at, with: serde_json::Value::from(name).to_string().into() });
    let cap = cap.map(|cap| Change {
        at: cap.at,
        // `model` follows it, so a comma is always right.
        with: cap.name.map_or_else(|| cap.tokens.to_string(), |name| format!("\"{name}\":{},", cap.tokens)).into(),
    });
    let mut changes = [usage, model, cap];
    if changes.iter().all(Option::is_none) {
        return Pieces::One(body.clone());
    }
    changes.sort_by_key(|change| change.as_ref().map(|change| change.at));
    let mut pieces = Vec::with_capacity(7);
    let mut done = 0;
    for change in changes.into_iter().flatten() {
        pieces.push(body.slice(done..change.at.0));
        pieces.push(change.with);
        done = change.at.1;
    }
    pieces.push(body.slice(done..));
    pieces.retain(|piece| !piece.is_empty());
    Pieces::Many(pieces.into_iter())
}

fn usage_change(head: &Head<'_>) -> Option<Change> {
    let insert = |at: usize, with: &'static str| Some(Change { at: (at, at), with: Bytes::from_static(with.as_bytes()) });
    let replace = |start: usize, end: usize, with: &'static str| Some(Change { at: (start, end), with: Bytes::from_static(with.as_bytes()) });
    match head.include_usage {
        IncludeUsage::Asked => None,
        // `model` follows it, so a comma is always right.
        IncludeUsage::Absent => insert(head.opening, r#""stream_options":{"include_usage":true},"#),
        IncludeUsage::Null(start, end) => replace(start, end, r#"{"include_usage":true}"#),
        IncludeUsage::Missing { at, empty: true } => insert(at, r#""include_usage":true"#),
        IncludeUsage::Missing { at, empty: false } => insert(at, r#""include_usage":true,"#),
        IncludeUsage::Declined(start, end) => replace(start, end, "true"),
    }
}

fn continuous_change(head: &Head<'_>) -> Option<Change> {
    let (at, with) = match head.include_usage {
        // `include_usage` follows it.
        IncludeUsage::Asked => head.options_at.map(|at| ((at, at), r#""continuous_usage_stats":true,"#))?,
        IncludeUsage::Absent => ((head.opening, head.opening), r#""stream_options":{"include_usage":true,"continuous_usage_stats":true},"#),
        IncludeUsage::Null(start, end) => ((start, end), r#"{"include_usage":true,"continuous_usage_stats":true}"#),
        IncludeUsage::Missing { at, empty: true } => ((at, at), r#""include_usage":true,"continuous_usage_stats":true"#),
        IncludeUsage::Missing { at, empty: false } => ((at, at), r#""include_usage":true,"continuous_usage_stats":true,"#),
        IncludeUsage::Declined(start, end) => ((start, end), r#"true,"continuous_usage_stats":true"#),
    };
    Some(Change { at, with: Bytes::from_static(with.as_bytes()) })
}
