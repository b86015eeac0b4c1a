//! The answer of `GET /v1/models`, in either dialect.

use crate::Dialect;
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
    kind: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: &'static str,
    lifecycle: &'static str,
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
        Dialect::OpenAi => {
            let entries = names.iter().map(|id| OpenAiEntry { id, object: "model", created: 0, owned_by: "tenon" });
            serde_json::to_vec(&OpenAiList { object: "list", data: entries.collect() })
        }
        Dialect::Anthropic => {
            // When a model was made is not known here; the field must be there.
            let entry = |id| AnthropicEntry { kind: "model", id, display_name: id, created_at: "1970-01-01T00:00:00Z", lifecycle: "active" };
            let (first_id, last_id) = (names.first().copied(), names.last().copied());
            serde_json::to_vec(&AnthropicList { data: names.iter().map(|id| entry(*id)).collect(), has_more: false, first_id, last_id })
        }
    };
    text.unwrap_or_default().into()
}
