//! May this key call this model, and on which endpoints.

use crate::refusal::Refusal;
use std::sync::Arc;
use tenon_contract::Operation;
use tenon_snapshot::{Endpoint, Key, Model, Snapshot, Target};

/// Routes of one model that are looked at; more are ignored, and nobody has so many.
const ROUTES_MAX: usize = 64;

/// The proof that a call was admitted, and the routes it may take. Only [`admit`] makes one.
#[derive(Debug)]
pub struct Admitted {
    key: Arc<Key>,
    model: Arc<Model>,
    /// One bit for each route that is cleared, usable and not tried yet.
    open: u64,
}

/// A route that was picked.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub model: Arc<Model>,
    pub index: usize,
}

/// # Errors
/// In the order of what a caller may learn: model unknown, not allowed, no endpoint cleared, none that serves the operation, none usable.
pub fn admit(snapshot: &Snapshot, key: &Arc<Key>, model: &str, operation: Operation) -> Result<Admitted, Refusal> {
    if !key.may_call_models() {
        return Err(Refusal::MayNotCall);
    }
    let routing = snapshot.routing(&key.record.tenant_id).ok_or(Refusal::ModelNotFound)?;
    let model = routing.model(model).ok_or(Refusal::ModelNotFound)?;
    if !key.allows(&model.name) {
        return Err(Refusal::ModelNotAllowed);
    }
    let routes = || model.routes.iter().take(ROUTES_MAX).enumerate();
    if model.routes.is_empty() {
        return Err(Refusal::NoUsableEndpoint);
    }
    let bits = |wanted: &dyn Fn(&Endpoint) -> bool| routes().filter(|(_, r)| wanted(&r.endpoint)).fold(0, |bits, (i, _)| bits | 1 << i);
    let cleared: u64 = bits(&|endpoint| key.ceiling.is_subset_of(&endpoint.cleared));
    let serving: u64 = cleared & bits(&|endpoint| endpoint.operations & 1 << operation as u32 != 0);
    let usable: u64 = serving & bits(&|endpoint| endpoint.target.is_ok());
    match (cleared, serving, usable) {
        (0, ..) => Err(Refusal::NoClearedEndpoint),
        (_, 0, _) => Err(Refusal::OperationNotServed),
        (_, _, 0) => Err(Refusal::NoUsableEndpoint),
        (_, _, open) => Ok(Admitted { key: key.clone(), model: model.clone(), open }),
    }
}

impl Admitted {
    #[must_use]
    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// Picks one of the routes not tried yet, by weight. `None` when all were tried.
    pub fn choose(&mut self, random: u64) -> Option<Chosen> {
        let routes = self.model.routes.iter().take(ROUTES_MAX).enumerate();
        let open: u64 = self.open;
        let candidates = routes.filter(|(i, _)| open & (1 << i) != 0);
        let total: u64 = candidates.clone().map(|(_, r)| r.weight).sum();
        let mut ticket = random.checked_rem(total)?;
        for (index, route) in candidates {
            if ticket < route.weight {
                self.open &= !(1 << index);
                return Some(Chosen { model: self.model.clone(), index });
            }
            ticket -= route.weight;
        }
        None
    }
}

impl Chosen {
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.model.routes[self.index].endpoint
    }

    #[must_use]
    pub fn upstream_model(&self) -> Option<&str> {
        self.model.routes[self.index].upstream_model.as_deref()
    }

    /// Only usable endpoints are chosen, so this is `Some` for what [`Admitted::choose`] gave.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        self.endpoint().target.as_ref().ok()
    }
}
