//! The door of realtime sessions: `GET /v1/realtime?model=…`, a WebSocket to the caller and one to the endpoint.
//!
//! A session is one call: admitted before its upgrade, metered from its opening to its end with the sum of what the endpoint tells of its
//! answers. Limits of requests and tokens count each answer ([`turns`]). Events pass as they are, but for the model's name where a route
//! renames it.

mod dial;
mod events;
mod handshake;
mod problems;
mod session;
mod turns;

use crate::admit::{Told, Wanted, admitted};
use crate::answer::{Reply, header_of};
use crate::authenticate::authenticate;
use crate::call::{Call, Measured};
use crate::doors::Door;
use crate::failover::try_routes;
use crate::live::Live;
use crate::problem::Problem;
use crate::receive::receive;
use crate::road::{Arrival, tell_refused};
use crate::worker::Worker;
use bytes::Bytes;
use dial::{Dialed, dial};
pub use handshake::decoded as percent_decoded;
use handshake::{Opening, opening, with_credential};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use session::converse;
use std::rc::Rc;
use std::sync::Arc;
use tenon_policy::Refusal;
use tenon_snapshot::Key;
use tenon_usage::Outcome;

/// Answers the opening of a session. What is said once it is open is [`session`]'s.
pub async fn realtime(
    worker: &Rc<Worker>,
    mut request: Request<Incoming>,
    arrival: Arrival,
    door: &'static Door,
    told: &Told,
) -> Result<Response<Reply>, Problem> {
    let refusal = |problem: &Problem| tell_refused(worker, &arrival, problem);
    let (key, asked) = caller_and_wish(worker, &request, &arrival, door).await.inspect_err(refusal)?;
    let subject = arrival.subject(worker, door, true);
    let mut call = Call::new(worker, Live::new(key.clone(), subject.started), subject);
    // What is said in it is not kept.
    call.sample(&Bytes::new());
    let wanted = Wanted { model: &asked.model, operation: door.operation, body: &[], read: None };
    let admitted = admitted(worker, &key, &wanted, told).await.inspect_err(|problem| call.refuse(problem))?;
    let upstream = match try_routes(worker, admitted, &mut call, async |call| dial(worker, call, asked.beta).await).await? {
        Dialed::Refused(response) => return refused(worker, call, response).await,
        Dialed::Open(upstream) => upstream,
    };
    call.http_status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
    if let Some(grant) = call.grant() {
        // The opening had to find room for an answer; each answer takes its own.
        grant.give_back_tokens(worker.limits_now());
    }
    let response = switching(&call, asked);
    let (caller, worker) = (hyper::upgrade::on(&mut request), worker.clone());
    tokio::task::spawn_local(async move {
        // A caller who left before the upgrade settles as one who left.
        if let Ok(caller) = caller.await {
            converse(worker, call, caller, upstream).await;
        }
    });
    Ok(response)
}

async fn caller_and_wish(worker: &Worker, request: &Request<Incoming>, arrival: &Arrival, door: &Door) -> Result<(Arc<Key>, Opening), Problem> {
    let with = with_credential(request.headers())?;
    let key = authenticate(worker, with.as_ref().unwrap_or(request.headers()), &arrival.peer, door.operation).await?;
    if !key.may_call_models() {
        return Err(Refusal::MayNotCall.into());
    }
    Ok((key, opening(request.method(), request.headers(), request.uri().query())?))
}

fn switching(call: &Call, asked: Opening) -> Response<Reply> {
    let mut response = Response::new(Reply::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, asked.accept);
    headers.insert(header_of::REQUEST_ID, header_of::request_id(call.subject.id));
    if let Some(protocol) = asked.protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// An endpoint that does not open the session. Its refusals of the caller are passed on, those of us are told in our own words.
async fn refused(worker: &Worker, mut call: Box<Call>, response: Response<Incoming>) -> Result<Response<Reply>, Problem> {
    let status = response.status();
    let hidden = match status.as_u16() {
        401 | 403 | 407 => Some(Problem::CREDENTIAL),
        400..=499 => None,
        503 | 529 => Some(Problem::OVERLOADED),
        500..=599 => Some(Problem::UPSTREAM),
        _ => Some(Problem::PROTOCOL),
    };
    let (parts, body) = response.into_parts();
    let whole = match hidden {
        Some(problem) => Err(problem),
        None => receive(body, worker).await.map_err(|_| Problem::CUT),
    };
    let whole = whole.inspect_err(|problem| call.fail(problem, Outcome::UpstreamError))?;
    call.http_status = status.as_u16();
    let mut response = Response::new(Reply::full(whole));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, parts.headers.get(CONTENT_TYPE).cloned().unwrap_or(HeaderValue::from_static("application/json")));
    headers.insert(header_of::REQUEST_ID, header_of::request_id(call.subject.id));
    if let Some(after) = parts.headers.get(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, after.clone());
    }
    call.settle(Outcome::UpstreamError, Measured::default());
    Ok(response)
}
