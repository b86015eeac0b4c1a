//! Decides whether a key may call a model, and on which endpoints.

use crate::chosen_route::{ChosenRoute, RouteChoice, WaitingCall};
use crate::refusal::Refusal;
use std::sync::Arc;
use tenon_balance::{Availability, MEMBERS_MAX, Pick, QueueRequest, RouteQuery, TokenCharge, bits};
use tenon_contract::Operation;
use tenon_limits::{AdmissionRequest, ApplicableRules, Denied, LimitRegistry, Reservation};
use tenon_snapshot::{Endpoint, Key, Model, Snapshot};

/// The proof that a call was admitted, and the routes it may take. Only [`admit`] creates one.
#[derive(Debug)]
pub struct Admitted {
    key: Arc<Key>,
    model: Arc<Model>,
    /// One bit for each route that is cleared, usable and not tried yet.
    open: u64,
    /// What it has reserved of limits and hard budgets; `None` = none applies.
    reservation: Option<Box<Reservation>>,
}

/// Where limits and leases are counted, and what the call needs of them. The argument of `request` is whether a hard budget
/// applies: only then must the whole body be scanned.
#[derive(Clone, Copy)]
pub struct Limiting<'a> {
    pub registry: &'a Arc<LimitRegistry>,
    pub request: &'a dyn Fn(bool) -> AdmissionRequest,
}

#[derive(Debug)]
pub enum NotAdmitted {
    Refused(Refusal),
    /// A limit or a hard budget refused the call. With all limits and budgets that apply.
    Limited(ApplicableRules, Denied),
}

impl From<Refusal> for NotAdmitted {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// # Errors
/// In the order of what a caller may learn: model unknown, not allowed, no endpoint cleared, none that serves the
/// operation, none usable, a limit reached, a budget spent.
pub fn admit(snapshot: &Snapshot, key: &Arc<Key>, model: &str, operation: Operation, limiting: &Limiting<'_>) -> Result<Admitted, NotAdmitted> {
    if !key.may_call_models() {
        return Err(Refusal::MayNotCall.into());
    }
    let routing = snapshot.routing(&key.record.tenant_id).ok_or(Refusal::ModelNotFound)?;
    let model = routing.model(model).ok_or(Refusal::ModelNotFound)?;
    if !key.allows(&model.name) {
        return Err(Refusal::ModelNotAllowed.into());
    }
    let routes = || model.routes.iter().take(MEMBERS_MAX).enumerate();
    if model.routes.is_empty() {
        return Err(Refusal::NoUsableEndpoint.into());
    }
    let routes_where = |matches: &dyn Fn(&Endpoint) -> bool| routes().filter(|(_, r)| matches(&r.endpoint)).fold(0, |bits, (i, _)| bits | 1 << i);
    let cleared: u64 = routes_where(&|endpoint| key.ceiling.is_subset_of(&endpoint.cleared));
    let serving: u64 = cleared & routes_where(&|endpoint| endpoint.operations & 1 << operation as u32 != 0);
    let usable: u64 = serving & routes_where(&|endpoint| endpoint.target.is_ok());
    match (cleared, serving, usable) {
        (0, ..) => Err(Refusal::NoClearedEndpoint.into()),
        (_, 0, _) => Err(Refusal::OperationNotServed.into()),
        (_, _, 0) => Err(Refusal::NoUsableEndpoint.into()),
        (_, _, open) => Ok(Admitted { key: key.clone(), model: model.clone(), open, reservation: reserve(key, model, limiting)? }),
    }
}

/// Reserves what the call needs of limits and budgets. This comes last, so that a call refused for another reason is
/// counted nowhere.
fn reserve(key: &Key, model: &Model, limiting: &Limiting<'_>) -> Result<Option<Box<Reservation>>, NotAdmitted> {
    if key.rules.is_none() && model.rules.is_none() {
        return Ok(None);
    }
    let applies = ApplicableRules { key: key.rules.clone(), model: model.rules.clone() };
    if applies.is_empty() {
        return Ok(None);
    }
    let request = (limiting.request)(applies.has_hard_budget());
    let reserved = applies.admit(limiting.registry, &request);
    reserved.map(|reservation| Some(Box::new(reservation))).map_err(|denied| NotAdmitted::Limited(applies, denied))
}

impl Admitted {
    /// Moves out what was reserved: it belongs to the call from its first attempt to its end.
    pub fn take_reservation(&mut self) -> Option<Box<Reservation>> {
        self.reservation.take()
    }

    /// The limits and budgets that apply to the call.
    #[must_use]
    pub fn applies(&self) -> ApplicableRules {
        ApplicableRules { key: self.key.rules.clone(), model: self.model.rules.clone() }
    }

    #[must_use]
    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Routes that may still be tried, one bit each.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Takes one of the routes not tried yet. A route that was taken is not offered again.
    pub fn choose(&mut self, query: &RouteQuery) -> RouteChoice {
        match self.model.group.pick(self.open, query) {
            Pick::Taken { index, trial } => {
                self.open &= !(1 << index);
                RouteChoice::Taken(ChosenRoute::new(self.model.clone(), index, trial, query.now_ms))
            }
            Pick::Full(routes) => RouteChoice::Full(routes),
            Pick::None => RouteChoice::Exhausted,
        }
    }

    /// Waits for one of these routes (from [`RouteChoice::Full`]). `None` = their queues are full too.
    #[must_use]
    pub fn wait(&self, routes: u64, request: QueueRequest) -> Option<WaitingCall> {
        WaitingCall::join(&self.model, routes & self.open, request)
    }

    /// The route that was granted after waiting. `None` = it became unhealthy meanwhile and another is usable: choose
    /// again.
    pub fn take_granted(&mut self, waiting: WaitingCall, grant: (u32, TokenCharge), now_ms: u64) -> Option<ChosenRoute> {
        let own = 1 << grant.0;
        let members = self.model.group.members();
        let is_usable = |index: usize| matches!(members[index].state.availability(now_ms), Availability::Usable(_));
        let has_alternative = bits(self.open & !own).any(is_usable);
        let chosen = waiting.take(&self.model, grant, has_alternative, now_ms)?;
        self.open &= !own;
        Some(chosen)
    }
}
