//! What operators see of calls: metrics, traces, logs and explanations.

pub mod retry_reason;
pub mod metrics;
pub mod trace_context;
pub mod call_trace;
pub mod explain;
pub mod request_log;
pub mod access_log;
