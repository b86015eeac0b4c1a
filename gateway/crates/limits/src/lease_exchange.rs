//! The exchange of leases and shares with the control plane, without the connection: what to send now, and what a
//! response means.

use crate::lease::Lease;
use crate::limit_registry::LimitRegistry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tenon_contract as wire;

/// A lease that was not used for this long is returned, because another gateway may need it.
const IDLE_US: u64 = 15_000_000;
/// The next lease is requested when the current one has this long left.
const RENEW_US: u64 = 5_000_000;
/// The control plane's deadline less this part of it, and at least [`MARGIN_US_MIN`]: clocks drift, threads sleep.
const MARGIN_PART: u64 = 10;
const MARGIN_US_MIN: u64 = 250_000;
/// Lease ids are stored in every record of a call that used the lease.
const ID_BYTES_MAX: usize = 64;
/// Requests without a response. The caller gives up a connection long before.
const UNANSWERED_MAX: usize = 1024;

pub struct LeaseExchange {
    registry: Arc<LimitRegistry>,
    process_id: String,
    /// Leases that have ended: what was spent, and the request that reported it on this connection.
    closing: HashMap<Box<str>, (i64, Option<u64>)>,
    /// Earlier runs whose log has shipped, and the request that reported it.
    shipped: Vec<(String, Option<u64>)>,
    /// Requests sent on this connection.
    requests: u64,
    /// The newest response that was applied.
    applied: u64,
    /// When the requests without a response were sent, the oldest first. Each gets one response, in order.
    sent_us: VecDeque<u64>,
}

impl LeaseExchange {
    #[must_use]
    pub fn new(registry: Arc<LimitRegistry>, process_id: String) -> Self {
        Self { registry, process_id, closing: HashMap::new(), shipped: Vec::new(), requests: 0, applied: 0, sent_us: VecDeque::new() }
    }

    /// The log of an earlier process is acknowledged completely.
    pub fn add_shipped_process(&mut self, process_id: String) {
        self.shipped.push((process_id, None));
    }

    #[must_use]
    pub fn is_needed(&self) -> bool {
        !self.shipped.is_empty() || !self.closing.is_empty() || self.registry.is_needed()
    }

    /// A new connection: everything is reported again, and no earlier response is expected.
    pub fn start_connection(&mut self) {
        (self.requests, self.applied) = (0, 0);
        self.sent_us.clear();
        self.shipped.iter_mut().for_each(|(_, reported_in)| *reported_in = None);
        self.registry.limits().iter().for_each(|limit| limit.announce());
        self.registry.budgets().iter().for_each(|budget| budget.end_request());
        self.closing.values_mut().for_each(|(_, reported_in)| *reported_in = None);
    }

    /// The next message.
    pub fn next_request(&mut self, now_us: u64) -> wire::LeaseRequest {
        self.requests += 1;
        if self.sent_us.len() < UNANSWERED_MAX {
            self.sent_us.push_back(now_us);
        }
        let mut request = wire::LeaseRequest { process_id: self.process_id.clone(), applied_number: self.applied, ..Default::default() };
        request.demands = self.registry.limits().iter().filter_map(|limit| limit.take_demand(now_us)).collect();
        for budget in self.registry.budgets() {
            let idle = budget.is_idle(now_us, IDLE_US);
            for lease in budget.leases().iter() {
                if (idle || lease.is_over(now_us) || lease.left(now_us) == 0) && self.close(lease) {
                    budget.drop_lease(lease);
                    continue;
                }
                let soon = lease.deadline_us().saturating_sub(now_us) < RENEW_US;
                if soon && !idle && !lease.is_over(now_us) && budget.leases().len() == 1 {
                    budget.set_low();
                }
                request.reports.push(wire::LeaseReport {
                    lease_id: lease.id.to_string(),
                    spent_nano: lease.spent(),
                    reserved_nano: lease.reserved(),
                    close: false,
                });
            }
            request.wants.extend(budget.take_lease_request(now_us));
        }
        for (lease_id, (spent_nano, reported_in)) in &mut self.closing {
            reported_in.get_or_insert(self.requests);
            request.reports.push(wire::LeaseReport { lease_id: lease_id.to_string(), spent_nano: *spent_nano, reserved_nano: 0, close: true });
        }
        for (process_id, reported_in) in &mut self.shipped {
            reported_in.get_or_insert(self.requests);
            request.shipped_process_ids.push(process_id.clone());
        }
        request
    }

