//! Decides whether a call may run: it reserves what it needs of every limit and hard budget of its key and model, or
//! nothing.

use crate::budget::{Budget, LEASE_PARTS_MAX, LeasePart};
use crate::limit::Exceeded;
use crate::limit_registry::LimitRegistry;
use crate::price::{Price, UpperBound, in_force};
use crate::reservation::{BudgetReservation, LimitReservation, Reservation};
use crate::rules::{ModelRules, Rules};
use std::sync::Arc;

/// If the request does not bound its output, it is estimated as this many tokens.
const OUTPUT_ESTIMATE: u64 = 512;
/// The cap that is set if neither the caller nor the model's declaration has one.
const OUTPUT_OPEN: u64 = 4096;
/// With less than this left for an open response, waiting for another lease is worthwhile.
const OUTPUT_WORTHWHILE: u64 = 1024;
/// The tokens that an engine's chat template adds around messages. Everything else is in the body.
pub const TEMPLATE_ALLOWANCE: u64 = 1024;

/// How much output a call may produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// No tokens at all.
    None,
    /// The caller's own cap, for each choice.
    Capped(u64),
    /// As much as the model likes: a cap is set if a hard budget needs one.
    Open,
    /// As `Open`, for an API with this default.
    Default(u64),
    /// Cannot be bounded, and no cap can be set.
    Unbounded,
}

/// A call to be admitted, as its request describes it.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionRequest {
    pub now_us: u64,
    pub unix_ms: i64,
    pub body_bytes: u64,
    pub output: Output,
    /// Requested choices (`n`), at least 1.
    pub choices: u64,
    pub images: u64,
    /// All input is text in the body, so its bytes bound its tokens. Only used if a hard budget applies.
    pub is_text: bool,
    /// A session, which no number of tokens bounds.
    pub is_endless: bool,
    /// It has already waited for a lease, so it takes what there is.
    pub has_waited: bool,
}

/// The limits and budgets that apply to a call.
#[derive(Clone, Debug, Default)]
pub struct ApplicableRules {
    pub key: Option<Arc<Rules>>,
    pub model: Option<Arc<ModelRules>>,
}

#[derive(Clone, Debug)]
pub enum Denied {
    Exceeded(Exceeded),
    /// A hard budget applies and the model has no price in its currency.
    NotPriced,
    /// A hard budget applies and nothing bounds the cost of this call.
    Unbounded,
    /// The leases of this process do not have enough left.
    Short {
        budget: Arc<Budget>,
        /// The whole upper bound.
        nano: i64,
        /// What would be enough: the bound with the shortest response, if this gateway sets the cap.
        least: i64,
    },
}

impl ApplicableRules {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.key.is_none() && self.model.as_ref().is_none_or(|model| model.rules.limits.is_empty() && model.rules.budgets.is_empty())
    }

    #[must_use]
    pub fn has_hard_budget(&self) -> bool {
        self.rules().any(Rules::has_hard_budget)
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rules> {
        self.key.iter().map(|rules| &**rules).chain(self.model.iter().map(|model| &model.rules))
    }

    /// Reserves everything that the call needs, or nothing.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub fn admit(&self, registry: &Arc<LimitRegistry>, request: &AdmissionRequest) -> Result<Reservation, Denied> {
        let mut reservation = Reservation::new(registry);
        // A reservation that is dropped before it was opened gives everything back.
        for rules in self.rules() {
            for limit in &rules.limits {
                let reserved = LimitReservation::reserve(limit, estimate(request), request.now_us).map_err(Denied::Exceeded)?;
                reservation.limits.push(reserved);
            }
        }
        if self.has_hard_budget() {
            self.reserve_from_budgets(&mut reservation, request)?;
        }
        Ok(reservation)
    }

    /// Reserves what one response within a session needs, or nothing: a request and tokens of every limit. The session
    /// itself counts as the running call.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub fn admit_turn(&self, registry: &Arc<LimitRegistry>, request: &AdmissionRequest) -> Result<Reservation, Denied> {
        let mut reservation = Reservation::new(registry);
        for limit in self.rules().flat_map(|rules| rules.limits.iter()) {
            reservation.limits.push(LimitReservation::reserve_turn(limit, estimate(request), request.now_us).map_err(Denied::Exceeded)?);
        }
        if self.has_hard_budget() {
            self.reserve_from_budgets(&mut reservation, request)?;
        }
        Ok(reservation)
    }

    /// Counts what was used without a reservation, whether it fits or not.
    pub fn count(&self, requests: u64, tokens: u64, now_us: u64) {
        self.rules().flat_map(|rules| rules.limits.iter()).for_each(|limit| limit.count(requests, tokens, now_us));
    }

    fn reserve_from_budgets(&self, reservation: &mut Reservation, request: &AdmissionRequest) -> Result<(), Denied> {
        let model = self.model.as_deref().ok_or(Denied::NotPriced)?;
        let budgets = || self.rules().flat_map(|rules| rules.budgets.iter());
        let mut priced = Vec::new();
        for budget in budgets() {
            let price = in_force(&model.prices, &budget.currency, request.unix_ms).ok_or(Denied::NotPriced)?;
            priced.push((budget, price));
        }
        let (usage_max, is_open) = usage_bound(model, &priced, request)?;
        let mut short = match reserve_budgets(reservation, &priced, &usage_max, request.now_us) {
            Ok(()) => {
                reservation.cap = is_open.then(|| usage_max.output / request.choices.max(1));
                return Ok(());
            }
            Err(short) => short,
        };
        if let Denied::Short { budget, least, .. } = &mut short
            && is_open
            && let Some((_, price)) = priced.iter().find(|(other, _)| Arc::ptr_eq(other, budget))
        {
            *least = price.upper_bound(&UpperBound { output: request.choices.max(1), ..usage_max });
        }
        let usage_max = UpperBound { output: payable(&priced, &usage_max, request), ..usage_max };
        let enough = if request.has_waited { request.choices } else { OUTPUT_WORTHWHILE.saturating_mul(request.choices) };
        if !is_open || usage_max.output < enough.max(1) || reserve_budgets(reservation, &priced, &usage_max, request.now_us).is_err() {
            return Err(short);
        }
        reservation.cap = Some(usage_max.output / request.choices.max(1));
        // This call gets a shorter response; the next one should not have to.
        priced.iter().for_each(|(budget, _)| budget.set_low());
        reservation.registry.lease_needed.notify();
        Ok(())
    }
}

