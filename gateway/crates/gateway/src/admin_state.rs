//! The state that the admin pages show, and whether the gateway is ready.

use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tenon_control::ControlStatus;
use tenon_proxy::{SharedState, WhenLogFull};

/// The state that the pages show.
pub struct AdminState {
    pub shared: SharedState,
    pub control: Arc<ControlStatus>,
    pub started_unix_ms: i64,
    /// The value of every variable, as JSON.
    pub config: String,
}

impl AdminState {
    fn trouble(&self) -> String {
        let trouble = self.control.connection_error();
        if trouble.is_empty() { trouble } else { format!(" ({trouble})") }
    }

    /// `ready`, `stale` (serving from the last known good snapshot) or not ready.
    pub fn readiness(&self) -> (StatusCode, String) {
        let known = self.shared.snapshots.load().is_known();
        let full = self.shared.log.stats.is_full.load(Relaxed);
        match (known, self.control.connected.load(Relaxed)) {
            (true, _) if full && self.shared.limits.when_log_full == WhenLogFull::Refuse => {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready: the usage log is full, so calls are refused\n".to_owned())
            }
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: no snapshot from the control plane yet{}\n", self.trouble())),
            (true, true) if self.control.sync_stats.is_refusing.load(Relaxed) => {
                (StatusCode::OK, "stale: the control plane sent an older snapshot than the served one, so the served one stays\n".to_owned())
            }
            (true, true) => (StatusCode::OK, "ready\n".to_owned()),
            (true, false) => (StatusCode::OK, format!("stale: serving from the last known good snapshot{}\n", self.trouble())),
        }
    }
}
