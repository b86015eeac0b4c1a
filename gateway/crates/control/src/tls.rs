//! TLS to the control plane. Authorities, certificate and key are read from their files again for each connection, so
//! that renewing them needs no restart. If a file cannot be used, the last good configuration stays in force.

use crate::certificate_refusal::{RecordingResolver, RefusalDetector};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;

/// The files for TLS to the control plane, all PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities to trust in addition to the public ones.
    pub authorities: Option<PathBuf>,
    /// The client certificate (the leaf first) and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0} cannot be used for TLS: {1}")]
    File(PathBuf, String),
    #[error("TLS could not be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl TlsFiles {
    /// # Errors
    /// When a file cannot be read, or certificate and key do not belong together.
    pub fn read(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = &self.authorities {
            for authority in certificates(path)? {
                roots.add(authority).map_err(|e| unusable(path, &e))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, &e))?;
                builder.with_client_auth_cert(certificates(certificate)?, secret).map_err(|e| unusable(certificate, &e))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = read.map_err(|e| unusable(path, &e))?;
    if certificates.is_empty() {
        return Err(unusable(path, &"it contains no certificate"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File(path.to_owned(), reason.to_string())
}

/// Connects with the current contents of the files.
#[derive(Clone)]
pub(crate) struct TlsDialer {
    files: TlsFiles,
    last: Arc<Mutex<Arc<ClientConfig>>>,
}

impl TlsDialer {
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let first = Arc::new(files.read()?);
        Ok(Self { files, last: Arc::new(Mutex::new(first)) })
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.files.read() {
            Ok(config) => *last = Arc::new(config),
            Err(error) => tracing::error!("the last good TLS configuration for the control plane stays in force: {error}"),
        }
        last.clone()
    }
}

impl Service<Uri> for TlsDialer {
    type Response = TokioIo<RefusalDetector>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut config = (*self.config()).clone();
        let was_requested = Arc::new(AtomicBool::default());
        config.client_auth_cert_resolver =
            Arc::new(RecordingResolver { inner: config.client_auth_cert_resolver, was_requested: was_requested.clone() });
        let connector = TlsConnector::from(Arc::new(config));
        let presented = self.files.identity.as_ref().map(|(certificate, _)| certificate.display().to_string());
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await?;
            Ok(TokioIo::new(RefusalDetector { stream, was_requested, presented, has_received: false }))
        })
    }
}
