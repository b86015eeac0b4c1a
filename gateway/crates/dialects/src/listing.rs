//! The answers of `GET /v1/models` and `GET /v1/models/{id}`, in either dialect.

use crate::dialect::Dialect;
use bytes::Bytes;
use serde::Serialize;

#[derive(Serialize)]
struct OpenAiList<'a> {
    object: &'static str,
    data: Vec<OpenAiEntry<'a>>,
}

#[derive(Serialize)]
struct OpenAiEntry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl<'a> OpenAiEntry<'a> {
    fn of(id: &'a str) -> Self {
        Self { id, object: "model", created: 0, owned_by: "tenon" }
    }
}

#[derive(Serialize)]
struct AnthropicList<'a> {
    data: Vec<AnthropicEntry<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

#[derive(Serialize)]
struct AnthropicEntry<'a> {
    #[serde(rename = "type")]
    entry_type: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: &'static str,
    lifecycle: &'static str,
}

impl<'a> AnthropicEntry<'a> {
    /// The gateway does not know when a model was created, but the field is required.
    fn of(id: &'a str) -> Self {
        Self { entry_type: "model", id, display_name: id, created_at: "1970-01-01T00:00:00Z", lifecycle: "active" }
    }
}

/// Sorted by name, so that two answers compare. All on one page.
#[must_use]
pub fn model_list<'a>(names: impl Iterator<Item = &'a str>) -> Bytes {
    model_list_in(Dialect::OpenAi, names)
}

#[must_use]
pub fn model_list_in<'a>(dialect: Dialect, names: impl Iterator<Item = &'a str>) -> Bytes {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    let text = match dialect {
        Dialect::OpenAi => serde_json::to_vec(&OpenAiList { object: "list", data: names.iter().copied().map(OpenAiEntry::of).collect() }),
        Dialect::Anthropic => {
            let (first_id, last_id) = (names.first().copied(), names.last().copied());
            let data = names.iter().copied().map(AnthropicEntry::of).collect();
            serde_json::to_vec(&AnthropicList { data, has_more: false, first_id, last_id })
        }
    };
    text.unwrap_or_default().into()
}

/// The answer of `GET /v1/models/{id}`: the list's entry.
#[must_use]
pub fn model_in(dialect: Dialect, name: &str) -> Bytes {
    let text = match dialect {
        Dialect::OpenAi => serde_json::to_vec(&OpenAiEntry::of(name)),
        Dialect::Anthropic => serde_json::to_vec(&AnthropicEntry::of(name)),
    };
    text.unwrap_or_default().into()
}
