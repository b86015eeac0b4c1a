//! The connection: who we say we are, keep-alive, pauses between attempts.

use crate::tls::{Dialler, TlsError, TlsFiles};
use std::error::Error;
use std::time::Duration;
use tenon_contract::gateway_control_client::GatewayControlClient;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A snapshot of a large installation; tonic's own limit is 4 MB.
const MESSAGE_MAX: usize = 512 << 20;
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// For leases: calls are refused until there is one.
const PAUSE_MAX_LEASES: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the control plane's URL {0} cannot be used: {1}")]
    Url(String, tonic::transport::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the gateway id and the enrolment token may hold visible ASCII characters only")]
    Identity,
    #[error("the control thread could not be started: {0}")]
    Thread(std::io::Error),
}

/// Whom to talk to, and as whom.
#[derive(Clone)]
pub struct Peer {
    pub url: String,
    pub gateway_id: String,
    pub token: String,
    /// Used with an `https:` address.
    pub tls: TlsFiles,
}

pub(crate) type Client = GatewayControlClient<InterceptedService<Channel, Identity>>;
pub(crate) type Shipping = Grpc<InterceptedService<Channel, Identity>>;

#[derive(Clone)]
pub(crate) struct Identity {
    authorization: MetadataValue<Ascii>,
    gateway_id: MetadataValue<Ascii>,
}

impl Interceptor for Identity {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request.metadata_mut().insert("tenon-gateway-id", self.gateway_id.clone());
        Ok(request)
    }
}

impl Peer {
    /// Whether it could be called like this; nobody is called.
    ///
    /// # Errors
    /// When the address, a certificate or the identity cannot be used.
    pub fn check(&self) -> Result<(), ControlError> {
        self.route().and_then(|_| self.identity()).map(drop)
    }

    pub(crate) fn route(&self) -> Result<Route, ControlError> {
        let wrong = |e| ControlError::Url(self.url.clone(), e);
        let endpoint = |url: String| Endpoint::from_shared(url).map_err(wrong);
        let Some(rest) = self.url.strip_prefix("https:") else {
            return Ok(Route { endpoint: patient(endpoint(self.url.clone())?), dialler: None });
        };
        let origin = endpoint(self.url.clone())?.uri().clone();
        let port = if origin.port().is_some() { "" } else { ":443" };
        // TLS is the dialler's: tonic's own reads its certificates once.
        let plain = endpoint(format!("http:{}{port}", rest.trim_end_matches('/')))?.origin(origin);
        Ok(Route { endpoint: patient(plain), dialler: Some(Dialler::open(self.tls.clone())?) })
    }

    pub(crate) fn identity(&self) -> Result<Identity, ControlError> {
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", self.token).parse().map_err(|_| ControlError::Identity)?;
        authorization.set_sensitive(true);
        let gateway_id = self.gateway_id.parse().map_err(|_| ControlError::Identity)?;
        Ok(Identity { authorization, gateway_id })
    }
}

/// Where the control plane is, and how it is reached.
pub(crate) struct Route {
    endpoint: Endpoint,
    /// With TLS.
    dialler: Option<Dialler>,
}

fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        // Rare, because gRPC servers in C count pings without data as abuse; silence is noticed by the missing heartbeats.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
}

/// A status with what lies beneath it: a refused certificate is a cause of a cause.
pub(crate) fn told(status: &tonic::Status) -> String {
    let mut said = vec![format!("{:?}: {}", status.code(), status.message())];
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.iter().any(|earlier| earlier.contains(&text)) {
            said.push(text);
        }
        cause = error.source();
    }
    said.join(": ")
}

/// Both ways to call, over one connection: the generated client, and the bare one for what is already encoded.
pub(crate) fn clients(route: Route, identity: Identity) -> (Client, Shipping) {
    let channel = match route.dialler {
        Some(dialler) => route.endpoint.connect_with_connector_lazy(dialler),
        None => route.endpoint.connect_lazy(),
    };
    let channel = InterceptedService::new(channel, identity);
    let client = GatewayControlClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX);
    (client, Grpc::new(channel))
}

/// Pauses between attempts: doubling, with jitter so that a fleet does not come back at once.
pub(crate) struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { failures: 0, longest: PAUSE_MAX }
    }
}

impl Backoff {
    pub fn of_leases() -> Self {
        Self { failures: 0, longest: PAUSE_MAX_LEASES }
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    fn next(&mut self) -> Duration {
        let longest = self.longest.min(Duration::from_millis(100) * 2_u32.pow(self.failures.min(6)));
        self.failures = self.failures.saturating_add(1);
        let jitter = u32::try_from(tenon_usage::random() % 512).unwrap_or(0);
        longest * (512 + jitter) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_leases_have_a_shorter_one() {
        let ms = Duration::from_millis;
        for (mut backoff, longest) in [(Backoff::default(), ms(5_000)), (Backoff::of_leases(), ms(1_000))] {
            let pauses: Vec<_> = (0..40).map(|_| backoff.next()).collect();
            assert!(pauses[0] <= ms(100) && pauses[1] <= ms(200));
            assert!(pauses[8..].iter().all(|pause| (longest / 2..=longest).contains(pause)), "{pauses:?}");
            backoff.succeeded();
            assert!(backoff.next() <= ms(100));
        }
    }
}
