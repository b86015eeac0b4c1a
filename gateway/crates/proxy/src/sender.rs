//! One connection to an endpoint, for one call at a time. HTTP/1.1 wherever it is spoken; over TLS, HTTP/2 with those that speak nothing else.

use crate::addresses::Resolver;
use crate::kserve::Local;
use crate::tls::Trust;
use futures_util::future::Either;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tenon_snapshot::Origin;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Origins that are remembered to speak HTTP/2 only; one more is found out again with each connection.
const REMEMBERED_MAX: usize = 256;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Sent<B> = Result<Response<Incoming>, TrySendError<Request<B>>>;

pub enum Sender<B> {
    Http1(http1::SendRequest<B>, Heard),
    Http2(http2::SendRequest<B>),
}

impl<B: Body<Data: Send, Error: Into<BoxError>> + Unpin + 'static> Sender<B> {
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// How much its endpoint has said so far; `None` = not counted.
    pub fn heard(&self) -> Option<u64> {
        match self {
            Self::Http1(_, heard) => Some(heard.get()),
            Self::Http2(_) => None,
        }
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    pub async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender, _) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// The request has its path alone as target, and its host as a header; HTTP/2 is told in its own way.
    pub fn try_send_request(&mut self, request: Request<B>) -> impl Future<Output = Sent<B>> + use<B> {
        match self {
            Self::Http1(sender, _) => Either::Left(sender.try_send_request(request)),
            Self::Http2(sender) => Either::Right(sender.try_send_request(absolute(request))),
        }
    }

    async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> io::Result<Self> {
        let heard = Heard::default();
        let (sender, connection) = http1::handshake(TokioIo::new(Listening { stream, heard: heard.clone() })).await.map_err(io::Error::other)?;
        // Its errors come out of the sender or the body; here there is nobody to tell.
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self::Http1(sender, heard))
    }

    async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> io::Result<Self> {
        let mut builder = http2::Builder::new(Local);
        builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self::Http2(sender))
    }
}

/// Bytes that came on a connection: hyper tells a close after half a head as it tells a close without a word.
type Heard = Rc<Cell<u64>>;

struct Listening<S> {
    stream: S,
    heard: Heard,
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.heard.set(self.heard.get().wrapping_add((buffer.filled().len() - before) as u64));
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
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
    // One that was told so before comes back like that when nothing of it was sent.
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

/// TLS towards endpoints, as one thread speaks it.
pub struct Tls {
    trust: Arc<Trust>,
    connectors: RefCell<Connectors>,
    http2_only: RefCell<Vec<Origin>>,
}

/// One for each protocol that may be agreed on.
struct Connectors {
    of: Arc<ClientConfig>,
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Connectors {
    fn of(config: Arc<ClientConfig>) -> Self {
        let speaking = |protocol: &[u8]| {
            let mut config = (*config).clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(config))
        };
        Self { http1: speaking(b"http/1.1"), http2: speaking(b"h2"), of: config }
    }
}

impl Tls {
    pub fn new(trust: Arc<Trust>) -> Self {
        let connectors = RefCell::new(Connectors::of(trust.config()));
        Self { trust, connectors, http2_only: RefCell::default() }
    }

    /// By the authorities as they stand now.
    fn connector(&self, http2: bool) -> TlsConnector {
        let (now, mut connectors) = (self.trust.config(), self.connectors.borrow_mut());
        if !Arc::ptr_eq(&connectors.of, &now) {
            *connectors = Connectors::of(now);
        }
        if http2 { connectors.http2.clone() } else { connectors.http1.clone() }
    }

    /// A connection that speaks this one protocol.
    ///
    /// # Errors
    /// When nobody answers, or who answers is not who it should be: the name is the endpoint's, whatever address it led to.
    pub async fn dial(&self, resolver: &Resolver, origin: &Origin, http2: bool) -> io::Result<TlsStream<TcpStream>> {
        let stream = resolver.connect(origin).await?;
        let name = ServerName::try_from(origin.host.clone()).map_err(io::Error::other)?;
        self.connector(http2).connect(name, stream).await
    }

    /// A connection for HTTP, TLS or not, in what the endpoint speaks.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub async fn connect<B>(&self, resolver: &Resolver, origin: &Origin) -> io::Result<Sender<B>>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Unpin + 'static,
    {
        if !origin.tls {
            return Sender::http1(resolver.connect(origin).await?).await;
        }
        if !self.http2_only.borrow().contains(origin) {
            match self.dial(resolver, origin, false).await {
                Ok(stream) => return Sender::http1(stream).await,
                Err(error) if !is_about_protocols(&error) => return Err(error),
                Err(_) => self.remember(origin),
            }
        }
        Sender::http2(self.dial(resolver, origin, true).await?).await
    }

    fn remember(&self, origin: &Origin) {
        let mut known = self.http2_only.borrow_mut();
        if known.len() < REMEMBERED_MAX {
            known.push(origin.clone());
        }
    }
}

/// The other side speaks nothing that it was offered (RFC 7301 §3.2).
fn is_about_protocols(error: &io::Error) -> bool {
    let refused = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) == Some(&refused)
}
