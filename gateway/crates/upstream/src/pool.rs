//! Connections for HTTP that wait for their next call: each thread's own, the last used first.

use crate::connection;
use crate::connector::Connector;
use crate::request_body::RequestBody;
use crate::resolver::Resolver;
use crate::trust_store::TrustStore;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use tenon_snapshot::Target;
use tokio::io::{AsyncRead, AsyncWrite};

pub type Sender = connection::Sender<RequestBody>;

/// One thread's connections, by the pool number of their target.
pub struct ConnectionPools {
    idle: RefCell<Vec<Vec<Sender>>>,
    connector: Connector,
    /// For every connection to an endpoint, pooled or not.
    resolver: Resolver,
    idle_max: usize,
}

impl ConnectionPools {
    #[must_use]
    pub fn new(trust: Arc<TrustStore>, idle_max: usize) -> Self {
        Self { idle: RefCell::default(), connector: Connector::new(trust), resolver: Resolver::default(), idle_max }
    }

    /// A connection that was used before and still seems alive.
    #[inline]
    pub async fn checkout(&self, target: &Target) -> Option<Sender> {
        loop {
            let mut sender = self.idle.borrow_mut().get_mut(target.pool)?.pop()?;
            if sender.is_ready() || (!sender.is_closed() && sender.ready().await.is_ok()) {
                return Some(sender);
            }
        }
    }

    #[inline]
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

    /// Drops connections that the endpoint has closed.
    pub fn prune(&self) {
        self.idle.borrow_mut().iter_mut().for_each(|pool| pool.retain(|sender| !sender.is_closed()));
    }

    /// A connection that is not pooled.
    ///
    /// # Errors
    /// When no connection can be made.
    pub async fn dial(&self, target: &Target, http2: bool) -> io::Result<Box<dyn ByteStream>> {
        if target.origin.tls {
            return Ok(Box::new(self.connector.dial(&self.resolver, &target.origin, http2).await?));
        }
        Ok(Box::new(self.resolver.connect(&target.origin).await?))
    }

    /// A new connection for HTTP.
    ///
    /// # Errors
    /// When no connection can be made.
    pub async fn connect(&self, target: &Target) -> io::Result<Sender> {
        self.connector.connect(&self.resolver, &target.origin).await
    }
}

/// A connection to an endpoint, with TLS or without.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}
