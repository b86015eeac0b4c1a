//! Makes connections to endpoints, with TLS or without, in the HTTP version that the endpoint speaks.

use crate::connection::{BoxError, Sender};
use crate::resolver::Resolver;
use crate::trust_store::TrustStore;
use http_body::Body;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use tenon_snapshot::Origin;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Origins that are remembered to speak HTTP/2 only. Beyond that, an origin is asked for HTTP/1.1 first each time.
const REMEMBERED_MAX: usize = 256;

/// Makes one thread's connections.
pub struct Connector {
    trust: Arc<TrustStore>,
    connectors: RefCell<TlsConnectors>,
    http2_only: RefCell<Vec<Origin>>,
}

/// One for each protocol that may be agreed on.
struct TlsConnectors {
    config: Arc<ClientConfig>,
    http1: TlsConnector,
    http2: TlsConnector,
}

impl TlsConnectors {
    fn new(config: Arc<ClientConfig>) -> Self {
        let offering = |protocol: &[u8]| {
            let mut config = (*config).clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(config))
        };
        Self { http1: offering(b"http/1.1"), http2: offering(b"h2"), config }
    }
}

impl Connector {
    #[must_use]
    pub fn new(trust: Arc<TrustStore>) -> Self {
        let connectors = RefCell::new(TlsConnectors::new(trust.config()));
        Self { trust, connectors, http2_only: RefCell::default() }
    }

    /// With the authorities that are trusted now.
    fn connector(&self, http2: bool) -> TlsConnector {
        let (config, mut connectors) = (self.trust.config(), self.connectors.borrow_mut());
        if !Arc::ptr_eq(&connectors.config, &config) {
            *connectors = TlsConnectors::new(config);
        }
        if http2 { connectors.http2.clone() } else { connectors.http1.clone() }
    }

    /// A connection that speaks this one protocol.
    ///
    /// # Errors
    /// When nothing answers, or the certificate is not valid for the endpoint's name, whatever address the name led to.
    pub async fn dial(&self, resolver: &Resolver, origin: &Origin, http2: bool) -> io::Result<TlsStream<TcpStream>> {
        let stream = resolver.connect(origin).await?;
        let name = ServerName::try_from(origin.host.clone()).map_err(io::Error::other)?;
        self.connector(http2).connect(name, stream).await
    }

    /// A connection for HTTP, in the version that the endpoint speaks.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub async fn connect<B>(&self, resolver: &Resolver, origin: &Origin) -> io::Result<Sender<B>>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Unpin + 'static,
    {
        if !origin.tls {
            return Sender::http1(resolver.connect(origin).await?).await;
        }
        if !self.http2_only.borrow().contains(origin) {
            match self.dial(resolver, origin, false).await {
                Ok(stream) => return Sender::http1(stream).await,
                Err(error) if !is_protocol_mismatch(&error) => return Err(error),
                Err(_) => self.remember(origin),
            }
        }
        Sender::http2(self.dial(resolver, origin, true).await?).await
    }

    fn remember(&self, origin: &Origin) {
        let mut known = self.http2_only.borrow_mut();
        if known.len() < REMEMBERED_MAX {
            known.push(origin.clone());
        }
    }
}

/// The endpoint speaks none of the protocols that it was offered (RFC 7301 §3.2).
fn is_protocol_mismatch(error: &io::Error) -> bool {
    let refused = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) == Some(&refused)
}
