//! Which certificate authorities endpoints are checked against: the public ones, and those of a file that is read again when it changes.

use crate::pem::{FileStamp, TlsError, certificates};
use arc_swap::ArcSwap;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by everything that connects. Open connections stay open when it changes.
#[derive(Debug)]
pub struct TrustStore {
    file: Option<PathBuf>,
    /// With its own TLS session cache: a session is not resumed when another file's authorities vouched for it.
    current: ArcSwap<ClientConfig>,
    seen: Mutex<Option<FileStamp>>,
    pub reloads: AtomicU64,
    pub reload_failures: AtomicU64,
}

impl TrustStore {
    /// # Errors
    /// When the file cannot be read, or holds no certificate, or an invalid one.
    pub fn open(file: Option<PathBuf>) -> Result<Arc<Self>, TlsError> {
        let seen = Mutex::new(file.as_deref().and_then(FileStamp::of));
        let current = ArcSwap::new(config(file.as_deref())?);
        Ok(Arc::new(Self { file, current, seen, reloads: AtomicU64::default(), reload_failures: AtomicU64::default() }))
    }

    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }

    /// Reads the file again when it changed, or in any case with `force`. A file that cannot be used leaves the old authorities in force.
    pub fn reload(&self, force: bool) {
        let Some(file) = &self.file else {
            return;
        };
        let stamp = FileStamp::of(file);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp && !force {
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
            roots.add(certificate).map_err(|error| TlsError::Files(file.to_owned(), error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
