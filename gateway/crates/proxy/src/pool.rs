//! Connections to upstreams: each thread's own, last used first.

use crate::addresses::Resolver;
use crate::outgoing::Outgoing;
use crate::sender::{self, Tls};
use crate::tls::Trust;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use tenon_snapshot::Target;
use tokio::io::{AsyncRead, AsyncWrite};

pub type Sender = sender::Sender<Outgoing>;

pub struct Pools {
    idle: RefCell<Vec<Vec<Sender>>>,
    tls: Tls,
    /// For every connection to an upstream, pooled or not.
    pub resolver: Resolver,
    idle_max: usize,
}

impl Pools {
    pub fn new(trust: Arc<Trust>, idle_max: usize) -> Self {
        Self { idle: RefCell::default(), tls: Tls::new(trust), resolver: Resolver::default(), idle_max }
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
        if target.origin.tls {
            return Ok(Box::new(self.tls.dial(&self.resolver, &target.origin, http2).await?));
        }
        Ok(Box::new(self.resolver.connect(&target.origin).await?))
    }

    pub async fn connect(&self, target: &Target) -> io::Result<Sender> {
        self.tls.connect(&self.resolver, &target.origin).await
    }
}

/// A connection to an upstream, TLS or not.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}
