//! HTTP/2 connections to endpoints that speak gRPC, each shared by many calls of one thread.

use crate::executor::LocalExecutor;
use crate::pool::ByteStream;
use http_body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Calls on one connection before another is opened.
const CALLS_MAX: usize = 64;
/// Connections to one endpoint.
const CONNECTIONS_MAX: usize = 8;
const KEEP_ALIVE: Duration = Duration::from_secs(20);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

struct Connection<B> {
    sender: SendRequest<B>,
    calls: Rc<Cell<usize>>,
}

/// One of the calls that a connection carries.
pub struct CallSlot(Rc<Cell<usize>>);

impl CallSlot {
    fn on(calls: &Rc<Cell<usize>>) -> Self {
        calls.set(calls.get() + 1);
        Self(calls.clone())
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// One thread's connections, by the pool number of their target.
pub struct GrpcPool<B>(RefCell<Vec<Vec<Connection<B>>>>);

impl<B> Default for GrpcPool<B> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<B: Body<Data: Send, Error: Into<BoxError>> + Unpin + 'static> GrpcPool<B> {
    /// The least busy connection that has room, or the least busy of all once the endpoint has as many connections as it may.
    pub fn checkout(&self, pool: usize) -> Option<(SendRequest<B>, CallSlot)> {
        let mut pools = self.0.borrow_mut();
        let connections = pools.get_mut(pool)?;
        connections.retain(|connection| !connection.sender.is_closed());
        let least = connections.iter().min_by_key(|connection| connection.calls.get())?;
        let has_room = least.calls.get() < CALLS_MAX || connections.len() >= CONNECTIONS_MAX;
        has_room.then(|| (least.sender.clone(), CallSlot::on(&least.calls)))
    }

    /// Shares the connection with later calls. Its first call runs until the slot is dropped.
    pub fn add(&self, pool: usize, sender: &SendRequest<B>) -> CallSlot {
        let calls = Rc::new(Cell::new(0));
        let first = CallSlot::on(&calls);
        let mut pools = self.0.borrow_mut();
        if pools.len() <= pool {
            pools.resize_with(pool + 1, Vec::new);
        }
        pools[pool].push(Connection { sender: sender.clone(), calls });
        first
    }
}

/// Opens a connection for gRPC on a fresh stream. [`GrpcPool::add`] shares it with later calls.
///
/// # Errors
/// When the endpoint does not speak HTTP/2.
pub async fn handshake<B>(stream: Box<dyn ByteStream>) -> hyper::Result<SendRequest<B>>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Unpin + 'static,
{
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}
