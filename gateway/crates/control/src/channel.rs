//! The connection to the control plane: its address, the identity that this gateway presents, and keep-alive.

use crate::tls::{TlsDialer, TlsError, TlsFiles};
use std::error::Error;
use std::time::Duration;
use tenon_contract::gateway_control_client::GatewayControlClient;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Enough for the snapshot of a large installation; the default of tonic is 4 MB.
const MESSAGE_MAX: usize = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the control plane's URL {0} cannot be used: {1}")]
    Url(String, tonic::transport::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the gateway id and the enrolment token may contain only visible ASCII characters")]
    Identity,
    #[error("the control thread could not be started: {0}")]
    Thread(std::io::Error),
}

/// Where the control plane is, and the identity that this gateway presents to it.
#[derive(Clone)]
pub struct ControlPlane {
    pub url: String,
    pub gateway_id: String,
    pub token: String,
    /// Used with an `https:` address.
    pub tls: TlsFiles,
}

pub(crate) type Client = GatewayControlClient<InterceptedService<Channel, Identity>>;
pub(crate) type UsageClient = Grpc<InterceptedService<Channel, Identity>>;

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

impl ControlPlane {
    /// Checks the configuration without opening a connection.
    ///
    /// # Errors
    /// When the address, a certificate or the identity cannot be used.
    pub fn check(&self) -> Result<(), ControlError> {
        self.transport().and_then(|_| self.identity()).map(drop)
    }

    pub(crate) fn transport(&self) -> Result<Transport, ControlError> {
        let unusable = |e| ControlError::Url(self.url.clone(), e);
        let endpoint = |url: String| Endpoint::from_shared(url).map_err(unusable);
        let Some(rest) = self.url.strip_prefix("https:") else {
            return Ok(Transport { endpoint: with_keep_alive(endpoint(self.url.clone())?), dialer: None });
        };
        let origin = endpoint(self.url.clone())?.uri().clone();
        let port = if origin.port().is_some() { "" } else { ":443" };
        // TLS is left to the dialer: tonic reads certificates only once.
        let plain = endpoint(format!("http:{}{port}", rest.trim_end_matches('/')))?.origin(origin);
        Ok(Transport { endpoint: with_keep_alive(plain), dialer: Some(TlsDialer::open(self.tls.clone())?) })
    }

    pub(crate) fn identity(&self) -> Result<Identity, ControlError> {
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", self.token).parse().map_err(|_| ControlError::Identity)?;
        authorization.set_sensitive(true);
        let gateway_id = self.gateway_id.parse().map_err(|_| ControlError::Identity)?;
        Ok(Identity { authorization, gateway_id })
    }
}

/// The address of the control plane, and how to connect to it.
pub(crate) struct Transport {
    endpoint: Endpoint,
    /// `None` = without TLS.
    dialer: Option<TlsDialer>,
}

fn with_keep_alive(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        // Seldom, because gRPC servers in C count pings without data as abuse. Missing heartbeats reveal a silent
        // connection.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
}

/// A status with its chain of causes: a refused certificate is the cause of a cause.
pub(crate) fn describe(status: &Status) -> String {
    let mut parts = vec![format!("{:?}: {}", status.code(), status.message())];
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !parts.iter().any(|earlier| earlier.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    parts.join(": ")
}

/// Two clients over one connection: the generated one, and a bare one for usage batches, which are already encoded.
pub(crate) fn clients(transport: Transport, identity: Identity) -> (Client, UsageClient) {
    let channel = match transport.dialer {
        Some(dialer) => transport.endpoint.connect_with_connector_lazy(dialer),
        None => transport.endpoint.connect_lazy(),
    };
    let channel = InterceptedService::new(channel, identity);
    let client = GatewayControlClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX);
    (client, Grpc::new(channel))
}
