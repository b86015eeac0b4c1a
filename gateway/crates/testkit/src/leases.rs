//! A second, simple implementation of leases and shares: what is not known to be unspent counts as spent, what is not known to be returned as held.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use tenon_contract::{Governance, Lease, LeaseDenied, LeaseRequest, LeaseResponse, Limit, Share, ShareDemand, UsageRecord};

const LEASE_VALID: Duration = Duration::from_secs(60);
const SHARE_VALID: Duration = Duration::from_secs(5);
const SLICES: i64 = 16;

#[derive(Clone, Debug)]
pub struct LeaseRecord {
    pub budget_id: String,
    pub process_id: String,
    pub amount_nano: i64,
    pub reported_nano: i64,
    /// The amount it counts for once it is closed.
    pub closed_nano: Option<i64>,
}

impl LeaseRecord {
    fn counts_nano(&self) -> i64 {
        self.closed_nano.unwrap_or(self.amount_nano)
    }
}

#[derive(Debug)]
struct Part {
    /// The shares sent to its process last, and the number of that answer.
    sent: [u64; 3],
    number: u64,
    /// The most that the process may still be using.
    held: [u64; 3],
    last_request: Instant,
}

#[derive(Debug, Default)]
pub struct Leases {
    budgets: HashMap<String, i64>,
    leases: HashMap<String, LeaseRecord>,
    parts: HashMap<String, HashMap<String, Part>>,
    granted: u64,
}

impl Leases {
    pub fn set_budget(&mut self, budget_id: &str, amount_nano: i64) {
        self.budgets.insert(budget_id.into(), amount_nano);
    }

    pub fn leases(&self) -> Vec<(String, LeaseRecord)> {
        self.leases.iter().map(|(id, lease)| (id.clone(), lease.clone())).collect()
    }

    /// The amount that counts against the budget: closed leases at their spending, others whole.
    pub fn counted_nano(&self, budget_id: &str) -> i64 {
        self.leases.values().filter(|lease| lease.budget_id == budget_id).map(LeaseRecord::counts_nano).sum()
    }

    pub fn answer<'a>(
        &mut self,
        request: &LeaseRequest,
        number: u64,
        governance: impl Iterator<Item = &'a Governance>,
        records: impl Iterator<Item = &'a UsageRecord> + Clone,
    ) -> LeaseResponse {
        let mut response = LeaseResponse { number, ..LeaseResponse::default() };
        for report in &request.reports {
            match self.leases.get_mut(&report.lease_id).filter(|lease| lease.process_id == request.process_id && lease.closed_nano.is_none()) {
                Some(lease) => {
                    lease.reported_nano = report.spent_nano;
                    lease.closed_nano = report.close.then_some(report.spent_nano);
                }
                None if report.close => {}
                None => response.closed_lease_ids.push(report.lease_id.clone()),
            }
        }
        for process_id in &request.shipped_process_ids {
            self.close_shipped(process_id, records.clone());
        }
        for want in &request.wants {
            self.grant(request, &want.budget_id, want.amount_nano, &mut response);
        }
        let limits: Vec<Limit> = governance.flat_map(|table| table.limits.clone()).collect();
        for limit in &limits {
            let demand = request.demands.iter().find(|demand| demand.limit_id == limit.limit_id);
            response.shares.extend(self.share(limit, request, number, demand));
        }
        response
    }

    fn close_shipped<'a>(&mut self, process_id: &str, records: impl Iterator<Item = &'a UsageRecord>) {
        let uses: Vec<_> = records.flat_map(|record| &record.lease_uses).collect();
        for (id, lease) in self.leases.iter_mut().filter(|(_, lease)| lease.process_id == process_id && lease.closed_nano.is_none()) {
            lease.closed_nano = Some(uses.iter().filter(|used| used.lease_id == *id).map(|used| used.nano).sum());
        }
    }

    fn grant(&mut self, request: &LeaseRequest, budget_id: &str, least_nano: i64, response: &mut LeaseResponse) {
        let remaining = self.budgets.get(budget_id).map_or(0, |amount| (amount - self.counted_nano(budget_id)).max(0));
        let amount_nano = if least_nano > remaining { 0 } else { least_nano.max(remaining / SLICES) };
        if amount_nano == 0 {
            response.denied.push(LeaseDenied { budget_id: budget_id.into(), remaining_nano: remaining, retry_after_ms: 1000 });
            return;
        }
        self.granted += 1;
        let lease_id = format!("019a0000-0000-7000-8000-{:012}", self.granted);
        let (budget_id, process_id) = (budget_id.to_owned(), request.process_id.clone());
        let lease = LeaseRecord { budget_id: budget_id.clone(), process_id, amount_nano, reported_nano: 0, closed_nano: None };
        self.leases.insert(lease_id.clone(), lease);
        let valid_ms = u32::try_from(LEASE_VALID.as_millis()).unwrap();
        response.leases.push(Lease { lease_id, budget_id, amount_nano, valid_ms });
    }

    /// Equal parts for the processes that sent a request lately. A part grows only into what no other process holds.
    fn share(&mut self, limit: &Limit, request: &LeaseRequest, number: u64, demand: Option<&ShareDemand>) -> Option<Share> {
        let parts = self.parts.entry(limit.limit_id.clone()).or_default();
        parts.retain(|process_id, part| *process_id == request.process_id || part.last_request.elapsed() < SHARE_VALID);
        if demand.is_none() && !parts.contains_key(&request.process_id) {
            return None;
        }
        let whole = [limit.requests_per_minute, limit.tokens_per_minute, u64::from(limit.concurrency)];
        let part = parts.entry(request.process_id.clone()).or_insert(Part { sent: [0; 3], number: 0, held: [0; 3], last_request: Instant::now() });
        part.last_request = Instant::now();
        if request.applied_number >= part.number {
            let used = demand.map_or([0; 3], |demand| [demand.used_requests, demand.used_tokens, u64::from(demand.running)]);
            part.held = std::array::from_fn(|index| part.sent[index].max(part.held[index].min(used[index])));
        }
        let count = parts.len() as u64;
        let mut shares = [0; 3];
        for (index, whole) in whole.into_iter().enumerate() {
            let others: u64 = parts.iter().filter(|(id, _)| **id != request.process_id).map(|(_, part)| part.held[index]).sum();
            shares[index] = (whole / count).max(u64::from(whole > 0 && whole < count)).min(whole.saturating_sub(others));
        }
        let part = parts.get_mut(&request.process_id)?;
        part.held = std::array::from_fn(|index| part.held[index].max(shares[index]));
        (part.sent, part.number) = (shares, number);
        Some(Share {
            limit_id: limit.limit_id.clone(),
            requests_per_minute: shares[0],
            tokens_per_minute: shares[1],
            concurrency: u32::try_from(shares[2]).unwrap(),
            valid_ms: u32::try_from(SHARE_VALID.as_millis()).unwrap(),
        })
    }
}
