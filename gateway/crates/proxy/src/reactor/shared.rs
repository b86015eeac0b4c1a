//! What all reactors share: set up once, then read by every thread.

use crate::base::limits::{BodyMemory, Limits};
use crate::observe::call_trace::CompletedCalls;
use crate::observe::metrics::Metrics;
use crate::observe::request_log::RequestLog;
use crate::reactor::tls_listener::TlsListener;
use std::sync::Arc;
use tenon_balance::EndpointRegistry;
use tenon_control::KeyResolver;
use tenon_limits::LimitRegistry;
use tenon_snapshot::{Freshness, Network, SharedSnapshot};
use tenon_telemetry::Spans;
use tenon_upstream::trust_store::TrustStore;
use tenon_usage::Log;

#[derive(Clone)]
pub struct SharedState {
    pub snapshots: SharedSnapshot,
    pub freshness: Arc<Freshness>,
    pub key_resolver: KeyResolver,
    pub log: Arc<Log>,
    /// Limits and hard budgets.
    pub limit_registry: Arc<LimitRegistry>,
    pub limits: Limits,
    pub body_memory: BodyMemory,
    /// Health, load and latency of endpoints.
    pub endpoint_registry: Arc<EndpointRegistry>,
    pub trust: Arc<TrustStore>,
    pub metrics: Metrics,
    /// `None` = spans are not exported.
    pub spans: Option<Spans>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[Network]>,
    /// The last calls, for `explain`.
    pub completed_calls: CompletedCalls,
    /// `None` = no sample of the calls is logged.
    pub request_log: Option<RequestLog>,
    /// `None` = callers connect without TLS.
    pub tls_listener: Option<Arc<TlsListener>>,
}
