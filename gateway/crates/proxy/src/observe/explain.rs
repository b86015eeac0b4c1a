//! What `explain` shows of a completed call: why this route, which limit, which attempts, how long, how many tokens. Never a body or a key.

use crate::observe::call_trace::{CompletedCall, CompletedCalls};
use serde_json::{Map, Value, json};
use tenon_balance::{HealthState, RouteState, Strategy};
use tenon_contract::Priority;
use tenon_limits::{Exceeded, LimitKind};
use tenon_problem::ProblemCode;
use tenon_snapshot::{Key, Model};
use tenon_usage::UsageSource;

impl CompletedCalls {
    /// For a caller: calls of its own tenant, for an agent's session its own calls only. `None` = no such call that this key may see.
    #[must_use]
    pub fn explain_to(&self, key: &Key, request_id: &str) -> Option<Value> {
        let call = self.find(request_id)?;
        let same_tenant = call.key.record.tenant_id == key.record.tenant_id;
        let bound = !key.record.session_id.is_empty();
        (same_tenant && (!bound || call.key.id == key.id)).then(|| to_json(&call))
    }

    /// For an operator.
    #[must_use]
    pub fn explain(&self, request_id: &str) -> Option<Value> {
        self.find(request_id).map(|call| to_json(&call))
    }
}

pub(crate) fn to_json(call: &CompletedCall) -> Value {
    let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let record = &call.key.record;
    json!({
        "request_id": &*call.id.text(),
        "tenant_id": record.tenant_id,
        "project_id": record.project_id,
        "key_id": record.key_id,
        "priority": priority_name(record.priority()),
        "operation": call.operation.as_str_name().trim_start_matches("OPERATION_").to_ascii_lowercase(),
        "streamed": call.streamed,
        "model": call.model.as_ref().map(|model| &*model.name),
        "outcome": call.outcome,
        "http_status": call.http_status,
        "code": call.code.map(ProblemCode::text),
        "limit": call.call_trace.limit.as_ref().map(limit),
        "route": route(call),
        "attempts": attempts(call),
        "attempts_total": call.call_trace.attempted(),
        "timings": {
            "started_unix_us": call.started_unix_us,
            "queued_us": micros(call.call_trace.queued),
            "first_token_us": call.first_token.map(micros),
            "duration_us": micros(call.took),
        },
        "usage": call.usage.map(|(usage, source)| json!({
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "cache_read_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "reasoning_tokens": usage.reasoning,
            "source": source_name(source),
        })),
    })
}

fn limit(limit: &Exceeded) -> Value {
    let (kind, subject) = (kind_name(limit.kind), limit.subject.as_str_name().trim_start_matches("SUBJECT_").to_ascii_lowercase());
    let retry_after_seconds = limit.retry_after_us.div_ceil(1_000_000).max(1);
    json!({ "kind": kind, "subject": subject, "limit": limit.limit, "remaining": limit.remaining, "retry_after_seconds": retry_after_seconds })
}

const fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Unspecified | Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

const fn state_name(state: HealthState) -> &'static str {
    match state {
        HealthState::Closed => "healthy",
        HealthState::HalfOpen => "half_open",
        HealthState::Open => "breaker_open",
        HealthState::Paused => "paused",
        HealthState::Down => "down",
    }
}

const fn kind_name(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Requests => "requests_per_minute",
        LimitKind::Tokens => "tokens_per_minute",
        LimitKind::Concurrency => "concurrency",
    }
}

/// Routes by their index, and which was taken.
struct Routes<'a> {
    call: &'a CompletedCall,
    model: &'a Model,
    last: Option<usize>,
}

