//! Detects that the control plane refused this gateway's certificate. A gRPC server in C then closes the connection
//! without an alert, and in TLS 1.3 the gateway has finished its handshake by that time. So this module records whether
//! a certificate was requested.

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

/// Presents the certificate of `inner`, and records that the server requested one.
#[derive(Debug)]
pub(crate) struct RecordingResolver {
    pub inner: Arc<dyn ResolvesClientCert>,
    pub was_requested: Arc<AtomicBool>,
}

impl ResolvesClientCert for RecordingResolver {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_requested.store(true, Relaxed);
        self.inner.resolve(authorities, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

/// A connection that ends before the first byte is reported as the refusal that it most likely is.
pub(crate) struct RefusalDetector {
    pub stream: TlsStream<TcpStream>,
    pub was_requested: Arc<AtomicBool>,
    /// The file of the certificate that was presented, if any.
    pub presented: Option<String>,
    pub has_received: bool,
}

impl RefusalDetector {
    fn refusal(&self) -> io::Error {
        let presented = self.presented.as_deref().unwrap_or("none");
        let message = format!("the server requested a certificate, got {presented}, and closed the connection");
        io::Error::new(io::ErrorKind::ConnectionAborted, message)
    }
}

impl AsyncRead for RefusalDetector {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        let ended = match &read {
            Ok(()) => buffer.filled().len() == before,
            Err(error) => matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset),
        };
        if ended && !this.has_received && this.was_requested.load(Relaxed) {
            return Poll::Ready(Err(this.refusal()));
        }
        this.has_received |= read.is_ok();
        Poll::Ready(read)
    }
}

impl AsyncWrite for RefusalDetector {
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
