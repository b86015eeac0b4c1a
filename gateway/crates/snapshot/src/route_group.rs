//! Builds the group from which `balance` picks a route.

use crate::endpoint::Endpoint;
use crate::target::Target;
use ring::digest::{Context, SHA256};
use std::sync::Arc;
use tenon_balance::{CapacityKey, Group, Member, RetryAllowance, Strategy};
use tenon_contract as wire;

/// Endpoints with the same address and the same credential are one server, whoever configured them: they share its
/// capacity. With the address alone, one tenant would feel another's load at a provider that both use.
pub(crate) fn capacity_key(endpoint: &wire::Endpoint, target: Option<&Target>) -> CapacityKey {
    let mut hash = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    match target {
        Some(target) => {
            add(&[u8::from(target.origin.tls)]);
            add(target.origin.host.as_bytes());
            add(&target.origin.port.to_le_bytes());
            add(target.path_prefix.as_bytes());
            add(target.authorization.as_ref().map_or(b"", |value| value.as_bytes()));
        }
        None => add(endpoint.endpoint_id.as_bytes()),
    }
    let mut key = CapacityKey::default();
    key.copy_from_slice(hash.finish().as_ref());
    key
}

pub(crate) fn group<'a>(
    model: &wire::Model,
    routes: impl Iterator<Item = (&'a wire::Route, &'a Arc<Endpoint>)>,
    retry_allowance: Arc<RetryAllowance>,
) -> Group {
    let strategy = match model.strategy() {
        wire::Strategy::Unspecified | wire::Strategy::Weighted => Strategy::Weighted,
        wire::Strategy::LeastOutstanding => Strategy::LeastOutstanding,
        wire::Strategy::Latency => Strategy::Latency,
        wire::Strategy::Cost => Strategy::Cost,
        wire::Strategy::Session => Strategy::Session,
        wire::Strategy::Prefix => Strategy::Prefix,
        wire::Strategy::Engine => Strategy::Engine,
    };
    let member = |(route, endpoint): (&wire::Route, &Arc<Endpoint>)| Member {
        state: endpoint.state.clone(),
        weight: route.weight.max(1),
        tier: route.tier,
        running_max: endpoint.running_max,
        input_cost: route.input_cost_nano_per_million,
        output_cost: route.output_cost_nano_per_million,
    };
    Group::new(strategy, retry_allowance, routes.map(member).collect())
}
