//! How the connection to the control plane is doing, for `/readyz` and metrics.

use crate::delays::Delays;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use tenon_snapshot::SyncStats;

#[derive(Debug, Default)]
pub struct ControlStatus {
    pub connected: AtomicBool,
    pub shipping: AtomicBool,
    pub delays: Delays,
    /// Which updates were received, and which of them were rejected.
    pub sync_stats: Arc<SyncStats>,
    connection_error: Mutex<String>,
}

impl ControlStatus {
    pub(crate) fn new(sync_stats: Arc<SyncStats>) -> Self {
        Self { sync_stats, ..Self::default() }
    }

    /// Why there is no connection. Empty while there is one, and before the first attempt.
    pub fn connection_error(&self) -> String {
        self.connection_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the reason differs from the one before.
    pub(crate) fn set_connection_error(&self, reason: &str) -> bool {
        let mut connection_error = self.connection_error.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *connection_error != reason;
        reason.clone_into(&mut connection_error);
        is_new
    }

    pub(crate) fn clear_connection_error(&self) {
        self.connection_error.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
