//! Which limits and budgets apply to a key or a model, computed when a governance table arrives. A request only reads
//! them.

use crate::budget::Budget;
use crate::limit::{Limit, LimitKind};
use crate::limit_registry::LimitRegistry;
use crate::price::Price;
use hashbrown::HashMap;
use http::HeaderValue;
use std::fmt::Write;
use std::sync::Arc;
use tenon_contract as wire;
use tenon_contract::{BudgetMode, Subject};

type Map<V> = HashMap<Box<str>, V, foldhash::fast::RandomState>;

/// The limits and hard budgets of one key, or of one model.
#[derive(Debug, Default)]
pub struct Rules {
    pub(crate) limits: Box<[Arc<Limit>]>,
    pub(crate) budgets: Box<[Arc<Budget>]>,
    /// `RateLimit-Policy`, ready to be sent; `None` = no limits.
    policy: Option<HeaderValue>,
    /// The names of each limit's policies, in the order of [`KINDS`].
    pub(crate) names: Box<[[Box<str>; 3]]>,
}

/// A model's own rules and what it costs.
#[derive(Debug, Default)]
pub struct ModelRules {
    pub rules: Rules,
    /// Sorted by the time they come into force. Empty if the tenant has no hard budget.
    pub(crate) prices: Box<[Arc<Price>]>,
    /// No call has more input; 0 = unknown.
    pub(crate) context_tokens: u64,
    /// No call has more output; 0 = unknown.
    pub(crate) output_tokens_max: u64,
}

/// The compiled table of one tenant.
#[derive(Debug, Default)]
pub struct TenantRules {
    tenant: Option<Arc<Rules>>,
    by_subject: Map<Vec<Rule>>,
    tenant_wide: Vec<Rule>,
    prices: Map<Vec<Arc<Price>>>,
}

#[derive(Clone, Debug)]
enum Rule {
    Limit(Arc<Limit>),
    Budget(Arc<Budget>),
}

/// The owner of a key.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub project_id: &'a str,
    pub key_id: &'a str,
    pub principal_id: &'a str,
}

impl TenantRules {
    #[must_use]
    pub fn compile(table: &wire::Governance, registry: &LimitRegistry) -> Self {
        let mut rules = Self::default();
        for limit in &table.limits {
            let state = registry.limit(limit);
            rules.add(limit.subject(), &limit.subject_id, &limit.also_keys, &Rule::Limit(state));
        }
        let mut has_hard = false;
        for budget in table.budgets.iter().filter(|budget| budget.mode() == BudgetMode::Hard) {
            has_hard = true;
            rules.add(budget.subject(), &budget.subject_id, &budget.also_keys, &Rule::Budget(registry.budget(budget)));
        }
        if has_hard {
            for price in &table.prices {
                rules.prices.entry(price.model.as_str().into()).or_default().push(Arc::new(Price::new(price)));
            }
            rules.prices.values_mut().for_each(|versions| versions.sort_by_key(|price| price.effective_from_unix_ms));
        }
        rules.tenant = Rules::of(&[&rules.tenant_wide]).map(Arc::new);
        rules
    }

    fn add(&mut self, subject: Subject, subject_id: &str, also_keys: &[String], rule: &Rule) {
        if subject == Subject::Tenant {
            return self.tenant_wide.push(rule.clone());
        }
        let also = also_keys.iter().map(String::as_str).filter(|_| subject == Subject::Key);
        for id in also.chain([subject_id]) {
            self.by_subject.entry(subject_key(subject, id)).or_default().push(rule.clone());
        }
    }

    fn rules_of(&self, subject: Subject, id: &str) -> &[Rule] {
        self.by_subject.get(&*subject_key(subject, id)).map_or(&[], Vec::as_slice)
    }

    /// What applies to every call with this key.
    #[must_use]
    pub fn of_key(&self, owner: &Owner<'_>) -> Option<Arc<Rules>> {
        let own = [
            self.rules_of(Subject::Key, owner.key_id),
            self.rules_of(Subject::Principal, owner.principal_id),
            self.rules_of(Subject::Project, owner.project_id),
        ];
        if own.iter().all(|rules| rules.is_empty()) {
            return self.tenant.clone();
        }
        Rules::of(&[own[0], own[1], own[2], &self.tenant_wide]).map(Arc::new)
    }