    fn close(&mut self, lease: &Lease) -> bool {
        let Some(spent) = lease.close() else {
            return false;
        };
        self.registry.stats.leases_closed.fetch_add(1, Ordering::Relaxed);
        self.closing.insert(lease.id.clone(), (spent, None));
        true
    }

    /// Applies a response. Returns the ids of earlier processes that the control plane now knows to have shipped.
    pub fn apply_response(&mut self, response: &wire::LeaseResponse, now_us: u64) -> Vec<String> {
        self.applied = response.number;
        let sent_us = self.sent_us.pop_front().unwrap_or(now_us);
        for share in &response.shares {
            if let Some(limit) = self.registry.find_limit(&share.limit_id) {
                limit.share(share);
            }
        }
        for id in &response.closed_lease_ids {
            self.stop_lease(id);
        }
        response.leases.iter().for_each(|lease| self.add_lease(lease, sent_us));
        for denied in &response.denied {
            if let Some(budget) = self.registry.find_budget(&denied.budget_id) {
                budget.end_request();
                budget.deny(now_us + u64::from(denied.retry_after_ms.clamp(100, 10_000)) * 1000, denied.remaining_nano);
            }
        }
        let is_confirmed = |reported_in: &Option<u64>| reported_in.is_some_and(|number| number <= response.number);
        self.closing.retain(|_, (_, reported_in)| !is_confirmed(reported_in));
        self.shipped.extract_if(.., |(_, reported_in)| is_confirmed(reported_in)).map(|(process_id, _)| process_id).collect()
    }

    fn add_lease(&mut self, wire: &wire::Lease, sent_us: u64) {
        let budget = self.registry.find_budget(&wire.budget_id);
        let Some(budget) = budget.filter(|_| wire.lease_id.len() <= ID_BYTES_MAX) else {
            // It cannot be used here, so it is returned unspent.
            self.closing.insert(wire.lease_id.as_str().into(), (0, None));
            return;
        };
        budget.end_request();
        let valid_us = u64::from(wire.valid_ms) * 1000;
        // Counted from the time of the request, which came before the response, it never lasts too long.
        let deadline_us = sent_us + valid_us.saturating_sub((valid_us / MARGIN_PART).max(MARGIN_US_MIN));
        if let Some(held) = budget.leases().iter().find(|lease| *lease.id == *wire.lease_id) {
            held.extend(deadline_us);
            return;
        }
        if self.closing.contains_key(wire.lease_id.as_str()) {
            return;
        }
        self.registry.stats.leases_granted.fetch_add(1, Ordering::Relaxed);
        budget.grant(Arc::new(Lease::new(&wire.lease_id, wire.amount_nano, deadline_us)));
    }

    fn stop_lease(&mut self, id: &str) {
        self.closing.remove(id);
        for budget in self.registry.budgets() {
            budget.leases().iter().filter(|lease| *lease.id == *id).for_each(|lease| lease.stop());
        }
    }

    /// The request of a process that stops: it returns every lease on which no call runs, and requests nothing. `None`
    /// = nothing to report.
    ///
    /// A response that was on its way may still grant a lease, so call this again after each response.
    pub fn closing_request(&mut self, now_us: u64) -> Option<wire::LeaseRequest> {
        for budget in self.registry.budgets() {
            for lease in budget.leases().iter() {
                lease.stop();
                if self.close(lease) {
                    budget.drop_lease(lease);
                }
            }
        }
        if self.closing.is_empty() && self.shipped.is_empty() {
            return None;
        }
        let mut request = self.next_request(now_us);
        request.wants.clear();
        Some(request)
    }

    /// The control plane cannot be reached: calls that wait for a lease are woken.
    pub fn disconnected(&self) {
        self.registry.connected.store(false, Ordering::Release);
        self.registry.is_lost.store(true, Ordering::Release);
        self.registry.budgets().iter().for_each(|budget| budget.changes.increment());
    }

    pub fn connected(&self) {
        self.registry.connected.store(true, Ordering::Release);
        self.registry.is_lost.store(false, Ordering::Release);
    }
}
