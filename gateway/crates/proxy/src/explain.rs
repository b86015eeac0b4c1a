//! What `explain` tells of a call that ended: why this route, which limit, which attempts, how long, how many tokens. Never a body or a key.

use crate::trail::{Past, Trails};
use serde_json::{Value, json};
use tenon_snapshot::Key;
use tenon_usage::UsageSource;

impl Trails {
    /// For a caller: calls of its own tenant; an agent's session sees its own calls alone. `None` = nothing this key may know of.
    #[must_use]
    pub fn explain_to(&self, key: &Key, request_id: &str) -> Option<Value> {
        let past = self.find(request_id)?;
        let same_tenant = past.key.record.tenant_id == key.record.tenant_id;
        let bound = !key.record.session_id.is_empty();
        (same_tenant && (!bound || past.key.id == key.id)).then(|| told(&past))
    }

    /// For an operator.
    #[must_use]
    pub fn explain(&self, request_id: &str) -> Option<Value> {
        self.find(request_id).map(|past| told(&past))
    }
}

pub(crate) fn told(past: &Past) -> Value {
    let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let record = &past.key.record;
    json!({
        "request_id": &*past.id.text(),
        "tenant_id": record.tenant_id,
        "project_id": record.project_id,
        "key_id": record.key_id,
        "operation": past.operation.as_str_name().trim_start_matches("OPERATION_").to_ascii_lowercase(),
        "streamed": past.streamed,
        "model": past.model.as_ref().map(|model| &*model.name),
        "outcome": past.outcome,
        "http_status": past.http_status,
        "code": past.code,
        "limit": past.trail.limit.as_ref().map(|limit| json!({ "kind": limit.kind, "id": &*limit.id })),
        "route": route(past),
        "attempts": attempts(past),
        "attempts_total": past.trail.attempted(),
        "timings": {
            "started_unix_us": past.started_unix_us,
            "queued_us": micros(past.trail.queued),
            "first_token_us": past.first_token.map(micros),
            "duration_us": micros(past.took),
        },
        "usage": past.usage.map(|(usage, source)| json!({
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "cache_read_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "reasoning_tokens": usage.reasoning,
            "source": source_name(source),
        })),
    })
}

fn route(past: &Past) -> Value {
    let Some(model) = &past.model else {
        return Value::Null;
    };
    let attempts = past.trail.attempts();
    let tried = |index: usize| attempts.iter().any(|attempt| usize::from(attempt.route) == index);
    let last = attempts.last().map(|attempt| usize::from(attempt.route));
    let candidates: Vec<_> = model
        .routes
        .iter()
        .enumerate()
        .map(|(index, route)| {
            let verdict = match &route.endpoint.target {
                _ if last == Some(index) => "chosen",
                _ if tried(index) => "tried",
                _ if !past.key.ceiling.is_subset_of(&route.endpoint.cleared) => "not_cleared",
                Err(_) => "unusable",
                Ok(_) => past.trail.passed(index).unwrap_or("not_picked"),
            };
            json!({ "endpoint_id": &*route.endpoint.id, "upstream_model": route.upstream_model.as_deref(), "weight": route.weight, "verdict": verdict })
        })
        .collect();
    json!({ "why": past.trail.why, "score": past.trail.score, "candidates": candidates })
}

fn attempts(past: &Past) -> Vec<Value> {
    let endpoint = |route: u8| past.model.as_ref().and_then(|model| Some(&*model.routes.get(usize::from(route))?.endpoint.id));
    let told = past.trail.attempts().iter().map(|attempt| {
        json!({
            "endpoint_id": endpoint(attempt.route),
            "began_us": attempt.began_us,
            "took_us": attempt.took_us,
            "status": (attempt.status > 0).then_some(attempt.status),
            "code": (!attempt.code.is_empty()).then_some(attempt.code),
            "connection": if attempt.kept_connection { "kept" } else { "new" },
        })
    });
    told.collect()
}

fn source_name(source: UsageSource) -> String {
    source.as_str_name().trim_start_matches("USAGE_SOURCE_").to_ascii_lowercase()
}