    /// What applies to every call of this model.
    #[must_use]
    pub fn of_model(&self, model: &wire::Model) -> Option<Arc<ModelRules>> {
        let rules = Rules::of(&[self.rules_of(Subject::Model, &model.name)]);
        let prices = self.prices.get(model.name.as_str());
        if rules.is_none() && prices.is_none() {
            return None;
        }
        Some(Arc::new(ModelRules {
            rules: rules.unwrap_or_default(),
            prices: prices.into_iter().flatten().cloned().collect(),
            context_tokens: u64::from(model.context_tokens),
            output_tokens_max: u64::from(model.output_tokens_max),
        }))
    }
}

fn subject_key(subject: Subject, id: &str) -> Box<str> {
    format!("{}:{id}", subject as i32).into()
}

impl Rules {
    fn of(parts: &[&[Rule]]) -> Option<Self> {
        let all = || parts.iter().flat_map(|rules| rules.iter());
        let limits: Box<[_]> = all().filter_map(|rule| if let Rule::Limit(limit) = rule { Some(limit.clone()) } else { None }).collect();
        let budgets: Box<[_]> = all().filter_map(|rule| if let Rule::Budget(budget) = rule { Some(budget.clone()) } else { None }).collect();
        let policy = policy(&limits);
        (!limits.is_empty() || !budgets.is_empty()).then(|| Self {
            names: (0..limits.len()).map(|index| names_of(&limits, index)).collect(),
            limits,
            budgets,
            policy,
        })
    }

    #[must_use]
    pub fn policy(&self) -> Option<&HeaderValue> {
        self.policy.as_ref()
    }

    #[must_use]
    pub fn has_hard_budget(&self) -> bool {
        !self.budgets.is_empty()
    }
}

pub(crate) const KINDS: [LimitKind; 3] = [LimitKind::Requests, LimitKind::Tokens, LimitKind::Concurrency];

/// The name of a policy: its subject and what it limits. `nth` distinguishes two limits of one subject.
fn name_of(limit: &Limit, kind: LimitKind, nth: usize, out: &mut String) {
    let subject = match limit.subject() {
        Subject::Tenant | Subject::Unspecified => "tenant",
        Subject::Project => "project",
        Subject::Key => "key",
        Subject::Model => "model",
        Subject::Principal => "principal",
    };
    let unit = match kind {
        LimitKind::Requests => "requests",
        LimitKind::Tokens => "tokens",
        LimitKind::Concurrency => "concurrency",
    };
    // Writing to a string does not fail.
    let _ = if nth == 0 { write!(out, "\"{subject}-{unit}\"") } else { write!(out, "\"{subject}-{unit}-{}\"", nth + 1) };
}

fn names_of(limits: &[Arc<Limit>], index: usize) -> [Box<str>; 3] {
    KINDS.map(|kind| {
        let mut name = String::new();
        name_of(&limits[index], kind, nth_of(limits, index), &mut name);
        name.into()
    })
}

/// How many limits of the same subject come before this one.
fn nth_of(limits: &[Arc<Limit>], index: usize) -> usize {
    limits[..index].iter().filter(|other| other.subject() == limits[index].subject()).count()
}

/// draft-ietf-httpapi-ratelimit-headers-10: a list of quoted names with `q` (quota), `qu` (its unit) and `w` (window in
/// seconds).
fn policy(limits: &[Arc<Limit>]) -> Option<HeaderValue> {
    let mut text = String::new();
    for (index, limit) in limits.iter().enumerate() {
        for kind in KINDS.into_iter().filter(|kind| limit.of_fleet(*kind) > 0) {
            if !text.is_empty() {
                text.push_str(", ");
            }
            name_of(limit, kind, nth_of(limits, index), &mut text);
            let rest = match kind {
                LimitKind::Requests => ";w=60",
                LimitKind::Tokens => ";qu=\"tokens\";w=60",
                LimitKind::Concurrency => ";qu=\"concurrent-requests\"",
            };
            let _ = write!(text, ";q={}{rest}", limit.of_fleet(kind));
        }
    }
    HeaderValue::from_str(&text).ok().filter(|value| !value.is_empty())
}
