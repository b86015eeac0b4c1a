//! A whole answer that is translated. It is read to its end first, so that a failed translation still gets an error of its own.

use crate::base::headers;
use crate::base::problem::Problem;
use crate::call::guard::{Call, Measured};
use crate::pipeline::attempt::UpstreamResponse;
use crate::pipeline::relay::OBSERVED_BYTES_MAX;
use crate::pipeline::response::ResponseBody;
use crate::reactor::clock::Clock;
use crate::reactor::in_flight::Phase;
use crate::reactor::upstreams::Upstreams;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Body;
use std::future::poll_fn;
use std::pin::Pin;
use tenon_dialects::translate::Direction;
use tenon_dialects::usage_of_answer;
use tenon_usage::Outcome;

/// # Errors
/// When the answer breaks off, is not of the endpoint's dialect, or cannot be translated into the caller's.
pub async fn answer(
    upstreams: &Upstreams,
    clock: &Clock,
    mut call: Box<Call>,
    mut upstream: UpstreamResponse,
    direction: Direction,
) -> Result<Response<ResponseBody>, Problem> {
    let status = upstream.response.status();
    let retry_after = upstream.response.headers().get(RETRY_AFTER).cloned();
    let body = match collect(clock, &call, &mut upstream).await {
        Ok(body) => body,
        Err((problem, outcome)) => {
            call.fail(&problem, outcome);
            return Err(problem);
        }
    };
    upstreams.pools.give_back(upstream.pool, upstream.sender);
    let text = if status.is_success() {
        translate(&mut call, &body, direction)?
    } else {
        call.settle(Outcome::UpstreamError, Measured::default());
        direction.error(status.as_u16(), &body, &call.request.id.text())
    };
    if let Some(mark) = call.mark.take()
        && poll_fn(|cx| mark.poll(cx)).await.is_err()
    {
        call.failed(Problem::UNMETERED.code, None);
        return Err(Problem::UNMETERED);
    }
    Ok(respond(status, &call, retry_after, text))
}

/// The tokens are used whatever becomes of the answer.
fn translate(call: &mut Call, body: &Bytes, direction: Direction) -> Result<Vec<u8>, Problem> {
    call.first_token();
    let usage = usage_of_answer(direction.endpoint_format(), body);
    match direction.answer(body, call.request.started_unix_seconds()) {
        Ok(text) => {
            call.settle(Outcome::Completed, Measured { usage, ..Measured::default() });
            Ok(text)
        }
        Err(malformed) => {
            call.refuse(&Problem::PROTOCOL);
            call.failed(Problem::PROTOCOL.code, Some(malformed.to_string()));
            call.settle(Outcome::UpstreamError, Measured { usage, ..Measured::default() });
            Err(Problem::PROTOCOL)
        }
    }
}

async fn collect(clock: &Clock, call: &Call, upstream: &mut UpstreamResponse) -> Result<Bytes, (Problem, Outcome)> {
    let mut whole = BytesMut::from(upstream.first.take().unwrap_or_default());
    let body = upstream.response.body_mut();
    loop {
        call.in_flight.enter(Phase::Stream, clock.now());
        match call.in_flight.race(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await {
            Err(abort) => return Err((abort.problem, if abort.timeout { Outcome::Timeout } else { Outcome::Cut })),
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(_))) => return Err((Problem::CUT, Outcome::Cut)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    whole.extend_from_slice(&data);
                }
            }
        }
        if whole.len() > OBSERVED_BYTES_MAX {
            return Err((Problem::PROTOCOL, Outcome::UpstreamError));
        }
    }
}

fn respond(status: StatusCode, call: &Call, retry_after: Option<HeaderValue>, text: Vec<u8>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(headers::REQUEST_ID, call.request.id_header.clone());
    if let Some(retry_after) = retry_after {
        headers.insert(RETRY_AFTER, retry_after);
    }
    response
}
