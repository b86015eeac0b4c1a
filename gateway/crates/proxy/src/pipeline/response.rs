//! Responses of the HTTP listener: their bodies, whole or relayed from an endpoint, and those that report a problem.

use crate::base::headers;
use crate::base::problem::Problem;
use crate::pipeline::relay::{BrokenOff, Relay};
use crate::reactor::caller_connection::BusyGuard;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tenon_dialects::Dialect;
use tenon_dialects::translate::TranslationError;
use tenon_usage::RecordId;

pub struct ResponseBody {
    body: Inner,
    /// Marks the connection as busy until the answer is gone.
    pub busy: Option<BusyGuard>,
}

enum Inner {
    Full(Bytes),
    Relay(Box<Relay>),
}

impl ResponseBody {
    pub fn full(body: Bytes) -> Self {
        Self { body: Inner::Full(body), busy: None }
    }

    pub fn relay(relay: Box<Relay>) -> Self {
        Self { body: Inner::Relay(relay), busy: None }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Inner::Relay(relay) = std::mem::replace(&mut self.body, Inner::Full(Bytes::new())) {
            relay.abandon();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.body {
            Inner::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Relay(relay) => {
                let polled = relay.poll(cx).map(|end| end.map(|data| data.map(Frame::data)));
                if let Some(busy) = &self.busy {
                    busy.note_poll(polled.is_ready());
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

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The response that reports `problem`.
pub fn respond(problem: &Problem, id: RecordId, dialect: Dialect) -> Response<ResponseBody> {
    respond_with(problem, problem.body(id, dialect), id)
}

/// As [`respond`], naming the field that could not be translated.
pub fn respond_about(problem: &Problem, refused: &TranslationError, id: RecordId, dialect: Dialect) -> Response<ResponseBody> {
    respond_with(problem, problem.body_about(refused, id, dialect), id)
}

fn respond_with(problem: &Problem, body: Bytes, id: RecordId) -> Response<ResponseBody> {
    let mut response = json(body, id);
    *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !problem.should_retry() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    } else if let Some(after) = problem.retry_after() {
        headers.insert(RETRY_AFTER, after.as_secs().into());
    }
    if let Some(allow) = problem.allow() {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if problem.status == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A response of the gateway's own, with status 200.
pub fn json(body: Bytes, id: RecordId) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(headers::REQUEST_ID, headers::request_id(id));
    response
}
