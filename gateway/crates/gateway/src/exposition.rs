//! Metrics in the Prometheus text format (0.0.4). Labels are fixed lists, so callers cannot raise the cardinality.
//!
//! [`Page`] is written by hand, because the counters are plain atomics of each reactor that are summed here. `prometheus-client` 0.26 keeps
//! atomics of its own, shared by all threads. It adds 7 crates to the process's 156 and writes OpenMetrics instead of this format.

use crate::admin_state::AdminState;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use tenon_balance::{EndpointState, HealthState};
use tenon_control::{DELAY_BUCKETS, Delays};
use tenon_problem::ProblemCode;
use tenon_proxy::observe::metrics::{BUCKETS, CLASSES, FAILURES, Histogram, OPERATIONS, OUTCOMES, TOKENS, ThreadMetrics};
use tenon_proxy::observe::retry_reason::RETRIES;
use tenon_snapshot::REJECTIONS;

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = if labels.is_empty() { writeln!(self.0, "{name} {value}") } else { writeln!(self.0, "{name}{{{labels}}} {value}") };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }
}

pub fn exposition(state: &AdminState) -> String {
    let threads = &state.shared.metrics;
    let mut page = Page(String::with_capacity(16 << 10));
    requests(&mut page, threads);
    calls(&mut page, threads);
    histogram(&mut page, threads, "tenon_gateway_call_duration_seconds", "From arrival to settlement of a call.", |t| &t.duration);
    histogram(&mut page, threads, "tenon_gateway_first_token_seconds", "From arrival to the first byte of the answer's body.", |t| &t.first_token);
    let help = "Time that calls waited for a saturated endpoint, of those that did.";
    histogram(&mut page, threads, "tenon_gateway_queue_wait_seconds", help, |t| &t.queue_wait);
    endpoints(&mut page, state);
    process(&mut page, state);
    limits(&mut page, state);
    delays(&mut page, &state.control.delays);
    request_log(&mut page, state);
    tls(&mut page, state);
    telemetry(&mut page, state);
    page.0
}

fn sum(threads: &[ThreadMetrics], of: impl Fn(&ThreadMetrics) -> &AtomicU64) -> u64 {
    threads.iter().map(|thread| of(thread).load(Relaxed)).sum()
}

fn requests(page: &mut Page, threads: &[ThreadMetrics]) {
    let name = "tenon_gateway_requests_total";
    page.head(name, "counter", "Requests by operation and class of the answer's status.");
    for (i, operation) in OPERATIONS.iter().enumerate() {
        for (j, class) in CLASSES.iter().enumerate() {
            page.line(name, &format!("operation=\"{operation}\",class=\"{class}\""), sum(threads, |t| &t.requests[i][j]));
        }
    }
    labelled(page, threads, "tenon_gateway_refusals_total", "Refused requests by code.", "code", &ProblemCode::TEXTS, |t| &t.refusals.0);
}

fn calls(page: &mut Page, threads: &[ThreadMetrics]) {
    labelled(page, threads, "tenon_gateway_calls_total", "Settled calls by outcome.", "outcome", &OUTCOMES, |t| &t.outcomes);
    labelled(page, threads, "tenon_gateway_tokens_total", "Tokens by kind, as engines count them.", "kind", &TOKENS, |t| &t.tokens);
    let help = "Failed upstream attempts by stage.";
    labelled(page, threads, "tenon_gateway_upstream_failures_total", help, "at", &FAILURES, |t| &t.failures);
    let help = "Calls served without a record because the usage log was full.";
    page.one("tenon_gateway_calls_unmetered_total", "counter", help, sum(threads, |t| &t.unmetered));
    page.one("tenon_gateway_connections_refused_total", "counter", "Connections refused above the limit.", sum(threads, |t| &t.connections_refused));
    let help = "Answers read to their end for their usage after their caller aborted.";
    page.one("tenon_gateway_aborts_drained_total", "counter", help, sum(threads, |t| &t.drained));
    let help = "Callers disconnected because they did not read their answer.";
    page.one("tenon_gateway_callers_stalled_total", "counter", help, sum(threads, |t| &t.callers_stalled));
    labelled(page, threads, "tenon_gateway_retries_total", "Attempts after a failed one, by reason.", "reason", &RETRIES, |t| &t.retries);
    page.one("tenon_gateway_connections", "gauge", "Callers' connections.", sum(threads, |t| &t.connections));
    page.one("tenon_gateway_calls_running", "gauge", "Running calls.", sum(threads, |t| &t.calls));
}

