//! The body of an answer: a whole one, or one relayed from an upstream.

use crate::connection::Busy;
use crate::relay::Relay;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The upstream's body broke off; hyper then closes the connection, so that the answer does not look complete.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenOff;

pub struct Reply {
    body: Inner,
    /// Says that the connection works on a request, until the answer is gone.
    pub busy: Option<Busy>,
}

enum Inner {
    Full(Bytes),
    Relay(Box<Relay>),
}

impl Reply {
    pub fn full(body: Bytes) -> Self {
        Self { body: Inner::Full(body), busy: None }
    }

    pub fn relay(relay: Box<Relay>) -> Self {
        Self { body: Inner::Relay(relay), busy: None }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Inner::Relay(relay) = std::mem::replace(&mut self.body, Inner::Full(Bytes::new())) {
            relay.leave();
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.body {
            Inner::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Relay(relay) => {
                let polled = relay.poll(cx).map(|end| end.map(|data| data.map(Frame::data)));
                if let Some(busy) = &self.busy {
                    busy.asked(polled.is_ready());
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Relay(relay) => relay.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Relay(relay) => relay.length().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

pub mod header_of {
    use http::header::{HeaderName, HeaderValue};
    use tenon_usage::RecordId;

    pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    /// Where Anthropic's SDKs look for it.
    pub const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
    pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
    pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

    pub fn request_id(id: RecordId) -> HeaderValue {
        HeaderValue::from_str(&id.text()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// The last pieces that hold at least `least` bytes, as one.
pub(crate) fn join(pieces: &[Bytes], least: usize) -> BytesMut {
    let mut held = 0;
    let from = pieces.iter().rposition(|piece| {
        held += piece.len();
        held >= least
    });
    let mut joined = BytesMut::with_capacity(held);
    pieces[from.unwrap_or(0)..].iter().for_each(|piece| joined.extend_from_slice(piece));
    joined
}
