//! TLS around plain peers: an authority, a TLS front for an upstream, and a TLS tail for a caller.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Certificate and key, as PEM.
pub type Pair = (String, String);

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn issue(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A client that trusts it, and presents `own` when asked for a certificate.
    pub fn client(&self, own: Option<&Pair>, protocols: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// Terminates TLS in front of a plain upstream.
pub struct TlsFront {
    pub address: SocketAddr,
    /// The protocol that each handshake agreed on.
    pub agreed: Arc<Mutex<Vec<String>>>,
    /// Handshakes that failed.
    pub failed: Arc<AtomicUsize>,
}

impl TlsFront {
    /// Presents `pair` and offers only these protocols.
    pub fn start(to: SocketAddr, pair: &Pair, protocols: &[&str]) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pair.1.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (agreed, failed) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (noting, counting) = (agreed.clone(), failed.clone());
        let address = accept(move |near| {
            let (acceptor, noting, counting) = (acceptor.clone(), noting.clone(), counting.clone());
            async move {
                let Ok(mut near) = acceptor.accept(near).await else {
                    counting.fetch_add(1, Ordering::SeqCst);
                    return;
                };
                let protocol = near.get_ref().1.alpn_protocol().unwrap_or_default();
                noting.lock().unwrap().push(String::from_utf8_lossy(protocol).into_owned());
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
        Self { address, agreed, failed }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}

/// Connects to `localhost` with TLS for a plain caller. Returns the address to call.
pub fn tls_tail(to: SocketAddr, config: ClientConfig) -> SocketAddr {
    let connector = TlsConnector::from(Arc::new(config));
    accept(move |mut near| {
        let connector = connector.clone();
        async move {
            let far = TcpStream::connect(to).await.unwrap();
            if let Ok(mut far) = connector.connect(ServerName::try_from("localhost").unwrap(), far).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        }
    })
}

fn accept<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    address
}
