//! The reactors: each has a listening socket (SO_REUSEPORT), a runtime and a thread. How they accept, and how they stop.

use crate::base::boxing::boxed;
use crate::base::peer::Peer;
use crate::base::problem::Problem;
use crate::observe::metrics::bump;
use crate::protocols::http::handle;
use crate::protocols::kserve::{self, Grpc, GrpcConnections};
use crate::reactor::caller_connection::{CallerConnection, Close};
use crate::reactor::shared::SharedState;
use crate::reactor::state::Reactor;
use crate::reactor::sweep::sweep_loop;
use crate::reactor::tls_listener::{Alpn, TlsListener};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tenon_dialects::Dialect;
use tenon_upstream::sockets::detect_dead_peer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections over the limit that are answered at a time; more are closed without an answer.
const REFUSALS_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    #[error("a reactor could not be started: {0}")]
    Thread(io::Error),
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListenerProtocol {
    Http1,
    Grpc,
}

/// Reactors stop accepting and finish what runs until the instant.
#[derive(Clone, Copy, Debug)]
struct Draining {
    deadline: Instant,
    /// Another process accepts on the same sockets.
    succeeded: bool,
}

/// Callers' idle connections are kept for so long after a hand-over, so that their next answer closes them. No other way to close a connection
/// avoids crossing a request on its way.
const LINGER: Duration = Duration::from_secs(5);

pub struct Servers {
    threads: Vec<JoinHandle<()>>,
    drain: watch::Sender<Option<Draining>>,
}

/// Binds sockets until there are `count`, beside those that were taken over.
///
/// # Errors
/// When the address is taken. SO_REUSEPORT would let two gateways share it unnoticed, so the first socket is bound without it.
pub fn listen(address: SocketAddr, count: usize, mut inherited: Vec<TcpListener>) -> Result<Vec<TcpListener>, ServerError> {
    let fail = |e| ServerError::Listen(address, e);
    let address = match inherited.first() {
        Some(socket) => socket.local_addr(),
        None => bind(address, false).and_then(|alone| alone.local_addr()),
    };
    let address = address.map_err(fail)?;
    while inherited.len() < count {
        inherited.push(bind(address, true).map_err(fail)?);
    }
    Ok(inherited)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if shared {
        // Connections inherit these from the socket that accepts them.
        detect_dead_peer(&socket.as_fd())?;
        socket.listen(4096)?;
    }
    Ok(socket.into())
}

impl Servers {
    /// # Errors
    /// When the system gives no thread.
    pub fn start(shared: &SharedState, listeners: Vec<TcpListener>, grpc: Vec<TcpListener>) -> Result<Self, ServerError> {
        let shared = Arc::new(shared.clone());
        let (drain, draining) = watch::channel(None);
        let mut threads = Vec::new();
        let count = shared.metrics.len();
        // More sockets than threads come from a predecessor that had more: each must be listened to.
        let mut shares: Vec<Vec<(ListenerProtocol, TcpListener)>> = (0..count).map(|_| Vec::new()).collect();
        for (protocol, listeners) in [(ListenerProtocol::Http1, listeners), (ListenerProtocol::Grpc, grpc)] {
            listeners.into_iter().enumerate().for_each(|(index, listener)| shares[index % count].push((protocol, listener)));
        }
        for (index, listeners) in shares.into_iter().enumerate() {
            let (shared, draining) = (shared.clone(), draining.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Thread)?;
            let body = move || {
                let local = tokio::task::LocalSet::new();
                let reactor = Rc::new(Reactor::new(shared, index));
                local.block_on(&runtime, serve(reactor, listeners, draining));
            };
            let thread = std::thread::Builder::new().name(format!("reactor-{index}")).spawn(body).map_err(ServerError::Thread)?;
            threads.push(thread);
        }
        Ok(Self { threads, drain })
    }

    /// Stops accepting, lets answers finish for at most `grace_period`, then aborts what is left (it settles as left by the caller).
    /// `succeeded`: another process accepts on the same sockets.
    pub fn stop(self, grace_period: Duration, succeeded: bool) {
        self.drain.send_replace(Some(Draining { deadline: Instant::now() + grace_period, succeeded }));
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a reactor panicked");
            }
        }
    }
}

