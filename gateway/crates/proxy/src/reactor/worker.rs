//! What one reactor holds. Nothing in it is shared with another thread but through atomics.

use crate::base::limits::{BodyMemory, Limits};
use crate::observe::access_log::{AccessLog, Entry};
use crate::observe::call_trace::{CompletedCall, CompletedCalls};
use crate::observe::metrics::{Metrics, ThreadMetrics};
use crate::observe::request_log::RequestLog;
use crate::reactor::caller_connection::CallerConnection;
use crate::reactor::in_flight::InFlightCall;
use crate::reactor::slots::Slots;
use crate::reactor::tls_listener::TlsListener;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;
use tenon_balance::Registry;
use tenon_control::Asker;
use tenon_limits as limits;
use tenon_policy::{Forgeries, Moment, VerifiedTokens};
use tenon_snapshot::{Freshness, Network, Shared as Snapshots, unix_ms};
use tenon_telemetry::Spans;
use tenon_upstream::pool::ConnectionPools;
use tenon_upstream::trust_store::TrustStore;
use tenon_usage::{Lane, Log};

/// What all reactors share.
#[derive(Clone)]
pub struct Shared {
    pub snapshots: Snapshots,
    pub freshness: Arc<Freshness>,
    pub asker: Asker,
    pub log: Arc<Log>,
    /// Limits and hard budgets.
    pub registry: Arc<limits::Registry>,
    pub limits: Limits,
    pub body_memory: BodyMemory,
    /// What is known of endpoints at run time.
    pub balance: Arc<Registry>,
    pub trust: Arc<TrustStore>,
    pub metrics: Metrics,
    /// `None` = nobody wants spans.
    pub spans: Option<Spans>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[Network]>,
    /// The last calls, for `explain`.
    pub completed_calls: CompletedCalls,
    /// `None` = nobody wants a sample.
    pub request_log: Option<RequestLog>,
    /// `None` = callers speak plain HTTP.
    pub tls_listener: Option<Arc<TlsListener>>,
}

pub struct Worker {
    pub snapshots: Snapshots,
    pub freshness: Arc<Freshness>,
    pub asker: Asker,
    pub lane: Lane,
    pub registry: Arc<limits::Registry>,
    pub limits: Limits,
    pub body_memory: BodyMemory,
    pub pools: ConnectionPools,
    pub calls: Slots<InFlightCall>,
    pub connections: Slots<CallerConnection>,
    pub spans: Option<Spans>,
    pub trusted_proxies: Arc<[Network]>,
    pub verified_tokens: RefCell<VerifiedTokens>,
    pub forgeries: RefCell<Forgeries>,
    pub completed_calls: CompletedCalls,
    pub request_log: Option<RequestLog>,
    pub tls_listener: Option<Arc<TlsListener>>,
    /// Answers that are read on after their caller left.
    pub drains: Cell<usize>,
    /// Connections over the limit that are being told so.
    pub refusing: Cell<usize>,
    access_log: AccessLog,
    metrics: Metrics,
    index: usize,
    /// Set by the sweep: some milliseconds old, free to read.
    clock: Cell<Instant>,
    moment: Cell<Moment>,
    balance: Arc<Registry>,
    balance_ms: Cell<u64>,
}

impl Worker {
    pub fn new(shared: &Shared, index: usize) -> Self {
        Self {
            snapshots: shared.snapshots.clone(),
            freshness: shared.freshness.clone(),
            asker: shared.asker.clone(),
            lane: shared.log.lane(),
            registry: shared.registry.clone(),
            limits: shared.limits,
            body_memory: shared.body_memory.clone(),
            pools: ConnectionPools::new(shared.trust.clone(), shared.limits.pool_idle_max),
            calls: Slots::default(),
            connections: Slots::default(),
            spans: shared.spans.clone(),
            trusted_proxies: shared.trusted_proxies.clone(),
            verified_tokens: RefCell::default(),
            forgeries: RefCell::new(Forgeries::new(shared.limits.forged_tokens_per_second)),
            completed_calls: shared.completed_calls.clone(),
            request_log: shared.request_log.clone(),
            tls_listener: shared.tls_listener.clone(),
            drains: Cell::new(0),
            refusing: Cell::new(0),
            access_log: AccessLog::new(Instant::now()),
            metrics: shared.metrics.clone(),
            index,
            clock: Cell::new(Instant::now()),
            moment: Cell::new(Moment::now(&shared.freshness, unix_ms(), shared.limits.staleness_max)),
            balance: shared.balance.clone(),
            balance_ms: Cell::new(shared.balance.ms(Instant::now())),
        }
    }

    pub fn metrics(&self) -> &ThreadMetrics {
        &self.metrics[self.index]
    }

    pub fn log(&self, entry: &Entry<'_>) {
        self.access_log.write(entry, self.clock(), self.metrics());
    }

    pub fn keep_completed(&self, call: CompletedCall) {
        self.completed_calls.keep(self.index, call);
    }

    pub fn clock(&self) -> Instant {
        self.clock.get()
    }

    /// The time as limits and leases count it, as of the last sweep.
    pub fn limits_now(&self) -> u64 {
        self.registry.micros(self.clock())
    }

    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.clock.set(now);
        self.balance_ms.set(self.balance.ms(now));
        self.moment.set(Moment::now(&self.freshness, unix_ms(), self.limits.staleness_max));
        now
    }

    /// As of the last sweep, by the clock of `balance`.
    pub fn balance_ms(&self) -> u64 {
        self.balance_ms.get()
    }

    /// As of the last sweep: expiry and staleness are matters of seconds, reading three clocks a request is not free.
    pub fn moment(&self) -> Moment {
        self.moment.get()
    }
}
