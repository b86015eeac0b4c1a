//! A route that was picked for a call, which holds a slot of its endpoint until the call is over.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll};
use tenon_balance::{AttemptOutcome, QueueRequest, QueueResult, QueuedCall, TokenCharge, bits};
use tenon_snapshot::{Endpoint, Model, Target};

#[derive(Debug)]
pub enum RouteChoice {
    Taken(ChosenRoute),
    /// These routes (one bit each) could take the call when one of their calls ends.
    Full(u64),
    /// All routes were tried.
    Exhausted,
}

/// When dropped, it frees its slot for the next call.
#[derive(Debug)]
pub struct ChosenRoute {
    pub model: Arc<Model>,
    pub index: usize,
    is_trial: Cell<bool>,
    holds_slot: Cell<bool>,
    charge: Cell<Option<TokenCharge>>,
    began_ms: u64,
}

impl ChosenRoute {
    pub(crate) fn new(model: Arc<Model>, index: usize, trial: bool, now_ms: u64) -> Self {
        Self { model, index, is_trial: Cell::new(trial), holds_slot: Cell::new(true), charge: Cell::new(None), began_ms: now_ms }
    }

    /// The same route without a slot, for code that only needs its name.
    #[must_use]
    pub fn without_slot(&self) -> Self {
        let (is_trial, holds_slot, charge) = (Cell::new(false), Cell::new(false), Cell::new(None));
        Self { model: self.model.clone(), index: self.index, is_trial, holds_slot, charge, began_ms: self.began_ms }
    }

    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.model.routes[self.index].endpoint
    }

    #[must_use]
    pub fn upstream_model(&self) -> Option<&str> {
        self.model.routes[self.index].upstream_model.as_deref()
    }

    /// Only usable endpoints are chosen, so this is `Some` for a route from `Admitted::choose`.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        self.endpoint().target.as_ref().ok()
    }

    /// Records the outcome of the attempt at its endpoint.
    pub fn record_outcome(&self, outcome: AttemptOutcome, now_ms: u64) {
        let state = &self.endpoint().state;
        state.record_outcome(outcome, now_ms);
        if self.is_trial.replace(false) {
            state.end_trial(now_ms);
        }
    }

    /// The call is over and has used `tokens`, if that is known. Only the first call of this method counts.
    pub fn release(&self, tokens: Option<u64>) {
        if !self.holds_slot.replace(false) {
            return;
        }
        let state = &self.endpoint().state;
        if let (Some(charge), Some(tokens)) = (self.charge.take(), tokens) {
            state.capacity.correct(charge, tokens);
        }
        state.capacity.leave();
    }
}

impl Drop for ChosenRoute {
    fn drop(&mut self) {
        if self.is_trial.get() {
            self.endpoint().state.end_trial(self.began_ms);
        }
        self.release(None);
    }
}

/// A call in the queues of saturated endpoints.
#[derive(Debug)]
pub struct WaitingCall(QueuedCall);

impl WaitingCall {
    pub(crate) fn join(model: &Model, routes: u64, request: QueueRequest) -> Option<Self> {
        let members = model.group.members();
        let candidates = bits(routes).filter_map(|index| {
            let member = members.get(index)?;
            Some((u32::try_from(index).ok()?, member.state.capacity.clone(), member.running_max))
        });
        QueuedCall::join(request, candidates).map(Self)
    }

    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<QueueResult> {
        self.0.poll(context)
    }

    /// The granting call has already entered the slot. If no other route is usable, even an unhealthy endpoint is
    /// taken.
    pub(crate) fn take(self, model: &Arc<Model>, grant: (u32, TokenCharge), has_alternative: bool, now_ms: u64) -> Option<ChosenRoute> {
        let (route, charge) = grant;
        let index = route as usize;
        let state = &model.group.members()[index].state;
        let trial = state.trial(now_ms);
        let chosen = ChosenRoute::new(model.clone(), index, trial == Some(true), now_ms);
        chosen.charge.set(Some(charge));
        if trial.is_none() && has_alternative {
            chosen.release(Some(0));
            return None;
        }
        Some(chosen)
    }
}
