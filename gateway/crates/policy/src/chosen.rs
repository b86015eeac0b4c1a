//! A route that was picked, held until the call that took it is over.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll};
use tenon_balance::{Charge, Grant, Queued, Verdict, Who, bits};
use tenon_snapshot::{Endpoint, Model, Target};

#[derive(Debug)]
pub enum Choice {
    Go(Chosen),
    /// These could take the call (one bit each) when one of theirs ends.
    Full(u64),
    /// All were tried.
    Nowhere,
}

/// Dropped, it gives its place at the endpoint to the next.
#[derive(Debug)]
pub struct Chosen {
    pub model: Arc<Model>,
    pub index: usize,
    trial: Cell<bool>,
    held: Cell<bool>,
    charge: Cell<Option<Charge>>,
    began_ms: u64,
}

impl Chosen {
    pub(crate) fn new(model: Arc<Model>, index: usize, trial: bool, now_ms: u64) -> Self {
        Self { model, index, trial: Cell::new(trial), held: Cell::new(true), charge: Cell::new(None), began_ms: now_ms }
    }

    /// The same route, for those who must name it: it holds no place.
    #[must_use]
    pub fn unheld(&self) -> Self {
        let (trial, held, charge) = (Cell::new(false), Cell::new(false), Cell::new(None));
        Self { model: self.model.clone(), index: self.index, trial, held, charge, began_ms: self.began_ms }
    }

    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.model.routes[self.index].endpoint
    }

    #[must_use]
    pub fn upstream_model(&self) -> Option<&str> {
        self.model.routes[self.index].upstream_model.as_deref()
    }

    /// Only usable endpoints are chosen, so this is `Some` for what [`crate::Admitted::choose`] gave.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        self.endpoint().target.as_ref().ok()
    }

    /// What the attempt says about its endpoint.
    pub fn judge(&self, verdict: Verdict, now_ms: u64) {
        let state = &self.endpoint().state;
        state.judge(verdict, now_ms);
        if self.trial.replace(false) {
            state.end_trial(now_ms);
        }
    }

    /// The call is over; `tokens` it used, as far as it is known. What comes first counts.
    pub fn release(&self, tokens: Option<u64>) {
        if !self.held.replace(false) {
            return;
        }
        let state = &self.endpoint().state;
        if let (Some(charge), Some(tokens)) = (self.charge.take(), tokens) {
            state.capacity.correct(charge, tokens);
        }
        state.capacity.leave();
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if self.trial.get() {
            self.endpoint().state.end_trial(self.began_ms);
        }
        self.release(None);
    }
}

/// A place in the queues of saturated endpoints.
#[derive(Debug)]
pub struct Waiting(Queued);

impl Waiting {
    pub(crate) fn join(model: &Model, routes: u64, who: Who) -> Option<Self> {
        let members = model.group.members();
        let candidates = bits(routes).filter_map(|index| {
            let member = members.get(index)?;
            Some((u32::try_from(index).ok()?, member.state.capacity.clone(), member.running_max))
        });
        Queued::join(who, candidates).map(Self)
    }

    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Grant> {
        self.0.poll(context)
    }

    /// Its place was entered by whoever granted it. With nowhere else to go even an ill endpoint is taken.
    pub(crate) fn take(self, model: &Arc<Model>, grant: (u32, Charge), elsewhere: bool, now_ms: u64) -> Option<Chosen> {
        let (route, charge) = grant;
        let index = route as usize;
        let state = &model.group.members()[index].state;
        let trial = state.trial(now_ms);
        let chosen = Chosen::new(model.clone(), index, trial == Some(true), now_ms);
        chosen.charge.set(Some(charge));
        if trial.is_none() && elsewhere {
            chosen.release(Some(0));
            return None;
        }
        Some(chosen)
    }
}
