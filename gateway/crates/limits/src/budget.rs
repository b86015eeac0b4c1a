//! A hard budget as this process holds it: its leases, who waits for more, and what the control plane said last.
//!
//! Promises: what is reserved lies within leases (Σ leases ≤ budget), so no request needs a round trip and no number of processes can spend
//! the budget twice. No lease, no call.

use crate::lease::Lease;
use crate::signal::{News, lock};
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tenon_contract as wire;
use tenon_contract::Subject;

/// A want that nobody answered is told again after this.
const ASK_AGAIN_US: u64 = 2_000_000;

#[derive(Debug)]
pub struct Budget {
    pub id: Box<str>,
    pub currency: Box<str>,
    pub subject: Subject,
    leases: ArcSwap<Vec<Arc<Lease>>>,
    /// The most that a call waits for.
    wanted: AtomicI64,
    /// What is left will not last.
    low: AtomicBool,
    /// Of the last lease: half of it is the low-water mark.
    slice: AtomicI64,
    last_used_us: AtomicU64,
    /// The control plane said no: asking again makes no sense before this.
    denied_until_us: AtomicU64,
    /// What it said was left then.
    denied_remaining: AtomicI64,
    /// When something was asked that is not answered.
    asked_us: Mutex<Option<u64>>,
    pub news: News,
}

/// A part of a lease that a call has reserved.
#[derive(Clone, Debug)]
pub struct Piece {
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
            wanted: AtomicI64::new(0),
            low: AtomicBool::new(false),
            slice: AtomicI64::new(0),
            last_used_us: AtomicU64::new(0),
            denied_until_us: AtomicU64::new(0),
            denied_remaining: AtomicI64::new(0),
            asked_us: Mutex::default(),
            news: News::default(),
        }
    }

    /// What one call could reserve now, over all leases.
    #[must_use]
    pub fn left(&self, now_us: u64) -> i64 {
        self.leases.load().iter().fold(0, |sum: i64, lease| sum.saturating_add(lease.left(now_us)))
    }

    /// Reserves `nano` into `pieces`: in one lease if one has the room, else in several. Nothing is kept when it does not fit.
    ///
    /// Gives whether more should be asked for, or `None` when it does not fit.
    pub(crate) fn reserve(&self, nano: i64, now_us: u64, pieces: &mut Vec<Piece>) -> Option<bool> {
        let leases = self.leases.load();
        let whole = leases.iter().find(|lease| lease.left(now_us) >= nano && lease.reserve(nano, now_us));
        match whole {
            Some(lease) => pieces.push(Piece { lease: lease.clone(), nano }),
            None => reserve_in_parts(&leases, nano, now_us, pieces)?,
        }
        self.last_used_us.store(now_us, Ordering::Relaxed);
        let is_low = self.left(now_us) < self.slice.load(Ordering::Relaxed) / 2;
        Some(is_low && !self.is_denied(now_us) && !self.low.swap(true, Ordering::Relaxed))
    }

    /// A call waits for a lease of at least so much.
    pub fn want(&self, nano: i64) {
        self.wanted.fetch_max(nano.max(1), Ordering::AcqRel);
    }

    /// Told a moment ago that no lease can be had.
    #[must_use]
    pub fn is_denied(&self, now_us: u64) -> bool {
        now_us < self.denied_until_us.load(Ordering::Acquire)
    }

    /// What the whole budget had left when it was last denied, a moment ago.
    #[must_use]
    pub fn denied_remaining(&self, now_us: u64) -> Option<i64> {
        self.is_denied(now_us).then(|| self.denied_remaining.load(Ordering::Acquire))
    }

    pub(crate) fn leases(&self) -> Arc<Vec<Arc<Lease>>> {
        self.leases.load_full()
    }

    pub(crate) fn is_idle(&self, now_us: u64, idle_us: u64) -> bool {
        now_us.saturating_sub(self.last_used_us.load(Ordering::Relaxed)) > idle_us && self.wanted.load(Ordering::Relaxed) == 0
    }

    /// What to ask the control plane for, if anything, and if now.
    pub(crate) fn take_want(&self, now_us: u64) -> Option<wire::LeaseWant> {
        let (wanted, low) = (self.wanted.load(Ordering::Acquire), self.low.load(Ordering::Relaxed));
        if wanted == 0 && !low {
            return None;
        }
        let mut asked_us = lock(&self.asked_us);
        if asked_us.is_some_and(|asked_us| now_us.saturating_sub(asked_us) < ASK_AGAIN_US) {
            return None;
        }
        *asked_us = Some(now_us);
        self.low.store(false, Ordering::Relaxed);
        Some(wire::LeaseWant { budget_id: self.id.to_string(), amount_nano: self.wanted.swap(0, Ordering::AcqRel) })
    }

    /// An answer has come, or none will come any more: what is wanted now is asked at once.
    pub(crate) fn answered(&self) {
        *lock(&self.asked_us) = None;
    }

    pub(crate) fn set_low(&self) {
        self.low.store(true, Ordering::Relaxed);
    }

    pub(crate) fn grant(&self, lease: Arc<Lease>) {
        self.slice.store(lease.amount, Ordering::Relaxed);
        self.denied_until_us.store(0, Ordering::Release);
        self.leases.rcu(|held| held.iter().chain([&lease]).cloned().collect::<Vec<_>>());
        self.news.tell();
    }

    pub(crate) fn deny(&self, until_us: u64, remaining: i64) {
        self.denied_remaining.store(remaining, Ordering::Release);
        self.denied_until_us.store(until_us, Ordering::Release);
        self.news.tell();
    }

    pub(crate) fn drop_lease(&self, lease: &Arc<Lease>) {
        self.leases.rcu(|held| held.iter().filter(|other| !Arc::ptr_eq(other, lease)).cloned().collect::<Vec<_>>());
    }
}

fn reserve_in_parts(leases: &[Arc<Lease>], nano: i64, now_us: u64, pieces: &mut Vec<Piece>) -> Option<()> {
    let before = pieces.len();
    let mut missing = nano;
    for lease in leases {
        let part = lease.left(now_us).min(missing);
        if part > 0 && lease.reserve(part, now_us) {
            pieces.push(Piece { lease: lease.clone(), nano: part });
            missing -= part;
        }
    }
    if missing > 0 || pieces.len() - before > crate::PIECES_MAX {
        pieces.drain(before..).for_each(|piece| piece.lease.settle(piece.nano, 0));
        return None;
    }
    Some(())
}
