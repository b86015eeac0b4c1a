//! TLS towards the control plane. Authorities, certificate and key come from files and are read again for each connection, so that renewed
//! ones need no restart; files that cannot be used leave what was read before in force.

use crate::refusal::{Hearing, Noting};
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

/// What TLS towards the control plane is made of, all PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities to trust beside the public ones.
    pub authorities: Option<PathBuf>,
    /// A certificate to show (the leaf first), and its key.
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
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|e| unusable(path, &e))?;
    if found.is_empty() {
        return Err(unusable(path, &"it holds no certificate"));
    }
    Ok(found)
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::File(path.to_owned(), why.to_string())
}

/// Connects with what the files hold now.
#[derive(Clone)]
pub(crate) struct Dialler {
    files: TlsFiles,
    last: Arc<Mutex<Arc<ClientConfig>>>,
}

impl Dialler {
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let first = Arc::new(files.read()?);
        Ok(Self { files, last: Arc::new(Mutex::new(first)) })
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.files.read() {
            Ok(config) => *last = Arc::new(config),
            Err(error) => tracing::error!("what was read before stays in force for the control plane: {error}"),
        }
        last.clone()
    }
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<Hearing>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut config = (*self.config()).clone();
        let asked = Arc::new(AtomicBool::default());
        config.client_auth_cert_resolver = Arc::new(Noting { inner: config.client_auth_cert_resolver, asked: asked.clone() });
        let connector = TlsConnector::from(Arc::new(config));
        let shown = self.files.identity.as_ref().map(|(certificate, _)| certificate.display().to_string());
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await?;
            Ok(TokioIo::new(Hearing { stream, asked, shown, heard: false }))
        })
    }
}
