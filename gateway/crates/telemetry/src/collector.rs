//! The client of the collector: one POST for each batch, on its own connection (batches are seconds apart).

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PATH: &str = "/v1/traces";

#[derive(Debug, thiserror::Error)]
#[error("the address of the OTLP collector must be http://host[:port][/path] or https://…, without user or query")]
pub struct EndpointError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the collector answered {0}")]
    Refused(StatusCode),
}

/// Gives the TLS configuration that checks the collector's certificate. Called for each connection.
pub type TlsConfigSource = dyn Fn() -> Arc<ClientConfig> + Send + Sync;

pub(crate) struct Collector {
    host: String,
    port: u16,
    authority: HeaderValue,
    path: Uri,
    tls: Option<Box<TlsConfigSource>>,
}

impl Collector {
    pub fn new(endpoint: &str, tls: Box<TlsConfigSource>) -> Result<Self, EndpointError> {
        let uri: Uri = endpoint.parse().map_err(|_| EndpointError)?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(EndpointError),
        };
        let authority = uri.authority().filter(|text| !text.as_str().contains('@')).ok_or(EndpointError)?;
        if uri.query().is_some() {
            return Err(EndpointError);
        }
        let base = uri.path_and_query().map_or("", PathAndQuery::path).trim_end_matches('/');
        Ok(Self {
            host: host_of(authority),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| EndpointError)?,
            path: format!("{base}{PATH}").parse().map_err(|_| EndpointError)?,
            tls: secure.then_some(tls),
        })
    }

    pub async fn send(&self, message: Vec<u8>) -> Result<(), SendError> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        let request = self.request(message);
        let status = match &self.tls {
            None => exchange(stream, request).await?,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                exchange(TlsConnector::from(tls()).connect(name, stream).await?, request).await?
            }
        };
        if status.is_success() { Ok(()) } else { Err(SendError::Refused(status)) }
    }

    fn request(&self, message: Vec<u8>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(message.into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static("tenon-gateway"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        request
    }
}

/// Without the brackets of an IPv6 address: neither the resolver nor TLS accepts them.
fn host_of(authority: &Authority) -> String {
    authority.host().trim_start_matches('[').trim_end_matches(']').to_owned()
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, request: Request<Full<Bytes>>) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Only the answer's head is read; the connection ends with its sender.
    let answer = async move { sender.send_request(request).await.map(|response| response.status()) };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(endpoint: &str) -> Result<Collector, EndpointError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = Arc::new(tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
        Collector::new(endpoint, Box::new(move || tls.clone()))
    }

    #[test]
    fn spans_go_below_the_endpoints_path() {
        for (endpoint, host, port, path) in [
            ("http://127.0.0.1:4318", "127.0.0.1", 4318, "/v1/traces"),
            ("http://collector", "collector", 80, "/v1/traces"),
            ("https://collector/otlp/", "collector", 443, "/otlp/v1/traces"),
            ("http://[::1]:4318/", "::1", 4318, "/v1/traces"),
        ] {
            let collector = collector(endpoint).unwrap();
            assert_eq!((&*collector.host, collector.port, collector.path.path()), (host, port, path), "{endpoint}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_used_are_refused() {
        for endpoint in ["", "collector:4318", "grpc://collector", "http://user:word@collector", "http://collector/?token=x"] {
            assert!(collector(endpoint).is_err(), "{endpoint}");
        }
    }
}
