//! How the connection to the control plane is doing, for `/readyz` and metrics.

use crate::delays::Delays;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use tenon_snapshot::Heard;

#[derive(Debug, Default)]
pub struct Status {
    pub connected: AtomicBool,
    pub shipping: AtomicBool,
    pub delays: Delays,
    /// Which updates were received, and which of them were rejected.
    pub heard: Arc<Heard>,
    trouble: Mutex<String>,
}

impl Status {
    pub(crate) fn new(heard: Arc<Heard>) -> Self {
        Self { heard, ..Self::default() }
    }

    /// Why there is no connection. Empty while there is one, and before the first attempt.
    pub fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the reason differs from the one before.
    pub(crate) fn set_trouble(&self, reason: &str) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *trouble != reason;
        reason.clone_into(&mut trouble);
        is_new
    }

    pub(crate) fn clear_trouble(&self) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