fn labelled<const N: usize>(
    page: &mut Page,
    threads: &[ThreadMetrics],
    name: &str,
    help: &str,
    label: &str,
    values: &[&str; N],
    of: impl Fn(&ThreadMetrics) -> &[AtomicU64; N],
) {
    page.head(name, "counter", help);
    for (i, value) in values.iter().enumerate() {
        page.line(name, &format!("{label}=\"{value}\""), sum(threads, |t| &of(t)[i]));
    }
}

fn histogram(page: &mut Page, threads: &[ThreadMetrics], name: &str, help: &str, of: impl Fn(&ThreadMetrics) -> &Histogram) {
    page.head(name, "histogram", help);
    let mut count = 0;
    for i in 0..=BUCKETS.len() {
        count += sum(threads, |t| &of(t).buckets[i]);
        let bound = BUCKETS.get(i).map_or("+Inf".to_owned(), f64::to_string);
        page.line(&format!("{name}_bucket"), &format!("le=\"{bound}\""), count);
    }
    #[allow(clippy::cast_precision_loss)] // a sum of microseconds: the last digits do not matter
    page.line(&format!("{name}_sum"), "", sum(threads, |t| &of(t).sum_us) as f64 / 1e6);
    page.line(&format!("{name}_count"), "", count);
}

fn process(page: &mut Page, state: &AdminState) {
    let (shared, control) = (&state.shared, &state.control);
    let stats = &shared.log.stats;
    page.head("tenon_gateway_build_info", "gauge", "Always 1; the labels have the version.");
    page.line("tenon_gateway_build_info", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1);
    page.one("tenon_gateway_process_id", "gauge", "Distinguishes two processes that share an address during a restart.", std::process::id());
    page.one("tenon_gateway_start_time_seconds", "gauge", "When the process started, Unix time.", state.started_unix_ms / 1000);
    page.one("tenon_gateway_revision", "gauge", "Revision that is served.", shared.snapshots.load().revision);
    let help = "Newest revision received from the control plane. Above the served one for longer than a moment, an update was rejected.";
    page.one("tenon_gateway_revision_received", "gauge", help, control.sync_stats.revision.load(Relaxed));
    let name = "tenon_gateway_snapshot_rejected_total";
    page.head(name, "counter", "Rejected updates of the control plane, by reason; the previous state stays, or the part is left out.");
    for (reason, count) in REJECTIONS.iter().zip(&control.sync_stats.rejected) {
        page.line(name, &format!("reason=\"{reason}\""), count.load(Relaxed));
    }
    let unusable: usize = shared.snapshots.load().routings().map(|table| table.unusable()).sum();
    page.one("tenon_gateway_endpoints_unusable", "gauge", "Endpoints of the served tables that cannot be used.", unusable);
    page.one("tenon_gateway_control_connected", "gauge", "1 while updates arrive.", u8::from(control.connected.load(Relaxed)));
    let age = shared.freshness.age().map_or(-1.0, |age| age.as_secs_f64());
    page.one(
        "tenon_gateway_control_contact_age_seconds",
        "gauge",
        "Time since the last contact with the control plane; -1 = none by this process.",
        age,
    );
    page.one("tenon_gateway_body_bytes", "gauge", "Memory of request bodies.", shared.body_memory.load(Relaxed));
    page.one("tenon_gateway_wal_bytes", "gauge", "Size of the usage log on disk.", shared.log.bytes());
    page.one("tenon_gateway_wal_segments", "gauge", "Segments of the usage log on disk.", stats.segments.load(Relaxed));
    page.one("tenon_gateway_wal_backlog_records", "gauge", "Settled calls that are not acknowledged.", shared.log.backlog());
    page.one("tenon_gateway_wal_shipped_total", "counter", "Usage records acknowledged by the control plane.", stats.shipped.load(Relaxed));
    page.one("tenon_gateway_wal_full", "gauge", "1 while the log is full.", u8::from(stats.is_full.load(Relaxed)));
    page.one("tenon_gateway_wal_sync_errors_total", "counter", "Failed syncs of the log.", stats.sync_errors.load(Relaxed));
    page.one("tenon_gateway_wal_allocation_errors_total", "counter", "Segments that could not be created.", stats.allocation_errors.load(Relaxed));
}

