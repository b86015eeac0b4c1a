//! One connection to an endpoint, for one call at a time. HTTP/1.1 wherever it is spoken; over TLS, HTTP/2 with those that speak nothing else.

use crate::executor::LocalExecutor;
use futures_util::future::Either;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const KEEP_ALIVE: Duration = Duration::from_secs(20);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Sent<B> = Result<Response<Incoming>, TrySendError<Request<B>>>;

pub enum Sender<B> {
    Http1(http1::SendRequest<B>, BytesReceived),
    Http2(http2::SendRequest<B>),
}

impl<B: Body<Data: Send, Error: Into<BoxError>> + Unpin + 'static> Sender<B> {
    #[inline]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// How many bytes its endpoint has sent so far; `None` = they are not counted.
    #[inline]
    pub fn bytes_received(&self) -> Option<u64> {
        match self {
            Self::Http1(_, received) => Some(received.get()),
            Self::Http2(_) => None,
        }
    }

    #[inline]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Waits until a request can be sent.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender, _) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// The request's target is its path alone, and its host is a header. For HTTP/2 they are put together.
    #[inline]
    pub fn try_send_request(&mut self, request: Request<B>) -> impl Future<Output = Sent<B>> + use<B> {
        match self {
            Self::Http1(sender, _) => Either::Left(sender.try_send_request(request)),
            Self::Http2(sender) => Either::Right(sender.try_send_request(absolute(request))),
        }
    }

    pub(crate) async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> io::Result<Self> {
        let received = BytesReceived::default();
        let (sender, connection) = http1::handshake(TokioIo::new(Counting { stream, received: received.clone() })).await.map_err(io::Error::other)?;
        // Its errors come out of the sender or the body as well.
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self::Http1(sender, received))
    }

    pub(crate) async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> io::Result<Self> {
        let mut builder = http2::Builder::new(LocalExecutor);
        builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self::Http2(sender))
    }
}

/// Counted because hyper reports a close after half a head like a close before the first byte.
type BytesReceived = Rc<Cell<u64>>;

struct Counting<S> {
    stream: S,
    received: BytesReceived,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.received.set(self.received.get().wrapping_add((buffer.filled().len() - before) as u64));
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn absolute<B>(mut request: Request<B>) -> Request<B> {
    // A request that comes back unsent is absolute already.
    let Some(host) = request.headers_mut().remove(HOST) else {
        return request;
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Authority::try_from(host.as_bytes()).ok();
    parts.scheme = Some(Scheme::HTTPS);
    parts.path_and_query = parts.path_and_query.or_else(|| Some(PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}
