//! Connections of callers that speak gRPC, on the reactors that serve the others.

use crate::base::peer::Peer;
use crate::protocols::kserve::handler::{Grpc, handle};
use crate::reactor::caller_connection::{CallerConnection, Close};
use crate::reactor::tls_listener::Alpn;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;
use tenon_upstream::executor::LocalExecutor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Streams that one connection may carry at a time.
const STREAMS_MAX: u32 = 256;
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// A caller that does not answer a ping for as long again is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves one connection, which is registered at `slot` already, to its end.
pub async fn serve_connection(grpc: Rc<Grpc>, stream: TcpStream, peer: Peer, connection: Rc<CallerConnection>, slot: usize) {
    let reactor = &grpc.reactor;
    // It carries many calls, so it never counts as idle. Pings show whether the caller is there.
    let _busy = connection.begin_request(reactor.clock.now());
    reactor.observers.metrics().connections.store(reactor.connections.len() as u64, Relaxed);
    match reactor.shared.tls_listener.clone() {
        None => serve_http2(&grpc, stream, peer, &connection).await,
        Some(tls) => match Box::pin(tls.accept(stream, peer, Alpn::Http2)).await {
            Ok((stream, peer)) => serve_http2(&grpc, stream, peer, &connection).await,
            Err(error) => tracing::debug!("a TLS handshake failed: {error}"),
        },
    }
    reactor.connections.remove(slot);
    reactor.observers.metrics().connections.store(reactor.connections.len() as u64, Relaxed);
}

async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + 'static>(grpc: &Rc<Grpc>, stream: S, peer: Peer, caller: &CallerConnection) {
    let service = service_fn(|request| {
        let grpc = grpc.clone();
        async move { Ok::<_, Infallible>(handle(grpc, peer, request).await) }
    });
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut graceful = false;
    poll_fn(|cx| {
        match caller.poll_close(cx.waker()) {
            Some(Close::Now) => return Poll::Ready(()),
            // HTTP/2 can announce the close without crossing a request on its way.
            Some(Close::Gracefully | Close::AfterNext) if !graceful => {
                graceful = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        connection.as_mut().poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!("a connection for gRPC ended: {error}");
            }
        })
    })
    .await;
}