async fn serve(reactor: Rc<Reactor>, listeners: Vec<(ListenerProtocol, TcpListener)>, draining: watch::Receiver<Option<Draining>>) {
    tokio::task::spawn_local(sweep_loop(reactor.clone()));
    let grpc = Rc::new(Grpc { reactor: reactor.clone(), connections: GrpcConnections::default() });
    let mut accepting = JoinSet::new();
    for (protocol, listener) in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(accepting.spawn_local(accept_until_drained(grpc.clone(), protocol, listener, draining.clone()))),
            Err(error) => tracing::error!("a reactor cannot listen: {error}"),
        }
    }
    while accepting.join_next().await.is_some() {}
    let Draining { deadline, succeeded } = (*draining.borrow()).unwrap_or(Draining { deadline: Instant::now(), succeeded: false });
    if succeeded {
        reactor.connections.each(|connection| connection.close(Close::AfterNext));
        until_gone(&reactor, deadline.min(Instant::now() + LINGER)).await;
    }
    reactor.connections.each(|connection| connection.close(Close::Gracefully));
    until_gone(&reactor, deadline).await;
    reactor.connections.each(|connection| connection.close(Close::Now));
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn until_gone(reactor: &Reactor, deadline: Instant) {
    while reactor.connections.len() + reactor.drains.get() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn accept_until_drained(
    grpc: Rc<Grpc>,
    protocol: ListenerProtocol,
    listener: tokio::net::TcpListener,
    mut draining: watch::Receiver<Option<Draining>>,
) {
    loop {
        tokio::select! {
            biased;
            _ = draining.changed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => accept(&grpc, protocol, stream, Peer::plain(address.ip())).await,
                Err(error) => {
                    // Out of descriptors, mostly: trying again at once would spin.
                    tracing::error!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    if draining.borrow().is_some_and(|draining| draining.succeeded) {
        return; // what waits in the queue is the successor's
    }
    // What waits in the queue would be reset when the socket closes: take it in first.
    while let Ok(Ok((stream, address))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
        accept(&grpc, protocol, stream, Peer::plain(address.ip())).await;
    }
}

async fn accept(grpc: &Rc<Grpc>, protocol: ListenerProtocol, stream: TcpStream, peer: Peer) {
    let reactor = &grpc.reactor;
    if reactor.connections.len() >= reactor.shared.limits.connections_max_per_thread {
        return refuse(reactor, protocol, stream);
    }
    if stream.set_nodelay(true).is_ok() {
        // Registered here, not in the task: a drain must not miss a connection whose task has not run yet.
        let connection = Rc::new(CallerConnection::new(reactor.clock.now()));
        let slot = reactor.connections.insert(connection.clone());
        let reactor = reactor.clone();
        if protocol == ListenerProtocol::Grpc {
            tokio::task::spawn_local(kserve::serve_connection(grpc.clone(), stream, peer, connection, slot));
            return;
        }
        match reactor.shared.tls_listener.clone() {
            None => drop(tokio::task::spawn_local(serve_http1(reactor, stream, peer, connection, slot))),
            Some(tls) => drop(tokio::task::spawn_local(serve_tls(reactor, tls, stream, peer, connection, slot))),
        }
    }
}

/// A connection over the limit gets an answer that says so, where no handshake is needed for that, instead of waiting in vain.
fn refuse(reactor: &Rc<Reactor>, protocol: ListenerProtocol, stream: TcpStream) {
    bump(&reactor.observers.metrics().connections_refused, 1);
    if protocol == ListenerProtocol::Grpc || reactor.shared.tls_listener.is_some() || reactor.refusals.get() >= REFUSALS_MAX {
        return;
    }
    reactor.refusals.set(reactor.refusals.get() + 1);
    let reactor = reactor.clone();
    tokio::task::spawn_local(async move {
        // What the caller sends is read: a close over unread bytes would reset the connection and lose the answer.
        let _in_time = tokio::time::timeout(Duration::from_secs(1), answer_and_close(stream)).await;
        reactor.refusals.set(reactor.refusals.get() - 1);
    });
}

async fn answer_and_close(mut stream: TcpStream) -> io::Result<()> {
    let body = Problem::CONNECTIONS.text(Dialect::OpenAi);
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n";
    let answer = [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    let mut sink = [0; 4096];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

async fn serve_tls(reactor: Rc<Reactor>, tls: Arc<TlsListener>, stream: TcpStream, peer: Peer, connection: Rc<CallerConnection>, slot: usize) {
    // Boxed: a handshake's state is several kilobytes, and its connection may last for hours.
    match Box::pin(tls.accept(stream, peer, Alpn::Http1)).await {
        Ok((stream, peer)) => serve_http1(reactor, stream, peer, connection, slot).await,
        Err(error) => {
            tracing::debug!("a TLS handshake failed: {error}");
            reactor.connections.remove(slot);
            reactor.observers.metrics().connections.store(reactor.connections.len() as u64, Relaxed);
        }
    }
}

/// Compiled once for plain connections and once for TLS: neither pays for the other.
async fn serve_http1<S>(reactor: Rc<Reactor>, stream: S, peer: Peer, caller: Rc<CallerConnection>, slot: usize)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    reactor.observers.metrics().connections.store(reactor.connections.len() as u64, Relaxed);
    let service = service_fn(|request| {
        let (reactor, busy) = (reactor.clone(), caller.begin_request(reactor.clock.now()));
        Box::into_pin(boxed(|| handle(reactor, peer, request, busy)))
    });
    let mut connection = pin!(
        http1::Builder::new().max_buf_size(reactor.shared.limits.head_bytes_max).serve_connection(TokioIo::new(stream), service).with_upgrades()
    );
    let mut graceful = false;
    poll_fn(|cx| {
        match caller.poll_close(cx.waker()) {
            Some(Close::Now) => return Poll::Ready(()),
            Some(Close::Gracefully) if !graceful => {
                graceful = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        connection.as_mut().poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!("a connection ended: {error}");
            }
        })
    })
    .await;
    reactor.connections.remove(slot);
    reactor.observers.metrics().connections.store(reactor.connections.len() as u64, Relaxed);
}
