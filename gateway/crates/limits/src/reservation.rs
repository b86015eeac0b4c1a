//! What one running call has reserved of limits and budgets.
//!
//! If it is dropped before the call was opened, everything is given back. If it is dropped after that without a
//! settlement, what was reserved is charged: an unknown end never costs less than it may have cost.

use crate::budget::LeasePart;
use crate::limit::{Exceeded, Limit};
use crate::limit_registry::LimitRegistry;
use crate::price::{Price, Tokens};
use crate::window::SlotIndex;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What was reserved of one limit.
#[derive(Debug)]
pub(crate) struct LimitReservation {
    limit: Arc<Limit>,
    /// It counts as a running call.
    is_running: bool,
    request: Option<SlotIndex>,
    tokens: Option<(SlotIndex, u64)>,
}

/// What was reserved of one budget: `parts[from..to]` of the whole reservation.
#[derive(Debug)]
pub(crate) struct BudgetReservation {
    pub price: Arc<Price>,
    pub from: usize,
    pub to: usize,
    /// The part for the input and the call itself.
    pub input: i64,
}

#[derive(Debug)]
pub struct Reservation {
    pub(crate) registry: Arc<LimitRegistry>,
    pub(crate) limits: Vec<LimitReservation>,
    pub(crate) parts: Vec<LeasePart>,
    pub(crate) budgets: Vec<BudgetReservation>,
    pub(crate) cap: Option<u64>,
    charges: Vec<i64>,
    is_open: bool,
}

/// What a call used, for computing its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumption {
    /// The engine's own numbers.
    Used(Tokens),
    /// Output tokens that this gateway counted. The input is charged at its upper bound.
    Counted(u64),
    /// No engine worked on the call.
    Nothing,
    /// An engine may have worked on the call; how much is unknown.
    Unknown,
}

impl LimitReservation {
    pub fn reserve(limit: &Arc<Limit>, estimate: u64, now_us: u64) -> Result<Self, Exceeded> {
        limit.enter()?;
        // From here on, dropping it gives back what was reserved so far.
        Self { limit: limit.clone(), is_running: true, request: None, tokens: None }.fill(estimate, now_us)
    }

    /// For one response within a session: the session itself counts as a running call.
    pub fn reserve_turn(limit: &Arc<Limit>, estimate: u64, now_us: u64) -> Result<Self, Exceeded> {
        Self { limit: limit.clone(), is_running: false, request: None, tokens: None }.fill(estimate, now_us)
    }

    fn fill(mut self, estimate: u64, now_us: u64) -> Result<Self, Exceeded> {
        let result = self.limit.take_request(now_us).and_then(|request| {
            self.request = request;
            self.tokens = self.limit.take_tokens(estimate, now_us)?;
            Ok(())
        });
        match result {
            Ok(()) => Ok(self),
            Err(exceeded) => {
                self.give_back(now_us);
                Err(exceeded)
            }
        }
    }

    fn give_back(&mut self, now_us: u64) {
        if let Some(slot) = self.request.take() {
            self.limit.give_back_request(slot);
        }
        self.correct(0, now_us);
    }

    fn correct(&mut self, used: u64, now_us: u64) {
        if let Some((slot, reserved)) = self.tokens.take() {
            self.limit.correct_tokens(slot, reserved, used, now_us);
        }
    }
}

impl Drop for LimitReservation {
    fn drop(&mut self) {
        if self.is_running {
            self.limit.leave();
        }
    }
}

impl Reservation {
    pub(crate) fn new(registry: &Arc<LimitRegistry>) -> Self {
        Self {
            registry: registry.clone(),
            limits: Vec::new(),
            parts: Vec::new(),
            budgets: Vec::new(),
            cap: None,
            charges: Vec::new(),
            is_open: false,
        }
    }

    /// The cap on output for each choice that must be set in the body, because the reservation covers no more.
    #[must_use]
    pub fn cap(&self) -> Option<u64> {
        self.cap
    }

    /// What was reserved of which lease, in the order of [`Self::charges`].
    #[must_use]
    pub fn lease_parts(&self) -> &[LeasePart] {
        &self.parts
    }

    /// The price by which the cost is computed.
    #[must_use]
    pub fn price_id(&self) -> &str {
        self.budgets.first().map_or("", |budget| &budget.price.id)
    }

    /// The open record is written: from now on only a settlement lowers what was reserved.
    pub fn open(&mut self) {
        self.is_open = true;
    }

    /// A session has begun: its responses reserve their own tokens.
    pub fn give_back_tokens(&mut self, now_us: u64) {
        self.limits.iter_mut().for_each(|limit| limit.correct(0, now_us));
    }

    /// The first response of a session counts instead of its opening.
    pub fn give_back_requests(&mut self) {
        for limit in &mut self.limits {
            if let Some(slot) = limit.request.take() {
                limit.limit.give_back_request(slot);
            }
        }
    }

    /// Computes what the call costs for each lease, before its settle record is written. [`Self::settle`] then applies
    /// it.
    pub fn compute_cost(&mut self, end: &Consumption) -> &[i64] {
        self.charges.clear();
        for budget in &self.budgets {
            let parts = &self.parts[budget.from..budget.to];
            let reserved: i64 = parts.iter().map(|part| part.nano).sum();
            let mut charge = match end {
                Consumption::Used(tokens) => budget.price.charge(tokens),
                Consumption::Counted(output) => {
                    let output = budget.price.charge(&Tokens { output: *output, ..Tokens::default() });
                    budget.input.saturating_add(output).min(reserved)
                }
                Consumption::Nothing => 0,
                Consumption::Unknown => reserved,
            };
            for (index, part) in parts.iter().enumerate() {
                // Whatever exceeds the reservation is charged to the last part.
                let charged = if index + 1 == parts.len() { charge } else { charge.min(part.nano) };
                self.charges.push(charged);
                charge -= charged;
            }
        }
        &self.charges
    }

    /// Gives back what was not used, and counts what exceeds the reservation.
    pub fn settle(&mut self, end: &Consumption, now_us: u64) {
        if self.charges.len() != self.parts.len() {
            self.compute_cost(end);
        }
        for (part, charge) in self.parts.drain(..).zip(self.charges.drain(..)) {
            part.lease.settle(part.nano, charge);
            if charge > part.nano {
                self.registry.overdraft(charge - part.nano);
                tracing::warn!(lease_id = %part.lease.id, reserved = part.nano, charge, "a call cost more than the upper bound that was reserved for it");
            }
        }
        self.budgets.clear();
        if *end == Consumption::Unknown {
            self.registry.stats.reservations_kept.fetch_add(1, Ordering::Relaxed);
        }
        for limit in &mut self.limits {
            match end {
                Consumption::Used(tokens) => limit.correct(tokens.input.saturating_add(tokens.output), now_us),
                Consumption::Nothing => limit.correct(0, now_us),
                // The estimate remains.
                Consumption::Counted(_) | Consumption::Unknown => limit.tokens = None,
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_open {
            // The time does not matter: what is given back is taken from the slot in which it was counted.
            self.limits.iter_mut().for_each(|limit| limit.give_back(0));
            self.parts.drain(..).for_each(|part| part.lease.settle(part.nano, 0));
        }
        self.parts.drain(..).for_each(|part| part.lease.settle(part.nano, part.nano));
    }
}
