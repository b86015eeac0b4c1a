//! The body of a response on the gRPC listener.

use crate::protocols::kserve::relay::GrpcRelay;
use crate::protocols::kserve::request_body::Withheld;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Nothing but its head, one message of the gateway's own, or an endpoint's answer.
pub enum GrpcResponseBody {
    Empty,
    Own(Option<Bytes>, Option<HeaderMap>),
    Relay(Box<GrpcRelay>),
}

impl Body for GrpcResponseBody {
    type Data = Bytes;
    type Error = Withheld;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Own(message, trailers) => {
                let frame = message.take().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            Self::Relay(relay) => relay.poll(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }
}
