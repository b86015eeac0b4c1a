//! Where a thread reports its calls: metrics, access log, spans, completed calls, request log.

use crate::observe::access_log::{AccessLog, Entry};
use crate::observe::call_trace::CompletedCall;
use crate::observe::metrics::ThreadMetrics;
use crate::observe::request_log::RequestLog;
use crate::reactor::shared::SharedState;
use std::sync::Arc;
use std::time::Instant;
use tenon_telemetry::Spans;

pub struct Observers {
    shared: Arc<SharedState>,
    access_log: AccessLog,
    /// The thread's number.
    index: usize,
}

impl Observers {
    pub fn new(shared: Arc<SharedState>, index: usize) -> Self {
        Self { shared, access_log: AccessLog::new(Instant::now()), index }
    }

    pub fn metrics(&self) -> &ThreadMetrics {
        &self.shared.metrics[self.index]
    }

    pub fn log(&self, entry: &Entry<'_>, now: Instant) {
        self.access_log.write(entry, now, self.metrics());
    }

    /// `None` = spans are not exported.
    pub fn spans(&self) -> Option<&Spans> {
        self.shared.spans.as_ref()
    }

    /// `None` = no sample of the calls is logged.
    pub fn request_log(&self) -> Option<&RequestLog> {
        self.shared.request_log.as_ref()
    }

    /// Completed calls are kept for `explain`.
    pub fn keeps_calls(&self) -> bool {
        self.shared.completed_calls.are_kept()
    }

    pub fn keep(&self, call: CompletedCall) {
        self.shared.completed_calls.keep(self.index, call);
    }
}
