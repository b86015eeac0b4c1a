//! Connections of callers that speak gRPC, on the reactors that serve the others.

use super::upstream::Local;
use super::walk;
use crate::connection::{Leave, Watch};
use crate::peer::Peer;
use crate::tls_listener::Alpn;
use crate::worker::Worker;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Streams that one connection may carry at a time.
const STREAMS_MAX: u32 = 256;
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// A caller that does not answer a ping for as long again is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// One connection, from its first byte to its last. It is registered at `place` already.
pub async fn greet(worker: Rc<Worker>, stream: TcpStream, peer: Peer, watch: Rc<Watch>, place: usize) {
    // Many calls at a time: it is idle for nobody, its pings tell whether the caller is there.
    let _busy = watch.begin(worker.clock());
    worker.metrics().connections.store(worker.connections.len() as u64, Relaxed);
    match worker.tls_listener.clone() {
        None => converse(&worker, stream, peer, &watch).await,
        Some(tls) => match Box::pin(tls.accept(stream, peer, Alpn::Http2)).await {
            Ok((stream, peer)) => converse(&worker, stream, peer, &watch).await,
            Err(error) => tracing::debug!("a TLS handshake failed: {error}"),
        },
    }
    worker.connections.remove(place);
    worker.metrics().connections.store(worker.connections.len() as u64, Relaxed);
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + 'static>(worker: &Rc<Worker>, stream: S, peer: Peer, watch: &Watch) {
    let service = service_fn(|request| {
        let worker = worker.clone();
        async move { Ok::<_, Infallible>(walk(worker, peer, request).await) }
    });
    let mut builder = http2::Builder::new(Local);
    builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut graceful = false;
    poll_fn(|cx| {
        match watch.told(cx.waker()) {
            Some(Leave::Now) => return Poll::Ready(()),
            // HTTP/2 can say goodbye without crossing a request on its way.
            Some(Leave::Gracefully | Leave::AfterNext) if !graceful => {
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