/// The delay of revocations and other changes: from the commit in the control plane's database until they apply to calls.
fn delays(page: &mut Page, delays: &Delays) {
    let name = "tenon_gateway_revision_delay_seconds";
    let help =
        "From a change's commit (the database's clock) until it applies here (this machine's clock); it includes the difference of the clocks.";
    page.head(name, "histogram", help);
    let mut count = 0;
    for (i, bucket) in delays.buckets.iter().enumerate() {
        count += bucket.load(Relaxed);
        let bound = DELAY_BUCKETS.get(i).map_or("+Inf".to_owned(), f64::to_string);
        page.line(&format!("{name}_bucket"), &format!("le=\"{bound}\""), count);
    }
    #[allow(clippy::cast_precision_loss)] // a sum of milliseconds: the last digits do not matter
    page.line(&format!("{name}_sum"), "", delays.sum_ms.load(Relaxed) as f64 / 1e3);
    page.line(&format!("{name}_count"), "", count);
}

fn request_log(page: &mut Page, state: &AdminState) {
    let Some(log) = &state.shared.request_log else {
        return;
    };
    page.one("tenon_gateway_request_log_written_total", "counter", "Lines of the request log.", log.counts.written.load(Relaxed));
    let help = "Lines dropped because the queue was full or the disk failed.";
    page.one("tenon_gateway_request_log_dropped_total", "counter", help, log.counts.dropped.load(Relaxed));
}

fn tls(page: &mut Page, state: &AdminState) {
    let trust = &state.shared.trust;
    page.one("tenon_gateway_upstream_ca_reloads_total", "counter", "Authorities for endpoints read again.", trust.reloads.load(Relaxed));
    let help = "Authorities for endpoints that could not be used; the ones before stay.";
    page.one("tenon_gateway_upstream_ca_reload_failures_total", "counter", help, trust.reload_failures.load(Relaxed));
    let Some(tls) = &state.shared.tls_listener else {
        return;
    };
    page.one("tenon_gateway_tls_reloads_total", "counter", "Certificates read again.", tls.reloads.load(Relaxed));
    let help = "Certificates that could not be used; the one before stays.";
    page.one("tenon_gateway_tls_reload_failures_total", "counter", help, tls.reload_failures.load(Relaxed));
    page.one("tenon_gateway_tls_handshake_failures_total", "counter", "Handshakes that failed.", tls.handshake_failures.load(Relaxed));
}

/// Sums over all tenants: labels for tenants would be unbounded.
fn limits(page: &mut Page, state: &AdminState) {
    let registry = &state.shared.limit_registry;
    let (leases, left) = registry.lease_sums(registry.micros(std::time::Instant::now()));
    let stats = &registry.stats;
    let (limits, without) = registry.limit_counts();
    page.one("tenon_gateway_limits", "gauge", "Limits that are counted here.", limits);
    page.one("tenon_gateway_limits_without_share", "gauge", "Limits without a share yet: a quarter is assumed.", without);
    page.one(
        "tenon_gateway_leases_connected",
        "gauge",
        "1 while the control plane answers about leases and shares.",
        u8::from(registry.connected.load(Relaxed)),
    );
    page.one("tenon_gateway_leases", "gauge", "Leases on hard budgets that are held.", leases);
    page.one("tenon_gateway_lease_left_nano", "gauge", "Their amount that is not reserved, in nano-units of their currencies.", left);
    page.one("tenon_gateway_leases_granted_total", "counter", "Leases that were granted.", stats.leases_granted.load(Relaxed));
    page.one("tenon_gateway_leases_closed_total", "counter", "Leases that were returned or used up.", stats.leases_closed.load(Relaxed));
    page.one("tenon_gateway_overdrafts_total", "counter", "Calls that cost more than was reserved for them.", stats.overdrafts.load(Relaxed));
    page.one("tenon_gateway_overdraft_nano_total", "counter", "Amount above the reservations, in nano-units.", stats.overdraft_nano.load(Relaxed));
    let help = "Calls with unknown usage, which keep their reservation.";
    page.one("tenon_gateway_reservations_kept_total", "counter", help, stats.reservations_kept.load(Relaxed));
}

