//! What the responses of a session take of limits. A requested one takes a request and tokens before it starts, and is corrected by the
//! endpoint's numbers when it is over. One that the endpoint began by itself is counted when it is over.

use crate::base::problem::Problem;
use crate::call::guard::tokens;
use crate::protocols::realtime::events::ModelNames;
use crate::reactor::clock::Clock;
use crate::reactor::shared::SharedState;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tenon_dialects::realtime::{ResponseUsage, refuses_response};
use tenon_limits::{AdmissionRequest, Consumption, Output, Reservation};
use tenon_snapshot::unix_ms;

/// Refusals are short; pieces of audio are not.
const REFUSAL_BYTES_MAX: usize = 4096;

#[derive(Default)]
pub struct Turns {
    /// Of requested responses that are not over, the oldest first. Which reservation belongs to which does not matter: their sum is right.
    open: RefCell<VecDeque<Reservation>>,
    /// Input tokens of the last response: the conversation only grows.
    input: Cell<u64>,
}

impl Turns {
    /// Takes what a response needs.
    ///
    /// # Errors
    /// The limit that refuses it.
    pub fn begin(&self, shared: &SharedState, clock: &Clock, names: &ModelNames, max_output_tokens: Option<u64>) -> Result<(), Problem> {
        let applies = names.limits(&shared.snapshots.load());
        let request = AdmissionRequest {
            now_us: clock.limits_us(),
            unix_ms: if applies.has_hard_budget() { unix_ms() } else { 0 },
            // The estimate counts four bytes a token.
            body_bytes: self.input.get().saturating_mul(4),
            output: max_output_tokens.map_or(Output::Unbounded, Output::Capped),
            choices: 1,
            images: 0,
            is_text: false,
            is_endless: true,
            has_waited: false,
        };
        let mut reservation = applies.admit_turn(&shared.limit_registry, &request).map_err(|denied| Problem::from(&denied))?;
        reservation.open();
        self.open.borrow_mut().push_back(reservation);
        Ok(())
    }

    /// A response is over.
    pub fn end(&self, shared: &SharedState, clock: &Clock, names: &ModelNames, spent: &ResponseUsage) {
        if let Some(usage) = spent.usage {
            self.input.set(usage.input);
        }
        let end = match (spent.usage, spent.failed) {
            (Some(usage), _) => Consumption::Used(tokens(&usage)),
            (None, true) => Consumption::Nothing,
            (None, false) => Consumption::Unknown,
        };
        let reservation = self.open.borrow_mut().pop_front();
        match reservation {
            Some(mut reservation) => reservation.settle(&end, clock.limits_us()),
            None => count_unrequested(shared, clock, names, 1, spent),
        }
    }

    /// Checks an event that is no response: it may refuse a requested one.
    pub fn check_refusal(&self, clock: &Clock, text: &str) {
        if self.open.borrow().is_empty() || text.len() > REFUSAL_BYTES_MAX || !refuses_response(text) {
            return;
        }
        let refused = self.open.borrow_mut().pop_back();
        if let Some(mut reservation) = refused {
            reservation.settle(&Consumption::Nothing, clock.limits_us());
        }
    }
}

/// Counts what the caller did not request.
pub fn count_unrequested(shared: &SharedState, clock: &Clock, names: &ModelNames, requests: u64, spent: &ResponseUsage) {
    let tokens = spent.usage.map_or(0, |usage| usage.input.saturating_add(usage.output));
    names.limits(&shared.snapshots.load()).count(requests, tokens, clock.limits_us());
}