fn route(call: &CompletedCall) -> Value {
    let Some(model) = &call.model else {
        return Value::Null;
    };
    let last = call.call_trace.attempts().last().map(|attempt| usize::from(attempt.route));
    let routes = Routes { call, model, last };
    let of_last = last.and_then(|last| routes.state(last));
    let strategy = model.group.strategy;
    let is_affine = matches!(strategy, Strategy::Session | Strategy::Prefix);
    json!({
        "why": if of_last.is_some_and(|state| state.is_out) { "least_unhealthy" } else { strategy_name(strategy) },
        "by_affinity": call.call_trace.routes.as_ref().filter(|_| is_affine).map(|routes| routes.by_affinity),
        "tier": last.and_then(|last| routes.tier(last)),
        "score": of_last.and_then(|state| state.score),
        "candidates": (0..model.routes.len()).map(|index| routes.candidate(index)).collect::<Vec<_>>(),
    })
}

impl Routes<'_> {
    fn state(&self, index: usize) -> Option<&RouteState> {
        self.call.call_trace.routes.as_ref()?.states.get(index)
    }

    fn tier(&self, index: usize) -> Option<u32> {
        self.model.group.members().get(index).map(|member| member.tier)
    }

    fn candidate(&self, index: usize) -> Value {
        let route = &self.model.routes[index];
        let mut candidate = json!({
            "endpoint_id": &*route.endpoint.id,
            "upstream_model": route.upstream_model.as_deref(),
            "weight": route.weight,
            "tier": self.tier(index),
            "verdict": self.verdict(index),
        });
        if let (Value::Object(members), Some(state)) = (&mut candidate, self.state(index)) {
            members.extend(state_of(state));
        }
        candidate
    }

    fn verdict(&self, index: usize) -> &'static str {
        let endpoint = &self.model.routes[index].endpoint;
        let is_higher = self.last.is_some_and(|last| self.tier(index) > self.tier(last));
        match self.state(index) {
            _ if self.last == Some(index) => "chosen",
            _ if self.call.call_trace.attempts().iter().any(|attempt| usize::from(attempt.route) == index) => "tried",
            _ if !self.call.key.ceiling.is_subset_of(&endpoint.cleared) => "not_cleared",
            _ if endpoint.operations & 1 << self.call.operation as u32 == 0 => "other_operation",
            _ if endpoint.target.is_err() => "unusable",
            Some(state) if state.is_out => "unhealthy",
            Some(state) if !state.has_room => "saturated",
            _ if is_higher => "higher_tier",
            Some(state) if state.is_over_bound => "over_bound",
            _ => "not_picked",
        }
    }
}

fn state_of(state: &RouteState) -> Map<String, Value> {
    let engine = state.engine_load.map(|figures| {
        let kv_cache_used = figures.kv_permille.map(|permille| f64::from(permille) / 1000.0);
        json!({ "running": figures.running, "waiting": figures.waiting, "kv_cache_used": kv_cache_used })
    });
    let pairs = [
        ("state", state_name(state.state).into()),
        ("slow_start", state.weight_part.into()),
        ("running", state.running.into()),
        ("waiting", state.waiting.into()),
        ("first_token_us", state.first_token_us.into()),
        ("engine", engine.into()),
        ("score", state.score.into()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

const fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Weighted => "weighted",
        Strategy::LeastOutstanding => "least_outstanding",
        Strategy::Latency => "latency",
        Strategy::Cost => "cost",
        Strategy::Session => "session",
        Strategy::Prefix => "prefix",
        Strategy::Engine => "engine",
    }
}

fn attempts(call: &CompletedCall) -> Vec<Value> {
    let endpoint = |route: u8| call.model.as_ref().and_then(|model| Some(&*model.routes.get(usize::from(route))?.endpoint.id));
    let attempts = call.call_trace.attempts().iter().map(|attempt| {
        json!({
            "endpoint_id": endpoint(attempt.route),
            "began_us": attempt.began_us,
            "took_us": attempt.took_us,
            "status": (attempt.status > 0).then_some(attempt.status),
            "code": attempt.code.map(ProblemCode::text),
            "connection": if attempt.kept_connection { "kept" } else { "new" },
        })
    });
    attempts.collect()
}

fn source_name(source: UsageSource) -> String {
    source.as_str_name().trim_start_matches("USAGE_SOURCE_").to_ascii_lowercase()
}
