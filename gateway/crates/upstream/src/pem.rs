//! Certificates in PEM files, and how a changed file is noticed. For both directions: towards endpoints and towards callers.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error, PemObject};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0} cannot be used for TLS: {1}")]
    Files(PathBuf, String),
    #[error("TLS could not be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// The certificates in a file.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let invalid = |error: Error| TlsError::Files(path.to_owned(), error.to_string());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(invalid)?.collect();
    let certificates = certificates.map_err(invalid)?;
    if certificates.is_empty() {
        return Err(TlsError::Files(path.to_owned(), "it holds no certificate".into()));
    }
    Ok(certificates)
}

/// Changes when a file is written again or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl FileStamp {
    /// `None` when the file cannot be read.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok()?, bytes: metadata.len(), inode: metadata.ino() })
    }
}