fn estimate(request: &AdmissionRequest) -> u64 {
    let output = match request.output {
        Output::None => 0,
        Output::Capped(cap) => cap,
        Output::Default(default) => default.min(OUTPUT_ESTIMATE),
        Output::Open | Output::Unbounded => OUTPUT_ESTIMATE,
    };
    (request.body_bytes / 4).saturating_add(output.saturating_mul(request.choices.max(1)))
}

type Priced<'a> = [(&'a Arc<Budget>, &'a Arc<Price>)];

/// The most that the call can use, and whether a cap must be set to make this true.
fn usage_bound(model: &ModelRules, priced: &Priced<'_>, request: &AdmissionRequest) -> Result<(UpperBound, bool), Denied> {
    let media = !request.is_text;
    let is_free = |price: &Price| price.input_max(true) == 0 && price.output_max(true) == 0;
    if request.is_endless && !priced.iter().all(|(_, price)| is_free(price)) {
        return Err(Denied::Unbounded);
    }
    let context = (model.context_tokens > 0).then_some(model.context_tokens);
    let input = if request.is_text {
        let bytes = request.body_bytes.saturating_add(TEMPLATE_ALLOWANCE);
        bytes.min(context.unwrap_or(u64::MAX))
    } else if let Some(context) = context {
        context
    } else if priced.iter().all(|(_, price)| price.input_max(true) == 0) {
        0
    } else {
        return Err(Denied::Unbounded);
    };
    let declared = (model.output_tokens_max > 0).then_some(model.output_tokens_max);
    let (output, is_open) = match request.output {
        Output::None => (0, false),
        Output::Capped(cap) => (cap.min(declared.unwrap_or(cap)), false),
        Output::Open => (declared.unwrap_or(OUTPUT_OPEN), true),
        Output::Default(default) => (default.min(declared.unwrap_or(default)), true),
        Output::Unbounded => match declared {
            Some(declared) => (declared, false),
            None if priced.iter().all(|(_, price)| price.output_max(true) == 0) => (0, false),
            None => return Err(Denied::Unbounded),
        },
    };
    let output = output.saturating_mul(request.choices.max(1));
    Ok((UpperBound { input, output, images: request.images, media }, is_open))
}

/// Output tokens that every budget can pay in addition to the rest of the call, a multiple of the choices.
fn payable(priced: &Priced<'_>, usage_max: &UpperBound, request: &AdmissionRequest) -> u64 {
    let without = UpperBound { output: 0, ..*usage_max };
    let tokens = priced.iter().map(|(budget, price)| {
        let rest = budget.left(request.now_us).saturating_sub(price.upper_bound(&without));
        match (u64::try_from(rest), price.output_max(usage_max.media)) {
            (Err(_), _) => 0,
            (Ok(_), 0) => usage_max.output,
            (Ok(rest), each) => {
                let tokens = u64::try_from(u128::from(rest) * 1_000_000 / u128::from(each)).unwrap_or(u64::MAX).min(usage_max.output);
                // The whole is rounded up once, its parts were rounded separately.
                let is_one_too_many = price.upper_bound(&UpperBound { output: tokens, ..*usage_max }) > budget.left(request.now_us);
                tokens - u64::from(is_one_too_many && tokens > 0)
            }
        }
    });
    let tokens = tokens.min().unwrap_or(0).min(usage_max.output);
    tokens - tokens % request.choices.max(1)
}

fn reserve_budgets(reservation: &mut Reservation, priced: &Priced<'_>, usage_max: &UpperBound, now_us: u64) -> Result<(), Denied> {
    let mut parts: Vec<LeasePart> = Vec::new();
    for (budget, price) in priced {
        let nano = price.upper_bound(usage_max);
        let before = parts.len();
        let Some(is_low) = budget.reserve(nano, now_us, &mut parts) else {
            parts.iter().for_each(|part| part.lease.settle(part.nano, 0));
            reservation.budgets.clear();
            return Err(Denied::Short { budget: (*budget).clone(), nano, least: nano });
        };
        if is_low {
            reservation.registry.lease_needed.notify();
        }
        let input = price.upper_bound(&UpperBound { output: 0, images: 0, ..*usage_max });
        reservation.budgets.push(BudgetReservation { price: (*price).clone(), from: before, to: parts.len(), input });
    }
    if parts.len() > LEASE_PARTS_MAX {
        parts.iter().for_each(|part| part.lease.settle(part.nano, 0));
        reservation.budgets.clear();
        return Err(Denied::Unbounded);
    }
    reservation.parts = parts;
    Ok(())
}
