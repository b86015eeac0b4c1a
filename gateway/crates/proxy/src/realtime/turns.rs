//! What the answers of a session take of limits. One that is asked for takes a request and tokens before it goes up, and is corrected by the
//! endpoint's numbers when it is over; one that the endpoint began by itself is counted then.

use super::events::Names;
use crate::call::tokens;
use crate::problem::Problem;
use crate::worker::Worker;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tenon_dialects::realtime::{Spent, refuses_response};
use tenon_limits::{Ask, End, Grant, Output};
use tenon_snapshot::unix_ms;

/// What an endpoint says of a refusal is short; pieces of audio are not.
const REFUSAL_BYTES_MAX: usize = 4096;

#[derive(Default)]
pub struct Turns {
    /// Of answers that were asked for and are not over, the oldest first. Which is which does not matter: their sum is right.
    open: RefCell<VecDeque<Grant>>,
    /// Input of the last answer: the conversation only grows.
    input: Cell<u64>,
}

impl Turns {
    /// Takes what an answer needs.
    ///
    /// # Errors
    /// What stands against it.
    pub fn begin(&self, worker: &Worker, names: &Names, max_output_tokens: Option<u64>) -> Result<(), Problem> {
        let applies = names.limits(&worker.snapshots.load());
        let ask = Ask {
            now_us: worker.limits_now(),
            unix_ms: if applies.has_hard_budget() { unix_ms() } else { 0 },
            // As the estimate reckons them: four bytes a token.
            body_bytes: self.input.get().saturating_mul(4),
            output: max_output_tokens.map_or(Output::Unbounded, Output::Capped),
            choices: 1,
            images: 0,
            is_text: false,
            is_endless: true,
            has_waited: false,
        };
        let mut grant = applies.admit_turn(&worker.registry, &ask).map_err(|denied| Problem::from(&denied))?;
        grant.open();
        self.open.borrow_mut().push_back(grant);
        Ok(())
    }

    /// An answer is over.
    pub fn end(&self, worker: &Worker, names: &Names, spent: &Spent) {
        if let Some(usage) = spent.usage {
            self.input.set(usage.input);
        }
        let end = match (spent.usage, spent.failed) {
            (Some(usage), _) => End::Used(tokens(&usage)),
            (None, true) => End::Nothing,
            (None, false) => End::Unknown,
        };
        let asked = self.open.borrow_mut().pop_front();
        match asked {
            Some(mut grant) => grant.settle(&end, worker.limits_now()),
            None => count(worker, names, 1, spent),
        }
    }

    /// Looks at what is no answer: one that was asked for may not have begun.
    pub fn look(&self, worker: &Worker, text: &str) {
        if self.open.borrow().is_empty() || text.len() > REFUSAL_BYTES_MAX || !refuses_response(text) {
            return;
        }
        let refused = self.open.borrow_mut().pop_back();
        if let Some(mut grant) = refused {
            grant.settle(&End::Nothing, worker.limits_now());
        }
    }
}

/// What nobody asked for.
pub fn count(worker: &Worker, names: &Names, requests: u64, spent: &Spent) {
    let tokens = spent.usage.map_or(0, |usage| usage.input.saturating_add(usage.output));
    names.limits(&worker.snapshots.load()).count(requests, tokens, worker.limits_now());
}