fn telemetry(page: &mut Page, state: &AdminState) {
    let help = "Log lines about failed or unusual calls above the limit of a second.";
    page.one("tenon_gateway_log_lines_suppressed_total", "counter", help, sum(&state.shared.metrics, |t| &t.log_entries_suppressed));
    let Some(spans) = &state.shared.spans else {
        return;
    };
    let name = "tenon_gateway_spans_dropped_total";
    page.one("tenon_gateway_spans_exported_total", "counter", "Spans that the collector accepted.", spans.counts.exported.load(Relaxed));
    page.head(name, "counter", "Dropped spans, by reason.");
    page.line(name, "reason=\"queue_full\"", spans.counts.dropped_queue_full.load(Relaxed));
    page.line(name, "reason=\"send_failed\"", spans.counts.dropped_send_failed.load(Relaxed));
}

/// At most so many endpoints are listed, to bound the size of a scrape.
const ENDPOINTS_MAX: usize = 200;

fn endpoints(page: &mut Page, state: &AdminState) {
    let balance = &state.shared.endpoint_registry;
    let now = balance.ms(std::time::Instant::now());
    let mut all = balance.endpoints();
    all.truncate(ENDPOINTS_MAX);
    let states = [HealthState::Closed, HealthState::HalfOpen, HealthState::Open, HealthState::Paused, HealthState::Down];
    let number = |state: HealthState| states.iter().position(|known| *known == state).unwrap_or(0);
    let help = "Health of an endpoint: 0 healthy, 1 on trial, 2 breaker open, 3 paused by its own request or for its credential, 4 down.";
    of_endpoints(page, &all, "tenon_gateway_endpoint_state", help, |e| Some(number(e.health_state(now))));
    let help = "Calls that run at the endpoint's server, of all endpoints that share it.";
    of_endpoints(page, &all, "tenon_gateway_endpoint_calls_running", help, |e| Some(e.capacity.running()));
    let help = "Calls that wait for the endpoint's server.";
    of_endpoints(page, &all, "tenon_gateway_endpoint_queue_length", help, |e| Some(e.capacity.waiting()));
    let help = "Calls of all callers that run in the engine, as its metrics_url reported last; left out when that is too long ago.";
    of_endpoints(page, &all, "tenon_gateway_engine_calls_running", help, |e| Some(e.engine_load(now)?.running));
    let help = "Calls of all callers that wait in the engine, as it reported.";
    of_endpoints(page, &all, "tenon_gateway_engine_calls_waiting", help, |e| Some(e.engine_load(now)?.waiting));
    let help = "Used share of the engine's KV cache, as it reported.";
    of_endpoints(page, &all, "tenon_gateway_engine_cache_usage_ratio", help, |e| Some(f64::from(e.engine_load(now)?.kv_permille?) / 1_000.0));
}

fn of_endpoints<T: std::fmt::Display>(page: &mut Page, all: &[Arc<EndpointState>], name: &str, help: &str, of: impl Fn(&EndpointState) -> Option<T>) {
    page.head(name, "gauge", help);
    for endpoint in all {
        if let Some(value) = of(endpoint) {
            page.line(name, &format!("endpoint_id=\"{}\"", endpoint.id), value);
        }
    }
}
