//! What is polled of an endpoint, off the hot path: whether it is healthy, and how busy its engine is.

use crate::target::{Origin, Target, parse_url};
use http::HeaderValue;
use http::uri::PathAndQuery;
use tenon_contract::{self as wire, Engine};

#[derive(Debug)]
pub struct ProbeAddress {
    pub origin: Origin,
    pub host_header: HeaderValue,
    pub path: PathAndQuery,
}

#[derive(Debug)]
pub struct ProbeTargets {
    /// 2xx = healthy.
    pub health: Option<ProbeAddress>,
    pub metrics: Option<(Engine, ProbeAddress)>,
}

impl ProbeTargets {
    /// An unusable address is not polled; the endpoint itself keeps serving.
    pub(crate) fn of(endpoint: &wire::Endpoint, target: Option<&Target>) -> Self {
        let health = (!endpoint.health_path.is_empty()).then(|| health(&endpoint.health_path, target));
        let metrics = (!endpoint.metrics_url.is_empty()).then(|| metrics(&endpoint.metrics_url, endpoint.private_network_allowed));
        for (what, is_unusable) in [("health_path", matches!(health, Some(None))), ("metrics_url", matches!(metrics, Some(None)))] {
            if is_unusable {
                tracing::error!(endpoint_id = %endpoint.endpoint_id, "an endpoint's {what} cannot be used, so it is not polled");
            }
        }
        let metrics = metrics.flatten().map(|address| (endpoint.engine(), address));
        Self { health: health.flatten(), metrics }
    }
}

fn health(path: &str, target: Option<&Target>) -> Option<ProbeAddress> {
    let target = target?;
    let path = path.starts_with('/').then(|| path.parse().ok()).flatten()?;
    Some(ProbeAddress { origin: target.origin.clone(), host_header: target.host_header.clone(), path })
}

fn metrics(url: &str, private: bool) -> Option<ProbeAddress> {
    let (origin, host_header, path) = parse_url(url, private)?;
    let path = if path.is_empty() { PathAndQuery::from_static("/") } else { path.parse().ok()? };
    Some(ProbeAddress { origin, host_header, path })
}
