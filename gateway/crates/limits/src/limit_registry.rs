//! The state of every limit and budget of this process, by id. It outlives the tables, so a replaced table keeps its
//! counters.

use crate::budget::Budget;
use crate::limit::Limit;
use crate::notify::{Notify, lock};
use hashbrown::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tenon_contract as wire;

type Map<V> = HashMap<Box<str>, Arc<V>, foldhash::fast::RandomState>;

/// For metrics.
#[derive(Debug, Default)]
pub struct LimitStats {
    pub leases_granted: AtomicU64,
    pub leases_closed: AtomicU64,
    /// Calls that cost more than was reserved for them, and by how much, in nano-units of any currency.
    pub overdrafts: AtomicU64,
    pub overdraft_nano: AtomicU64,
    /// Calls that ended without the engine's numbers, so that they are charged what was reserved.
    pub reservations_kept: AtomicU64,
}

#[derive(Debug)]
pub struct LimitRegistry {
    begun: Instant,
    limits: Mutex<Map<Limit>>,
    budgets: Mutex<Map<Budget>>,
    /// Notified when a call waits for a lease, or leases run low.
    pub lease_needed: Notify,
    /// Whether the control plane can be reached at the moment.
    pub connected: AtomicBool,
    /// The last attempt to reach it failed, so waiting for a lease is useless. False until the first attempt has ended.
    pub is_lost: AtomicBool,
    pub stats: LimitStats,
}

impl Default for LimitRegistry {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            limits: Mutex::default(),
            budgets: Mutex::default(),
            lease_needed: Notify::default(),
            connected: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            stats: LimitStats::default(),
        }
    }
}

impl LimitRegistry {
    /// The clock of everything here. It is monotonic, so setting the wall clock can neither lengthen a lease nor empty
    /// a window.
    #[must_use]
    pub fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns the state of a limit, created if it is new, after setting its newest numbers.
    pub fn limit(&self, wire: &wire::Limit) -> Arc<Limit> {
        let mut limits = lock(&self.limits);
        let limit = limits.entry(wire.limit_id.as_str().into()).or_insert_with(|| {
            // Requests its share before it is needed.
            self.lease_needed.notify();
            Arc::new(Limit::new(&wire.limit_id))
        });
        limit.set(wire);
        limit.clone()
    }

    pub fn budget(&self, wire: &wire::Budget) -> Arc<Budget> {
        let mut budgets = lock(&self.budgets);
        let held = budgets.get(wire.budget_id.as_str()).filter(|held| *held.currency == *wire.currency);
        if let Some(held) = held {
            return held.clone();
        }
        // Opens the connection before a lease is needed.
        self.lease_needed.notify();
        let budget = Arc::new(Budget::new(wire));
        budgets.insert(wire.budget_id.as_str().into(), budget.clone());
        budget
    }

    #[must_use]
    pub fn find_limit(&self, id: &str) -> Option<Arc<Limit>> {
        lock(&self.limits).get(id).cloned()
    }

    #[must_use]
    pub fn find_budget(&self, id: &str) -> Option<Arc<Budget>> {
        lock(&self.budgets).get(id).cloned()
    }

    #[must_use]
    pub fn limits(&self) -> Vec<Arc<Limit>> {
        lock(&self.limits).values().cloned().collect()
    }

    #[must_use]
    pub fn budgets(&self) -> Vec<Arc<Budget>> {
        lock(&self.budgets).values().cloned().collect()
    }

    /// Whether there is any limit or budget to exchange with the control plane.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !lock(&self.limits).is_empty() || !lock(&self.budgets).is_empty()
    }

    /// Drops what no table names and no call uses any more. Budgets with leases stay until those are closed.
    pub fn forget_unused(&self) {
        lock(&self.limits).retain(|_, limit| Arc::strong_count(limit) > 1);
        lock(&self.budgets).retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.leases().is_empty());
    }

    /// The number of this process's leases, and what is left of them in nano-units.
    #[must_use]
    pub fn lease_sums(&self, now_us: u64) -> (u64, i64) {
        let budgets = self.budgets();
        let leases = budgets.iter().map(|budget| budget.leases().len() as u64).sum();
        (leases, budgets.iter().fold(0, |sum: i64, budget| sum.saturating_add(budget.left(now_us))))
    }

    /// The number of limits, and of those that have no share yet.
    #[must_use]
    pub fn limit_counts(&self) -> (usize, usize) {
        let limits = lock(&self.limits);
        (limits.len(), limits.values().filter(|limit| !limit.has_share()).count())
    }

    pub(crate) fn overdraft(&self, nano: i64) {
        self.stats.overdrafts.fetch_add(1, Ordering::Relaxed);
        self.stats.overdraft_nano.fetch_add(nano.unsigned_abs(), Ordering::Relaxed);
    }
}
