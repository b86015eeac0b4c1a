//! Why a control plane hung up. A server in C closes the connection without an alert when it will not have a gateway's certificate, and in
//! TLS 1.3 the gateway has finished its handshake by then. So it is remembered whether a certificate was asked for.

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Shows what it is given, and notes that it was asked.
#[derive(Debug)]
pub(crate) struct Noting {
    pub inner: Arc<dyn ResolvesClientCert>,
    pub asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Noting {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Relaxed);
        self.inner.resolve(authorities, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

/// A connection whose end before a first word is told as what it most likely is.
pub(crate) struct Hearing {
    pub stream: TlsStream<TcpStream>,
    pub asked: Arc<AtomicBool>,
    /// What was shown when a certificate was asked for.
    pub shown: Option<String>,
    pub heard: bool,
}

impl Hearing {
    fn refusal(&self) -> io::Error {
        let shown = self.shown.as_deref().map_or("shown none".to_owned(), |shown| format!("shown {shown}"));
        io::Error::new(io::ErrorKind::ConnectionAborted, format!("it asked for a certificate, was {shown}, and hung up"))
    }
}

impl AsyncRead for Hearing {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        let ended = match &read {
            Ok(()) => buffer.filled().len() == before,
            Err(error) => matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset),
        };
        if ended && !this.heard && this.asked.load(Relaxed) {
            return Poll::Ready(Err(this.refusal()));
        }
        this.heard |= read.is_ok();
        Poll::Ready(read)
    }
}

impl AsyncWrite for Hearing {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
