//! Models, routes and endpoints of one tenant, checked and unsealed once, when they arrive.

use crate::balance::{capacity_key, group};
use crate::marking::{MarkingSet, Markings};
use crate::seal::SealingKey;
use crate::served::Served;
use crate::watched::Watched;
use hashbrown::HashMap;
use http::uri::{Scheme, Uri};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;
use tenon_balance::{EndpointState, Group, Registry};
use tenon_contract as wire;
use tenon_limits::{ModelRules, TenantRules};

/// Where connections go; endpoints with the same origin share a pool, by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// It may stand in a private network. A part of the origin, so that a connection made under one rule never serves under another.
    pub private: bool,
}

#[derive(Debug)]
pub struct Target {
    pub origin: Origin,
    /// Small number of the origin, stable for the process: index into each thread's pools.
    pub pool: usize,
    pub host_header: HeaderValue,
    /// `/v1` or whatever stands before `/chat/completions`, without a slash at the end.
    pub path_prefix: String,
    /// `Bearer …`, or for Anthropic's protocol the value of `x-api-key`; marked sensitive so that nothing prints it.
    pub authorization: Option<HeaderValue>,
    /// It is spoken to in Anthropic's dialect.
    pub is_anthropic: bool,
    /// OpenAI's own models want `max_completion_tokens`; engines know `max_tokens` best.
    pub is_openai_itself: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("its URL must be http:// or https:// with a host, and without credentials, query or fragment")]
    Url,
    #[error("its credential does not open under this gateway's sealing key")]
    Credential,
    #[error("its protocol is not spoken by this gateway")]
    Protocol,
}

/// Zero = the gateway's default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeouts {
    pub connect: Duration,
    pub headers: Duration,
    pub first_token: Duration,
    pub idle: Duration,
    pub total: Duration,
}

#[derive(Debug)]
pub struct Endpoint {
    pub id: Box<str>,
    pub cleared: MarkingSet,
    pub timeouts: Timeouts,
    pub target: Result<Target, Unusable>,
    /// What is known of it at run time.
    pub state: Arc<EndpointState>,
    pub watched: Watched,
    /// Calls at a time; 0 = any number.
    pub(crate) running_max: u32,
    /// What it serves: one bit for each `Operation` by its number.
    pub operations: u32,
    /// What of it in the caller's own dialect; the rest is translated.
    pub native: u32,
    /// It tells running numbers in streams when asked.
    pub continuous_usage: bool,
    /// It goes on and bills it all when its caller leaves: only its own end tells how much.
    pub bills_aborted: bool,
}

#[derive(Debug)]
pub struct Route {
    pub endpoint: Arc<Endpoint>,
    /// `None` = the caller's name is passed on.
    pub upstream_model: Option<Box<str>>,
    pub weight: u32,
}

#[derive(Debug)]
pub struct Model {
    pub name: Box<str>,
    pub routes: Box<[Route]>,
    /// Limits, hard budgets and prices of every call of it; `None` = none.
    pub rules: Option<Arc<ModelRules>>,
    /// The same routes, by the same numbers, as they are picked.
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
    /// By id, those that no model routes to included.
    pub endpoints: Box<[Arc<Endpoint>]>,
    models: HashMap<Box<str>, Arc<Model>, foldhash::fast::RandomState>,
}

/// What compiling needs from the writer: the key, the marking bits and the pool numbers.
#[derive(Debug)]
pub(crate) struct Compiler {
    pub sealing: Arc<SealingKey>,
    pub markings: Markings,
    pub pools: std::collections::HashMap<Origin, usize>,
    pub registry: Arc<Registry>,
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

    /// The same table, under its tenant's limits, budgets and prices as they are now.
    pub(crate) fn governed(mut self, tenant: Option<&TenantRules>) -> Self {
        for wire in &self.table.models {
            // Compiled a moment ago: nobody else holds it.
            if let Some(model) = self.models.get_mut(wire.name.as_str()).and_then(Arc::get_mut) {
                model.rules = tenant.and_then(|tenant| tenant.of_model(wire));
            }
        }
        self
    }

