//! TLS towards upstreams: ring, the public authorities and those the operator adds in a file that is read again when it changes.

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0} cannot be used for TLS: {1}")]
    Files(PathBuf, String),
    #[error("TLS could not be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Whom upstreams' certificates are judged by. Shared by all that connect; connections that are open stay open when it changes.
#[derive(Debug)]
pub struct Trust {
    file: Option<PathBuf>,
    /// With its own memory of sessions: none that another file's authorities vouched for is taken up again.
    current: ArcSwap<ClientConfig>,
    seen: Mutex<Option<Stamp>>,
    pub reloads: AtomicU64,
    pub reload_failures: AtomicU64,
}

impl Trust {
    /// # Errors
    /// When the file cannot be read, or holds what is no certificate, or none.
    pub fn open(file: Option<PathBuf>) -> Result<Arc<Self>, TlsError> {
        let seen = Mutex::new(file.as_ref().and_then(stamp));
        let current = ArcSwap::new(config(file.as_deref())?);
        Ok(Arc::new(Self { file, current, seen, reloads: AtomicU64::default(), reload_failures: AtomicU64::default() }))
    }

    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }

    /// Reads the file again when it changed, or when told to. One that cannot be used leaves the one before in force.
    pub fn look(&self, told_to: bool) {
        let Some(file) = &self.file else {
            return;
        };
        let stamp = stamp(file);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp && !told_to {
            return;
        }
        *seen = stamp;
        match config(Some(file)) {
            Ok(config) => {
                self.current.store(config);
                self.reloads.fetch_add(1, Relaxed);
                tracing::info!(file = %file.display(), "the authorities for endpoints were read again");
            }
            Err(error) => {
                self.reload_failures.fetch_add(1, Relaxed);
                tracing::error!("the new authorities for endpoints cannot be used, the old ones stay: {error}");
            }
        }
    }
}

fn config(file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = file {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|e| TlsError::Files(file.to_owned(), e.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// # Errors
/// When the file cannot be read, or holds none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |e: rustls::pki_types::pem::Error| TlsError::Files(path.to_owned(), e.to_string());
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect();
    let found = found.map_err(wrong)?;
    if found.is_empty() {
        return Err(TlsError::Files(path.to_owned(), "it holds no certificate".into()));
    }
    Ok(found)
}

/// What changes when a file is written again or replaced.
pub(crate) type Stamp = (SystemTime, u64, u64);

pub(crate) fn stamp(path: &PathBuf) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}
