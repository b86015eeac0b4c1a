//! May this call run: every limit and hard budget of its key and its model, all or nothing.

use crate::budget::{Budget, Piece};
use crate::grant::{Grant, Hold, Taken};
use crate::limit::Exceeded;
use crate::price::{Most, Price, in_force};
use crate::registry::Registry;
use crate::rules::{ModelRules, Rules};
use std::sync::Arc;

/// What the caller's own words leave open is estimated as this many tokens of output.
const OUTPUT_ESTIMATE: u64 = 512;
/// The cap that is spliced in where neither the caller nor the model's declaration has one.
const OUTPUT_OPEN: u64 = 4096;
/// Less room than this for an open answer is worth waiting for another lease.
const OUTPUT_WORTHWHILE: u64 = 1024;
/// What an engine's chat template puts around messages, in tokens. Its text is not in the body, everything else is.
pub const TEMPLATE_ALLOWANCE: u64 = 1024;

/// How much a call may put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// No tokens at all.
    None,
    /// The caller's own cap, for each choice.
    Capped(u64),
    /// Whatever the model likes: a cap is spliced in if a hard budget needs one.
    Open,
    /// As `Open`, for an API whose own default is this.
    Default(u64),
    /// Cannot be bounded, and no cap can be spliced in.
    Unbounded,
}

/// A call that wants to run, by its own words.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub now_us: u64,
    pub unix_ms: i64,
    pub body_bytes: u64,
    pub output: Output,
    /// Answers asked for (`n`), at least 1.
    pub choices: u64,
    pub images: u64,
    /// All input stands in the body as text, so its bytes bound its tokens. Only looked at where a hard budget applies.
    pub is_text: bool,
    /// A session: no number of tokens bounds it.
    pub is_endless: bool,
    /// It has waited for a lease: what there is now must do.
    pub has_waited: bool,
}

/// What applies to a call.
#[derive(Clone, Debug, Default)]
pub struct Applies {
    pub key: Option<Arc<Rules>>,
    pub model: Option<Arc<ModelRules>>,
}

#[derive(Clone, Debug)]
pub enum Denied {
    Exceeded(Exceeded),
    /// A hard budget applies and the model has no price in its currency.
    NotPriced,
    /// A hard budget applies and nothing bounds what this call may cost.
    Unbounded,
    /// The leases here do not hold so much.
    Short {
        budget: Arc<Budget>,
        /// The whole bound.
        nano: i64,
        /// What would do: the bound with the shortest answer, where we set the cap.
        least: i64,
    },
}

impl Applies {
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

    /// Takes everything that the call needs, or nothing.
    ///
    /// # Errors
    /// What stands against it.
    pub fn admit(&self, registry: &Arc<Registry>, ask: &Ask) -> Result<Grant, Denied> {
        let mut grant = Grant::new(registry);
        // A grant that is dropped before it was opened gives everything back.
        for rules in self.rules() {
            for limit in &rules.limits {
                let taken = Taken::take(limit, estimate(ask), ask.now_us).map_err(Denied::Exceeded)?;
                grant.taken.push(taken);
            }
        }
        if self.has_hard_budget() {
            self.hold(&mut grant, ask)?;
        }
        Ok(grant)
    }

    /// Takes what one answer within a session needs, a request and tokens of every limit, or nothing. The session's own grant stands for it
    /// among the calls that run.
    ///
    /// # Errors
    /// What stands against it.
    pub fn admit_turn(&self, registry: &Arc<Registry>, ask: &Ask) -> Result<Grant, Denied> {
        let mut grant = Grant::new(registry);
        for limit in self.rules().flat_map(|rules| rules.limits.iter()) {
            grant.taken.push(Taken::take_turn(limit, estimate(ask), ask.now_us).map_err(Denied::Exceeded)?);
        }
        if self.has_hard_budget() {
            self.hold(&mut grant, ask)?;
        }
        Ok(grant)
    }

    /// Counts what was used without being asked for, whether it fits or not.
    pub fn count(&self, requests: u64, tokens: u64, now_us: u64) {
        self.rules().flat_map(|rules| rules.limits.iter()).for_each(|limit| limit.count(requests, tokens, now_us));
    }

