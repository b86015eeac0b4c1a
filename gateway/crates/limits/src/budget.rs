//! A hard budget in this process: its leases, what calls wait for, and the control plane's last response.
//!
//! All reservations lie within leases, and the sum of all leases is at most the budget. So no request needs a round
//! trip, and no number of processes can overspend. Without a lease there is no call.

use crate::lease::Lease;
use crate::notify::{VersionWatch, lock};
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tenon_contract as wire;
use tenon_contract::Subject;

/// Parts of leases that one call may use: each is stored in its usage record.
pub const LEASE_PARTS_MAX: usize = 16;
/// A request without a response is repeated after this time.
const REPEAT_REQUEST_US: u64 = 2_000_000;

#[derive(Debug)]
pub struct Budget {
    pub id: Box<str>,
    pub currency: Box<str>,
    pub subject: Subject,
    leases: ArcSwap<Vec<Arc<Lease>>>,
    /// The largest amount that a call waits for.
    requested: AtomicI64,
    /// What is left will not last.
    is_low: AtomicBool,
    /// Amount of the last lease: half of it is the low-water mark.
    slice: AtomicI64,
    last_used_us: AtomicU64,
    /// The control plane denied a lease: another request makes no sense before this.
    denied_until_us: AtomicU64,
    /// What the whole budget had left then.
    denied_remaining: AtomicI64,
    /// When the request without a response was sent.
    request_sent_us: Mutex<Option<u64>>,
    pub changes: VersionWatch,
}

/// A part of a lease that a call has reserved.
#[derive(Clone, Debug)]
pub struct LeasePart {
    pub lease: Arc<Lease>,
    pub nano: i64,
}

impl Budget {
    #[must_use]
    pub fn new(wire: &wire::Budget) -> Self {
        Self {
            id: wire.budget_id.as_str().into(),
            currency: wire.currency.as_str().into(),
            subject: wire.subject(),
            leases: ArcSwap::default(),
            requested: AtomicI64::new(0),
            is_low: AtomicBool::new(false),
            slice: AtomicI64::new(0),
            last_used_us: AtomicU64::new(0),
            denied_until_us: AtomicU64::new(0),
            denied_remaining: AtomicI64::new(0),
            request_sent_us: Mutex::default(),
            changes: VersionWatch::default(),
        }
    }

    /// What one call could reserve now from all leases.
    #[must_use]
    pub fn left(&self, now_us: u64) -> i64 {
        self.leases.load().iter().fold(0, |sum: i64, lease| sum.saturating_add(lease.left(now_us)))
    }

    /// Reserves `nano` and adds it to `parts`: from one lease if one has enough left, otherwise from several.
    ///
    /// Returns whether another lease should be requested, or `None` if it does not fit. Then nothing is reserved.
    pub(crate) fn reserve(&self, nano: i64, now_us: u64, parts: &mut Vec<LeasePart>) -> Option<bool> {
        let leases = self.leases.load();
        let whole = leases.iter().find(|lease| lease.left(now_us) >= nano && lease.reserve(nano, now_us));
        match whole {
            Some(lease) => parts.push(LeasePart { lease: lease.clone(), nano }),
            None => reserve_in_parts(&leases, nano, now_us, parts)?,
        }
        self.last_used_us.store(now_us, Ordering::Relaxed);
        let is_low = self.left(now_us) < self.slice.load(Ordering::Relaxed) / 2;
        Some(is_low && !self.is_denied(now_us) && !self.is_low.swap(true, Ordering::Relaxed))
    }

    /// A call waits for a lease of at least this much.
    pub fn request_lease(&self, nano: i64) {
        self.requested.fetch_max(nano.max(1), Ordering::AcqRel);
    }

    /// Whether the control plane denied a lease a moment ago.
    #[must_use]
    pub fn is_denied(&self, now_us: u64) -> bool {
        now_us < self.denied_until_us.load(Ordering::Acquire)
    }

    /// What the whole budget had left when a lease was denied a moment ago.
    #[must_use]
    pub fn denied_remaining(&self, now_us: u64) -> Option<i64> {
        self.is_denied(now_us).then(|| self.denied_remaining.load(Ordering::Acquire))
    }

    pub(crate) fn leases(&self) -> Arc<Vec<Arc<Lease>>> {
        self.leases.load_full()
    }

    pub(crate) fn is_idle(&self, now_us: u64, idle_us: u64) -> bool {
        now_us.saturating_sub(self.last_used_us.load(Ordering::Relaxed)) > idle_us && self.requested.load(Ordering::Relaxed) == 0
    }

    /// The lease to request from the control plane now, if any.
    pub(crate) fn take_lease_request(&self, now_us: u64) -> Option<wire::LeaseWant> {
        let (requested, is_low) = (self.requested.load(Ordering::Acquire), self.is_low.load(Ordering::Relaxed));
        if requested == 0 && !is_low {
            return None;
        }
        let mut request_sent_us = lock(&self.request_sent_us);
        if request_sent_us.is_some_and(|sent_us| now_us.saturating_sub(sent_us) < REPEAT_REQUEST_US) {
            return None;
        }
        *request_sent_us = Some(now_us);
        self.is_low.store(false, Ordering::Relaxed);
        Some(wire::LeaseWant { budget_id: self.id.to_string(), amount_nano: self.requested.swap(0, Ordering::AcqRel) })
    }

    /// A response has come, or none will come any more: the next lease can be requested at once.
    pub(crate) fn end_request(&self) {
        *lock(&self.request_sent_us) = None;
    }

    pub(crate) fn set_low(&self) {
        self.is_low.store(true, Ordering::Relaxed);
    }

    pub(crate) fn grant(&self, lease: Arc<Lease>) {
        self.slice.store(lease.amount, Ordering::Relaxed);
        self.denied_until_us.store(0, Ordering::Release);
        self.leases.rcu(|held| held.iter().chain([&lease]).cloned().collect::<Vec<_>>());
        self.changes.increment();
    }

    pub(crate) fn deny(&self, until_us: u64, remaining: i64) {
        self.denied_remaining.store(remaining, Ordering::Release);
        self.denied_until_us.store(until_us, Ordering::Release);
        self.changes.increment();
    }

    pub(crate) fn drop_lease(&self, lease: &Arc<Lease>) {
        self.leases.rcu(|held| held.iter().filter(|other| !Arc::ptr_eq(other, lease)).cloned().collect::<Vec<_>>());
    }
}

fn reserve_in_parts(leases: &[Arc<Lease>], nano: i64, now_us: u64, parts: &mut Vec<LeasePart>) -> Option<()> {
    let before = parts.len();
    let mut missing = nano;
    for lease in leases {
        let amount = lease.left(now_us).min(missing);
        if amount > 0 && lease.reserve(amount, now_us) {
            parts.push(LeasePart { lease: lease.clone(), nano: amount });
            missing -= amount;
        }
    }
    if missing > 0 || parts.len() - before > LEASE_PARTS_MAX {
        parts.drain(before..).for_each(|part| part.lease.settle(part.nano, 0));
        return None;
    }
    Some(())
}
