//! TLS towards callers: rustls with ring. Certificate, key and client authorities come from files and are read again when they change; a pair
//! that cannot be used leaves the old one in force.

use crate::base::peer::Peer;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tenon_upstream::pem::{FileStamp, TlsError, certificates};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM, the leaf first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who may vouch for callers' certificates. With it a caller may show one; none must.
    pub client_authorities: Option<PathBuf>,
}

/// What is spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    Http1,
    /// gRPC needs HTTP/2.
    Http2,
}

/// Shared by every listener of the process.
#[derive(Debug)]
pub struct TlsListener {
    files: TlsFiles,
    handshake: Duration,
    current: ArcSwap<Configs>,
    seen: Mutex<Vec<Option<FileStamp>>>,
    pub reloads: AtomicU64,
    pub reload_failures: AtomicU64,
    pub handshake_failures: AtomicU64,
}

#[derive(Debug)]
struct Configs {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl TlsListener {
    /// # Errors
    /// When a file cannot be read, or certificate and key do not belong together.
    pub fn open(files: TlsFiles, handshake: Duration) -> Result<Self, TlsError> {
        let seen = Mutex::new(stamps(&files));
        let current = ArcSwap::from_pointee(configs(&files)?);
        let counter = AtomicU64::default;
        let (reloads, reload_failures, handshake_failures) = (counter(), counter(), counter());
        Ok(Self { files, handshake, current, seen, reloads, reload_failures, handshake_failures })
    }

    /// Reads the files again when one of them changed, or in any case with `force`.
    pub fn reload(&self, force: bool) {
        let stamps = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamps && !force {
            return;
        }
        *seen = stamps;
        match configs(&self.files) {
            Ok(configs) => {
                self.current.store(Arc::new(configs));
                self.reloads.fetch_add(1, Relaxed);
                tracing::info!(certificate = %self.files.certificate.display(), "the certificate for callers was read again");
            }
            Err(error) => {
                self.reload_failures.fetch_add(1, Relaxed);
                tracing::error!("the new certificate for callers cannot be used, the old one stays: {error}");
            }
        }
    }

    /// Shakes hands within the time there is, and says who is there.
    ///
    /// # Errors
    /// When the other side is too slow, or speaks something else.
    pub async fn accept(&self, stream: TcpStream, mut peer: Peer, alpn: Alpn) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let configs = self.current.load();
        let config = if alpn == Alpn::Http1 { &configs.http1 } else { &configs.http2 };
        let shaking = TlsAcceptor::from(config.clone()).accept(stream);
        drop(configs);
        let shaken = tokio::time::timeout(self.handshake, shaking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = shaken.inspect_err(|_| {
            self.handshake_failures.fetch_add(1, Relaxed);
        })?;
        peer.certificate_sha256 = stream.get_ref().1.peer_certificates().and_then(|chain| Some(sha256(chain.first()?)));
        Ok((stream, peer))
    }
}

fn sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

fn stamps(files: &TlsFiles) -> Vec<Option<FileStamp>> {
    [&files.certificate, &files.key].into_iter().chain(&files.client_authorities).map(|path| FileStamp::of(path)).collect()
}

fn configs(files: &TlsFiles) -> Result<Configs, TlsError> {
    let wrong = |path: &Path, what: &str| TlsError::Files(path.to_owned(), what.to_owned());
    let chain: Vec<_> = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| wrong(&files.key, &e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|e| wrong(path, &e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|e| wrong(path, &e.to_string()))?)
        }
    };
    let mut http1 = builder.with_single_cert(chain, key).map_err(|e| wrong(&files.certificate, &e.to_string()))?;
    http1.ticketer = rustls::crypto::ring::Ticketer::new()?;
    let mut http2 = http1.clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    http2.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Configs { http1: Arc::new(http1), http2: Arc::new(http2) })
}
