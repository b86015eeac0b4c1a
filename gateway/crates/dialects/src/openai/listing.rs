//! The answer of `GET /v1/models`.

use bytes::Bytes;
use serde::Serialize;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

/// Sorted by name, so that two answers compare.
#[must_use]
pub fn model_list<'a>(names: impl Iterator<Item = &'a str>) -> Bytes {
    let mut data: Vec<_> = names.map(|id| Entry { id, object: "model", created: 0, owned_by: "tenon" }).collect();
    data.sort_unstable_by_key(|entry| entry.id);
    serde_json::to_vec(&List { object: "list", data }).unwrap_or_default().into()
}
