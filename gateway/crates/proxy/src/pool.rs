//! Connections to upstreams: each thread's own, last used first.

use crate::addresses::Resolver;
use crate::outgoing::Outgoing;
use http_body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use tenon_snapshot::Target;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

pub type Sender = SendRequest<Outgoing>;

pub struct Pools {
    idle: RefCell<Vec<Vec<Sender>>>,
    tls: TlsConnector,
    tls_http2: TlsConnector,
    /// For every connection to an upstream, pooled or not.
    pub resolver: Resolver,
    idle_max: usize,
}

impl Pools {
    pub fn new(tls: TlsConnector, idle_max: usize) -> Self {
        let mut http2 = (**tls.config()).clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        let tls_http2 = TlsConnector::from(Arc::new(http2));
        Self { idle: RefCell::default(), tls, tls_http2, resolver: Resolver::default(), idle_max }
    }

    /// A connection that was used before and still seems alive.
    pub async fn checkout(&self, target: &Target) -> Option<Sender> {
        loop {
            let mut sender = self.idle.borrow_mut().get_mut(target.pool)?.pop()?;
            if sender.is_ready() || (!sender.is_closed() && sender.ready().await.is_ok()) {
                return Some(sender);
            }
        }
    }

    pub fn give_back(&self, pool: usize, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() <= pool {
            idle.resize_with(pool + 1, Vec::new);
        }
        if idle[pool].len() < self.idle_max {
            idle[pool].push(sender);
        }
    }

    /// Lets go of connections the upstream has closed.
    pub fn prune(&self) {
        self.idle.borrow_mut().iter_mut().for_each(|pool| pool.retain(|sender| !sender.is_closed()));
    }

    /// A connection that is not pooled.
    pub async fn dial(&self, target: &Target, http2: bool) -> io::Result<Box<dyn Wire>> {
        let stream = self.resolver.connect(&target.origin).await?;
        if !target.origin.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(target.origin.host.clone()).map_err(io::Error::other)?;
        let tls = if http2 { &self.tls_http2 } else { &self.tls };
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    pub async fn connect(&self, target: &Target) -> io::Result<Sender> {
        let stream = self.resolver.connect(&target.origin).await?;
        if !target.origin.tls {
            return handshake(stream).await;
        }
        // The name is the endpoint's, whatever address it led to.
        let name = ServerName::try_from(target.origin.host.clone()).map_err(io::Error::other)?;
        handshake(self.tls.connect(name, stream).await?).await
    }
}

/// A connection to an upstream, TLS or not.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

pub(crate) async fn handshake<B>(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> io::Result<SendRequest<B>>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Its errors come out of the sender or the body; here there is nobody to tell.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}
