//! What is known of a request from the start and does not change.

use crate::observe::trace_context::TraceContext;
use http::HeaderValue;
use std::time::Instant;
use tenon_dialects::Dialect;
use tenon_usage::{Operation, RecordId};

pub struct RequestInfo {
    pub id: RecordId,
    /// The id as it is sent to the caller and to the endpoint.
    pub id_header: HeaderValue,
    pub trace: TraceContext,
    pub started: Instant,
    pub started_unix_us: i64,
    pub operation: Operation,
    /// What the caller speaks.
    pub dialect: Dialect,
    /// `gen_ai.operation.name` of its spans.
    pub span_name: &'static str,
    pub streamed: bool,
}

impl RequestInfo {
    pub fn started_unix_seconds(&self) -> u64 {
        u64::try_from(self.started_unix_us / 1_000_000).unwrap_or(0)
    }
}
