//! The opening of a session, as an HTTP request.

use crate::base::headers;
use crate::base::problem::Problem;
use crate::call::guard::{Call, Measured};
use crate::pipeline::admit::{LimitHeaders, RequestedCall, admit_call};
use crate::pipeline::arrival::{Arrival, log_refusal};
use crate::pipeline::attempt::hidden_status;
use crate::pipeline::authenticate::authenticate;
use crate::pipeline::failover::try_routes;
use crate::pipeline::read_body::read_body;
use crate::pipeline::response::ResponseBody;
use crate::pipeline::routes::Route;
use crate::protocols::realtime::dial::{Dialed, dial};
use crate::protocols::realtime::handshake::{Handshake, read_handshake, with_credential};
use crate::protocols::realtime::session::run_session;
use crate::reactor::in_flight::InFlightCall;
use crate::reactor::shared::SharedState;
use crate::reactor::state::Reactor;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use std::rc::Rc;
use std::sync::Arc;
use tenon_snapshot::Key;
use tenon_usage::Outcome;

/// Answers the opening of a session, and starts the session.
pub async fn realtime(
    reactor: &Rc<Reactor>,
    mut request: Request<Incoming>,
    arrival: Arrival,
    route: &'static Route,
    limit_headers: &LimitHeaders,
) -> Result<Response<ResponseBody>, Problem> {
    let refusal = |problem: &Problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem);
    let (key, handshake) = caller_and_handshake(reactor, &request, &arrival, route).await.inspect_err(refusal)?;
    let info = arrival.into_request(&reactor.observers, route, true);
    let mut call = Call::new(reactor, InFlightCall::new(key.clone(), info.started), info);
    // The events of a session are not logged.
    call.sample(&Bytes::new());
    let requested = RequestedCall { model: &handshake.model, operation: route.operation, body: &[], read: None };
    let admitted = admit_call(&reactor.shared, &reactor.clock, &key, &requested, limit_headers).await.inspect_err(|problem| call.refuse(problem))?;
    let upstream =
        match try_routes(reactor, admitted, &mut call, async |call| dial(&reactor.upstreams, &reactor.clock, call, handshake.beta).await).await? {
            Dialed::Refused(response) => return refused(&reactor.shared, call, response).await,
            Dialed::Open(upstream) => upstream,
        };
    call.http_status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
    if let Some(reservation) = call.reservation() {
        // The opening had to fit within the limits of tokens; each answer takes its own.
        reservation.give_back_tokens(reactor.clock.limits_us());
    }
    let response = switching(&call, handshake);
    let (caller, reactor) = (hyper::upgrade::on(&mut request), reactor.clone());
    tokio::task::spawn_local(async move {
        // A caller who left before the upgrade settles as one who left.
        if let Ok(caller) = caller.await {
            run_session(reactor, call, caller, upstream).await;
        }
    });
    Ok(response)
}

async fn caller_and_handshake(
    reactor: &Reactor,
    request: &Request<Incoming>,
    arrival: &Arrival,
    route: &Route,
) -> Result<(Arc<Key>, Handshake), Problem> {
    let with = with_credential(request.headers())?;
    let key = authenticate(&reactor.credentials, &reactor.clock, with.as_ref().unwrap_or(request.headers()), &arrival.peer, route.operation).await?;
    Ok((key, read_handshake(request.method(), request.headers(), request.uri().query())?))
}

fn switching(call: &Call, handshake: Handshake) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, handshake.accept);
    headers.insert(headers::REQUEST_ID, headers::request_id(call.request.id));
    if let Some(protocol) = handshake.protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// The endpoint does not open the session. Its refusals of the caller are passed on, its refusals of the gateway are replaced.
async fn refused(shared: &SharedState, mut call: Box<Call>, response: Response<Incoming>) -> Result<Response<ResponseBody>, Problem> {
    let status = response.status();
    let hidden = hidden_status(status.as_u16());
    let (parts, body) = response.into_parts();
    let whole = match hidden {
        Some(problem) => Err(problem),
        None => read_body(body, shared).await.map_err(|_| Problem::CUT),
    };
    let whole = whole.inspect_err(|problem| call.fail(problem, Outcome::UpstreamError))?;
    call.http_status = status.as_u16();
    let mut response = Response::new(ResponseBody::full(whole));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, parts.headers.get(CONTENT_TYPE).cloned().unwrap_or(HeaderValue::from_static("application/json")));
    headers.insert(headers::REQUEST_ID, headers::request_id(call.request.id));
    if let Some(after) = parts.headers.get(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, after.clone());
    }
    call.settle(Outcome::UpstreamError, Measured::default());
    Ok(response)
}
