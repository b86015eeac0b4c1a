//! One tenant's models and routes, checked once when their table arrives; the endpoints' credentials are unsealed then.

use crate::endpoint::{Endpoint, Timeouts};
use crate::markings::Markings;
use crate::probes::ProbeTargets;
use crate::route_group::{capacity_key, group};
use crate::sealing::SealingKey;
use crate::served_operations::ServedOperations;
use crate::target::{Origin, Target, UnusableTarget, credential, parse_url};
use hashbrown::HashMap;
use http::HeaderName;
use std::sync::Arc;
use std::time::Duration;
use tenon_balance::{EndpointRegistry, Group};
use tenon_contract as wire;
use tenon_limits::{ModelRules, TenantRules};

#[derive(Debug)]
pub struct Route {
    pub endpoint: Arc<Endpoint>,
    /// `None` = the caller's model name is passed on.
    pub upstream_model: Option<Box<str>>,
    pub weight: u32,
}

#[derive(Debug)]
pub struct Model {
    pub name: Box<str>,
    pub routes: Box<[Route]>,
    /// Limits, hard budgets and prices of every call of it; `None` = none.
    pub rules: Option<Arc<ModelRules>>,
    /// The same routes, by the same numbers, for picking one.
    pub group: Group,
    /// Zero = the gateway's default.
    pub queue_timeout: Duration,
    /// The header that names a session (`STRATEGY_SESSION`).
    pub affinity_header: HeaderName,
    /// Attempts after the first; zero = the gateway's default.
    pub retries_max: u32,
    /// Zero = unknown.
    pub context_tokens: u32,
    pub output_tokens_max: u32,
}

#[derive(Debug)]
pub struct Routing {
    pub table: wire::RoutingTable,
    /// By id, including those that no model routes to.
    pub endpoints: Box<[Arc<Endpoint>]>,
    models: HashMap<Box<str>, Arc<Model>, foldhash::fast::RandomState>,
}

/// What compiling a table needs from the writer: the sealing key, the marking bits and the pool numbers.
#[derive(Debug)]
pub(crate) struct Compiler {
    pub sealing: Arc<SealingKey>,
    pub markings: Markings,
    pub pools: std::collections::HashMap<Origin, usize>,
    pub registry: Arc<EndpointRegistry>,
}

impl Routing {
    pub(crate) fn compile(table: wire::RoutingTable, compiler: &mut Compiler) -> Self {
        let endpoints: std::collections::HashMap<&str, Arc<Endpoint>> =
            table.endpoints.iter().map(|e| (e.endpoint_id.as_str(), Arc::new(compiler.endpoint(e)))).collect();
        let mut models: HashMap<Box<str>, Arc<Model>, foldhash::fast::RandomState> = HashMap::default();
        for model in &table.models {
            let compiled = compiler.model(&table.tenant_id, model, &endpoints);
            models.insert(compiled.name.clone(), Arc::new(compiled));
        }
        let mut endpoints: Vec<_> = endpoints.into_values().collect();
        endpoints.sort_unstable_by(|one, two| one.id.cmp(&two.id));
        let endpoints = endpoints.into();
        Self { models, endpoints, table }
    }

    /// The same table with its tenant's current limits, budgets and prices.
    pub(crate) fn with_rules(mut self, tenant: Option<&TenantRules>) -> Self {
        for wire in &self.table.models {
            // Just compiled, so nobody else holds it.
            if let Some(model) = self.models.get_mut(wire.name.as_str()).and_then(Arc::get_mut) {
                model.rules = tenant.and_then(|tenant| tenant.of_model(wire));
            }
        }
        self
    }

    /// The number of endpoints that cannot be used.
    #[must_use]
    pub fn unusable(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.target.is_err()).count()
    }

    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(name)
    }

    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }
}

impl Compiler {
    fn model(&self, tenant_id: &str, wire: &wire::Model, endpoints: &std::collections::HashMap<&str, Arc<Endpoint>>) -> Model {
        // Both lists hold the same routes: one that names no endpoint is in neither.
        let known = || wire.routes.iter().filter_map(|r| Some((r, endpoints.get(r.endpoint_id.as_str())?)));
        let routes = known().map(|(r, endpoint)| Route {
            endpoint: endpoint.clone(),
            upstream_model: (!r.upstream_model.is_empty() && r.upstream_model != wire.name).then(|| r.upstream_model.as_str().into()),
            weight: r.weight.max(1),
        });
        Model {
            name: wire.name.as_str().into(),
            routes: routes.collect(),
            rules: None,
            group: group(wire, known(), self.registry.retry_allowance(tenant_id, &wire.name)),
            queue_timeout: Duration::from_millis(u64::from(wire.queue_timeout_ms)),
            affinity_header: wire.affinity_header.parse().unwrap_or(SESSION_ID),
            retries_max: wire.retries_max,
            context_tokens: wire.context_tokens,
            output_tokens_max: wire.output_tokens_max,
        }
    }

    fn endpoint(&mut self, wire: &wire::Endpoint) -> Endpoint {
        let target = self.target(wire);
        if let Err(reason) = &target {
            tracing::error!(endpoint_id = %wire.endpoint_id, "an endpoint cannot be used: {reason}");
        }
        let ms = |value: u32| Duration::from_millis(u64::from(value));
        let timeouts = Timeouts {
            connect: ms(wire.connect_timeout_ms),
            headers: ms(wire.headers_timeout_ms),
            first_token: ms(wire.first_token_timeout_ms),
            idle: ms(wire.idle_timeout_ms),
            total: ms(wire.total_timeout_ms),
        };
        let served = ServedOperations::of(wire);
        Endpoint {
            id: wire.endpoint_id.as_str().into(),
            cleared: self.markings.set_of(&wire.cleared_markings),
            timeouts,
            operations: served.operations,
            native: served.native,
            continuous_usage: wire.abort_billing() == wire::AbortBilling::Continuous,
            bills_aborted: wire.abort_billing() == wire::AbortBilling::Continues,
            state: self.registry.endpoint(&wire.endpoint_id, capacity_key(wire, target.as_ref().ok())),
            probes: ProbeTargets::of(wire, target.as_ref().ok()),
            running_max: wire.concurrency_max,
            target,
        }
    }

    fn target(&mut self, wire: &wire::Endpoint) -> Result<Target, UnusableTarget> {
        if wire.protocol() == wire::Protocol::Unspecified && wire.protocol != 0 {
            return Err(UnusableTarget::Protocol);
        }
        let (origin, host_header, path_prefix) = parse_url(&wire.base_url, wire.private_network_allowed).ok_or(UnusableTarget::Url)?;
        let authorization = match &wire.sealed_credential[..] {
            [] => None,
            sealed => Some(credential(wire.protocol(), &self.sealing.open(sealed, &wire.endpoint_id).map_err(|_| UnusableTarget::Credential)?)?),
        };
        let next = self.pools.len();
        let pool = *self.pools.entry(origin.clone()).or_insert(next);
        let is_openai_itself = origin.host == "api.openai.com" || origin.host.ends_with(".openai.azure.com");
        let is_anthropic = wire.protocol() == wire::Protocol::Anthropic;
        Ok(Target { origin, pool, host_header, path_prefix, authorization, is_anthropic, is_openai_itself })
    }
}

const SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
