//! A whole answer that is translated: read to its end first, so that what cannot be said in the caller's dialect is still told as what it is.

use crate::answer::{Reply, header_of};
use crate::call::{Call, Measured};
use crate::live::Phase;
use crate::problem::Problem;
use crate::relay::LOOKED_AT_MAX;
use crate::upstream::Answering;
use crate::worker::Worker;
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
/// When the answer breaks off, is not of the endpoint's dialect, or holds what the caller's has no words for.
pub async fn answer(worker: &Worker, mut call: Box<Call>, mut answering: Answering, direction: Direction) -> Result<Response<Reply>, Problem> {
    let status = answering.response.status();
    let retry_after = answering.response.headers().get(RETRY_AFTER).cloned();
    let body = match collect(worker, &call, &mut answering).await {
        Ok(body) => body,
        Err((problem, outcome)) => {
            call.fail(&problem, outcome);
            return Err(problem);
        }
    };
    worker.pools.give_back(answering.pool, answering.sender);
    let text = if status.is_success() {
        translate(&mut call, &body, direction)?
    } else {
        call.settle(Outcome::UpstreamError, Measured::default());
        direction.error(status.as_u16(), &body, &call.subject.id.text())
    };
    if let Some(mark) = call.mark.take()
        && poll_fn(|cx| mark.poll(cx)).await.is_err()
    {
        call.trouble(Problem::UNMETERED.code, None);
        return Err(Problem::UNMETERED);
    }
    Ok(respond(status, &call, retry_after, text))
}

/// The tokens are used whatever becomes of the answer.
fn translate(call: &mut Call, body: &Bytes, direction: Direction) -> Result<Vec<u8>, Problem> {
    call.first_token();
    let usage = usage_of_answer(direction.endpoint_form(), body);
    match direction.answer(body, call.subject.started_unix_seconds()) {
        Ok(text) => {
            call.settle(Outcome::Completed, Measured { usage, ..Measured::default() });
            Ok(text)
        }
        Err(malformed) => {
            call.refuse(&Problem::PROTOCOL);
            call.trouble(Problem::PROTOCOL.code, Some(malformed.to_string()));
            call.settle(Outcome::UpstreamError, Measured { usage, ..Measured::default() });
            Err(Problem::PROTOCOL)
        }
    }
}

async fn collect(worker: &Worker, call: &Call, answering: &mut Answering) -> Result<Bytes, (Problem, Outcome)> {
    let mut whole = BytesMut::from(answering.first.take().unwrap_or_default());
    let body = answering.response.body_mut();
    loop {
        call.live.enter(Phase::Stream, worker.clock());
        match call.live.race(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await {
            Err(cut) => return Err((cut.problem, if cut.timeout { Outcome::Timeout } else { Outcome::Cut })),
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(_))) => return Err((Problem::CUT, Outcome::Cut)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    whole.extend_from_slice(&data);
                }
            }
        }
        if whole.len() > LOOKED_AT_MAX {
            return Err((Problem::PROTOCOL, Outcome::UpstreamError));
        }
    }
}

fn respond(status: StatusCode, call: &Call, retry_after: Option<HeaderValue>, text: Vec<u8>) -> Response<Reply> {
    let mut response = Response::new(Reply::full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header_of::REQUEST_ID, call.subject.id_header.clone());
    if let Some(retry_after) = retry_after {
        headers.insert(RETRY_AFTER, retry_after);
    }
    response
}
