//! What the control plane told, and what of it could not be taken in: the old stays in force then, or the part is left out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Why something was not taken in as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A message that cannot be read. All that was known stays.
    Unreadable,
    /// A full snapshot of the same history, older than what is served. All that was known stays.
    Older,
    /// A kind of change that this version does not know. It is left out.
    Unknown,
    /// A key's record. The key counts as revoked.
    Key,
    /// An endpoint. It is not used.
    Endpoint,
    /// An issuer. Its tokens are not believed.
    Issuer,
}

/// Labels, in the order of [`Rejection`].
pub const REJECTIONS: [&str; 6] = ["unreadable", "older", "unknown", "key", "endpoint", "issuer"];

#[derive(Debug, Default)]
pub struct Heard {
    pub rejected: [AtomicU64; REJECTIONS.len()],
    /// The newest revision that was told, taken in or not.
    pub revision: AtomicU64,
    /// The last full snapshot was refused, and none has come since.
    pub is_refusing: AtomicBool,
}

impl Heard {
    pub fn rejects(&self, why: Rejection, count: usize) {
        self.rejected[why as usize].fetch_add(count as u64, Relaxed);
    }
}