    fn hold(&self, grant: &mut Grant, ask: &Ask) -> Result<(), Denied> {
        let model = self.model.as_deref().ok_or(Denied::NotPriced)?;
        let budgets = || self.rules().flat_map(|rules| rules.budgets.iter());
        let mut priced = Vec::new();
        for budget in budgets() {
            let price = in_force(&model.prices, &budget.currency, ask.unix_ms).ok_or(Denied::NotPriced)?;
            priced.push((budget, price));
        }
        let (most, open) = bound(model, &priced, ask)?;
        let short = match hold_all(grant, &priced, &most, ask.now_us) {
            Ok(()) => {
                grant.cap = open.then(|| most.output / ask.choices.max(1));
                return Ok(());
            }
            Err(short) => short,
        };
        let mut short = short;
        if let Denied::Short { budget, least, .. } = &mut short
            && open
            && let Some((_, price)) = priced.iter().find(|(other, _)| Arc::ptr_eq(other, budget))
        {
            *least = price.upper_bound(&Most { output: ask.choices.max(1), ..most });
        }
        let most = Most { output: payable(&priced, &most, ask), ..most };
        let enough = if ask.has_waited { ask.choices } else { OUTPUT_WORTHWHILE.saturating_mul(ask.choices) };
        if !open || most.output < enough.max(1) || hold_all(grant, &priced, &most, ask.now_us).is_err() {
            return Err(short);
        }
        grant.cap = Some(most.output / ask.choices.max(1));
        // It goes with a shorter answer; the next should not have to.
        priced.iter().for_each(|(budget, _)| budget.set_low());
        grant.registry.bell.ring();
        Ok(())
    }
}

fn estimate(ask: &Ask) -> u64 {
    let output = match ask.output {
        Output::None => 0,
        Output::Capped(cap) => cap,
        Output::Default(default) => default.min(OUTPUT_ESTIMATE),
        Output::Open | Output::Unbounded => OUTPUT_ESTIMATE,
    };
    (ask.body_bytes / 4).saturating_add(output.saturating_mul(ask.choices.max(1)))
}

type Priced<'a> = [(&'a Arc<Budget>, &'a Arc<Price>)];

/// The most that the call can use, and whether a cap must be spliced in to make this true.
fn bound(model: &ModelRules, priced: &Priced<'_>, ask: &Ask) -> Result<(Most, bool), Denied> {
    let media = !ask.is_text;
    let is_free = |price: &Price| price.input_max(true) == 0 && price.output_max(true) == 0;
    if ask.is_endless && !priced.iter().all(|(_, price)| is_free(price)) {
        return Err(Denied::Unbounded);
    }
    let context = (model.context_tokens > 0).then_some(model.context_tokens);
    let input = if ask.is_text {
        let bytes = ask.body_bytes.saturating_add(TEMPLATE_ALLOWANCE);
        bytes.min(context.unwrap_or(u64::MAX))
    } else if let Some(context) = context {
        context
    } else if priced.iter().all(|(_, price)| price.input_max(true) == 0) {
        0
    } else {
        return Err(Denied::Unbounded);
    };
    let declared = (model.output_tokens_max > 0).then_some(model.output_tokens_max);
    let (output, open) = match ask.output {
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
    let output = output.saturating_mul(ask.choices.max(1));
    Ok((Most { input, output, images: ask.images, media }, open))
}

/// Output tokens that every budget can pay beside the rest of the call, a multiple of the choices.
fn payable(priced: &Priced<'_>, most: &Most, ask: &Ask) -> u64 {
    let without = Most { output: 0, ..*most };
    let tokens = priced.iter().map(|(budget, price)| {
        let rest = budget.left(ask.now_us).saturating_sub(price.upper_bound(&without));
        match (u64::try_from(rest), price.output_max(most.media)) {
            (Err(_), _) => 0,
            (Ok(_), 0) => most.output,
            (Ok(rest), each) => {
                let tokens = u64::try_from(u128::from(rest) * 1_000_000 / u128::from(each)).unwrap_or(u64::MAX).min(most.output);
                // The whole is rounded up once, its parts were apart.
                let is_one_too_many = price.upper_bound(&Most { output: tokens, ..*most }) > budget.left(ask.now_us);
                tokens - u64::from(is_one_too_many && tokens > 0)
            }
        }
    });
    let tokens = tokens.min().unwrap_or(0).min(most.output);
    tokens - tokens % ask.choices.max(1)
}

fn hold_all(grant: &mut Grant, priced: &Priced<'_>, most: &Most, now_us: u64) -> Result<(), Denied> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (budget, price) in priced {
        let nano = price.upper_bound(most);
        let before = pieces.len();
        let Some(is_low) = budget.reserve(nano, now_us, &mut pieces) else {
            pieces.iter().for_each(|piece| piece.lease.settle(piece.nano, 0));
            grant.holds.clear();
            return Err(Denied::Short { budget: (*budget).clone(), nano, least: nano });
        };
        if is_low {
            grant.registry.bell.ring();
        }
        let input = price.upper_bound(&Most { output: 0, images: 0, ..*most });
        grant.holds.push(Hold { price: (*price).clone(), from: before, to: pieces.len(), input });
    }
    if pieces.len() > crate::PIECES_MAX {
        pieces.iter().for_each(|piece| piece.lease.settle(piece.nano, 0));
        grant.holds.clear();
        return Err(Denied::Unbounded);
    }
    grant.pieces = pieces;
    Ok(())
}
