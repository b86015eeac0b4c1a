//! One lease: a part of a budget that only this process may spend, until a deadline by the monotonic clock.
//!
//! Invariant, at every moment and interleaving: `left + spent + (what running calls reserved) = amount`. A reservation
//! only takes from `left`, and only if it fits, so what is spent stays within the amount. The exception is an upstream
//! that uses more than the upper bound that was reserved for it. Then `left` goes below zero, nothing more is reserved,
//! and the overdraft is counted.

use crate::atomics::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// In `left`: nothing can be reserved any more.
const CLOSED: i64 = i64::MIN;

#[derive(Debug)]
#[repr(align(128))]
pub struct Lease {
    left: AtomicI64,
    spent: AtomicI64,
    /// Microseconds of the registry's clock.
    deadline_us: AtomicU64,
    /// The control plane ended the lease: running calls settle, no call begins.
    stopped: AtomicBool,
    pub amount: i64,
    pub id: Box<str>,
}

impl Lease {
    #[must_use]
    pub fn new(id: &str, amount: i64, deadline_us: u64) -> Self {
        let amount = amount.max(0);
        Self {
            left: AtomicI64::new(amount),
            spent: AtomicI64::new(0),
            deadline_us: AtomicU64::new(deadline_us),
            stopped: AtomicBool::new(false),
            amount,
            id: id.into(),
        }
    }

    /// What may still be reserved now.
    #[must_use]
    pub fn left(&self, now_us: u64) -> i64 {
        if self.is_over(now_us) { 0 } else { self.left.load(Ordering::Acquire).max(0) }
    }

    #[must_use]
    pub fn is_over(&self, now_us: u64) -> bool {
        now_us >= self.deadline_us.load(Ordering::Acquire) || self.stopped.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn deadline_us(&self) -> u64 {
        self.deadline_us.load(Ordering::Acquire)
    }

    pub fn extend(&self, deadline_us: u64) {
        self.deadline_us.fetch_max(deadline_us, Ordering::AcqRel);
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Takes `nano` for a call, if that much is left and the lease is still valid.
    #[must_use]
    pub fn reserve(&self, nano: i64, now_us: u64) -> bool {
        let fits = |left: i64| (left >= nano && left != CLOSED).then(|| left - nano);
        nano >= 0 && !self.is_over(now_us) && self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// The call that reserved `reserved` cost `charge`.
    ///
    /// `left` must change first, so that a concurrent reader never sees more than the amount.
    pub fn settle(&self, reserved: i64, charge: i64) {
        self.left.fetch_add(reserved - charge, Ordering::AcqRel);
        self.spent.fetch_add(charge, Ordering::AcqRel);
    }

    /// Ends the lease if no call runs on it, and returns what was spent. Afterwards nothing can be reserved.
    #[must_use]
    pub fn close(&self) -> Option<i64> {
        let spent = self.spent.load(Ordering::Acquire);
        // A running call makes `left + spent` smaller than `amount`, and so does a settlement between the two reads.
        let idle = self.amount - spent;
        self.left.compare_exchange(idle, CLOSED, Ordering::AcqRel, Ordering::Acquire).ok().map(|_| spent)
    }

    #[must_use]
    pub fn spent(&self) -> i64 {
        self.spent.load(Ordering::Acquire)
    }

    /// What running calls have reserved. Read separately from `spent`, so it is only good for reports.
    #[must_use]
    pub fn reserved(&self) -> i64 {
        let left = self.left.load(Ordering::Acquire);
        if left == CLOSED { 0 } else { (self.amount - left - self.spent.load(Ordering::Acquire)).max(0) }
    }
}
