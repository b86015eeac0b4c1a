//! TLS towards upstreams: ring, the public authorities and those the operator adds.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the file of extra certificate authorities cannot be read: {0}")]
    Authorities(String),
    #[error("{0} cannot be used for TLS: {1}")]
    Files(std::path::PathBuf, String),
    #[error("TLS could not be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// # Errors
/// When a certificate in `extra_pem` is none.
pub fn client_config(extra_pem: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in extra_pem.into_iter().flat_map(CertificateDer::pem_slice_iter) {
        let certificate = certificate.map_err(|e| TlsError::Authorities(e.to_string()))?;
        roots.add(certificate).map_err(|e| TlsError::Authorities(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