    /// Endpoints that cannot be used.
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
        // Both lists are made of the same routes: what names no endpoint is in neither.
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
            group: group(wire, known(), self.registry.budget(tenant_id, &wire.name)),
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
            tracing::error!(endpoint_id = %wire.endpoint_id, "endpoint cannot be used: {reason}");
        }
        let ms = |value: u32| Duration::from_millis(u64::from(value));
        let timeouts = Timeouts {
            connect: ms(wire.connect_timeout_ms),
            headers: ms(wire.headers_timeout_ms),
            first_token: ms(wire.first_token_timeout_ms),
            idle: ms(wire.idle_timeout_ms),
            total: ms(wire.total_timeout_ms),
        };
        let served = Served::of(wire);
        Endpoint {
            id: wire.endpoint_id.as_str().into(),
            cleared: self.markings.set_of(&wire.cleared_markings),
            timeouts,
            operations: served.operations,
            native: served.native,
            continuous_usage: wire.abort_billing() == wire::AbortBilling::Continuous,
            bills_aborted: wire.abort_billing() == wire::AbortBilling::Continues,
            state: self.registry.endpoint(&wire.endpoint_id, capacity_key(wire, target.as_ref().ok())),
            watched: Watched::of(wire, target.as_ref().ok()),
            running_max: wire.concurrency_max,
            target,
        }
    }

    fn target(&mut self, wire: &wire::Endpoint) -> Result<Target, Unusable> {
        if wire.protocol() == wire::Protocol::Unspecified && wire.protocol != 0 {
            return Err(Unusable::Protocol);
        }
        let (origin, host_header, path_prefix) = parse_url(&wire.base_url, wire.private_network_allowed).ok_or(Unusable::Url)?;
        let authorization = match &wire.sealed_credential[..] {
            [] => None,
            sealed => Some(credential(wire.protocol(), &self.sealing.open(sealed, &wire.endpoint_id).map_err(|_| Unusable::Credential)?)?),
        };
        let next = self.pools.len();
        let pool = *self.pools.entry(origin.clone()).or_insert(next);
        let is_openai_itself = origin.host == "api.openai.com" || origin.host.ends_with(".openai.azure.com");
        let is_anthropic = wire.protocol() == wire::Protocol::Anthropic;
        Ok(Target { origin, pool, host_header, path_prefix, authorization, is_anthropic, is_openai_itself })
    }
}

const SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");

fn credential(protocol: wire::Protocol, credential: &[u8]) -> Result<HeaderValue, Unusable> {
    let scheme: &[u8] = if protocol == wire::Protocol::Anthropic { b"" } else { b"Bearer " };
    let mut value = HeaderValue::from_bytes(&[scheme, credential].concat()).map_err(|_| Unusable::Credential)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The guard against odd addresses: schemes other than these two, user information and queries are refused, not ignored.
pub(crate) fn parse_url(text: &str, private: bool) -> Option<(Origin, HeaderValue, String)> {
    let uri: Uri = text.parse().ok()?;
    let tls = match uri.scheme()? {
        scheme if *scheme == Scheme::HTTP => false,
        scheme if *scheme == Scheme::HTTPS => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    if authority.as_str().contains('@') || authority.host().is_empty() || uri.query().is_some() || text.contains('#') {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host_header = HeaderValue::from_str(authority.as_str()).ok()?;
    Some((Origin { tls, host, port, private }, host_header, uri.path().trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::parse_url;

    #[test]
    fn only_plain_http_addresses_pass() {
        for bad in ["ftp://h/v1", "file:///etc/passwd", "http://user:secret@h/v1", "http://h/v1?x=1", "http://h/v1#x", "h:80", "/v1", ""] {
            assert!(parse_url(bad, true).is_none(), "{bad}");
        }
        let (origin, host, prefix) = parse_url("http://[::1]:8000/v1/", true).unwrap();
        assert_eq!((origin.host.as_str(), origin.port, origin.tls), ("::1", 8000, false));
        assert_eq!((host.to_str().unwrap(), prefix.as_str()), ("[::1]:8000", "/v1"));
        assert_eq!(parse_url("https://api.example.com", false).unwrap().0.port, 443);
    }
}
