//! Counts which updates the control plane sent and which of them were rejected. Then the old data stays in force, or
//! the part is left out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Why an update, or a part of it, was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A message that cannot be read. Everything known stays in force.
    Unreadable,
    /// A full snapshot of the same origin, older than what is served. Everything known stays in force.
    Older,
    /// A type of change that this version does not know. It is left out.
    Unknown,
    /// A key's record. The key counts as revoked.
    Key,
    /// An endpoint. It is not used.
    Endpoint,
    /// An issuer. Its tokens are not trusted.
    Issuer,
}

/// Labels, in the order of [`Rejection`].
pub const REJECTIONS: [&str; 6] = ["unreadable", "older", "unknown", "key", "endpoint", "issuer"];

#[derive(Debug, Default)]
pub struct SyncStats {
    pub rejected: [AtomicU64; REJECTIONS.len()],
    /// The newest revision that was received, applied or not.
    pub revision: AtomicU64,
    /// The last full snapshot was refused, and none has come since.
    pub is_refusing: AtomicBool,
}

impl SyncStats {
    pub fn count_rejected(&self, why: Rejection, count: usize) {
        self.rejected[why as usize].fetch_add(count as u64, Relaxed);
    }
}
