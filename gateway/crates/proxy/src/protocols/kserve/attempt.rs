//! One attempt at an endpoint that speaks gRPC.

use crate::base::headers;
use crate::base::problem::Problem;
use crate::call::guard::Call;
use crate::pipeline::attempt::{AttemptError, ResponseHead};
use crate::protocols::kserve::request_body::{GrpcRequestBody, StreamProblem};
use crate::protocols::kserve::status::{GRPC, TIMEOUT};
use crate::reactor::clock::Clock;
use crate::reactor::in_flight::Phase;
use crate::reactor::upstreams::Upstreams;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use std::pin::pin;
use std::time::Duration;
use tenon_policy::Refusal;
use tenon_snapshot::Target;
use tenon_upstream::grpc_pool::{CallSlot, GrpcPool, handshake};
use tenon_usage::Outcome;

/// One thread's connections to endpoints that speak gRPC.
pub type GrpcConnections = GrpcPool<GrpcRequestBody>;

/// An endpoint that has begun to answer.
pub struct GrpcUpstream {
    pub response: Response<Incoming>,
    pub slot: CallSlot,
    kept: bool,
}

impl ResponseHead for GrpcUpstream {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn is_on_kept_connection(&self) -> bool {
        self.kept
    }
}

/// The request, for whichever route it takes.
pub struct OutgoingCall<'a> {
    pub path: &'static str,
    pub headers: &'a HeaderMap,
    /// The caller's timeout, from the call's start.
    pub timeout: Option<Duration>,
    /// Makes the body for a route. `None` = the caller's stream has been taken by an attempt before.
    pub body: &'a dyn Fn(Option<&str>) -> Option<GrpcRequestBody>,
    /// What is wrong with the rest of the caller's stream, which was reset for that.
    pub stream_problem: Option<&'a StreamProblem>,
    /// Takes back a body that was not sent.
    pub take_back: &'a dyn Fn(GrpcRequestBody),
}

/// One attempt at the route that `call` has chosen.
pub async fn attempt(
    upstreams: &Upstreams,
    connections: &GrpcConnections,
    clock: &Clock,
    call: &Call,
    outgoing: &OutgoingCall<'_>,
) -> Result<GrpcUpstream, AttemptError> {
    let Some((chosen, target)) = call.chosen().and_then(|chosen| Some((chosen, chosen.target()?))) else {
        return Err(AttemptError::Unsent(Refusal::NoUsableEndpoint.into(), None));
    };
    let in_flight = &call.in_flight;
    let mut timeouts = upstreams.timeouts(&chosen.endpoint().timeouts);
    if let Some(timeout) = outgoing.timeout {
        timeouts.total = if timeouts.total.is_zero() { timeout } else { timeouts.total.min(timeout) };
    }
    in_flight.set_timeouts(timeouts);
    let failed = AttemptError::Final(Problem::UPSTREAM, Outcome::UpstreamError);
    let Some(body) = (outgoing.body)(chosen.upstream_model()) else {
        return Err(failed);
    };
    let mut request = request(call, target, outgoing, body).ok_or(AttemptError::Final(Problem::PROTOCOL, Outcome::UpstreamError))?;
    loop {
        in_flight.enter(Phase::Connect, clock.now());
        let kept = connections.checkout(target.pool);
        let is_kept = kept.is_some();
        let (mut sender, slot) = match kept {
            Some(kept) => kept,
            None => match connect(upstreams, connections, call, target).await {
                Ok(fresh) => fresh,
                Err(failed) => {
                    (outgoing.take_back)(request.into_body());
                    return Err(failed);
                }
            },
        };
        in_flight.enter(Phase::Headers, clock.now());
        let sent = in_flight.race(pin!(sender.try_send_request(request))).await?;
        match sent {
            Ok(response) => return Ok(GrpcUpstream { response, slot, kept: is_kept }),
            Err(mut error) => match error.take_message() {
                // The connection was closed while it was idle. Nothing was sent, so the call may go again.
                Some(unsent) if is_kept => request = unsent,
                Some(unsent) => {
                    (outgoing.take_back)(unsent.into_body());
                    return Err(AttemptError::Unsent(Problem::CONNECT, None));
                }
                None => {
                    return Err(outgoing
                        .stream_problem
                        .and_then(StreamProblem::reported)
                        .map_or(failed, |problem| AttemptError::Final(problem, Outcome::Cut)));
                }
            },
        }
    }
}

async fn connect(
    upstreams: &Upstreams,
    connections: &GrpcConnections,
    call: &Call,
    target: &Target,
) -> Result<(SendRequest<GrpcRequestBody>, CallSlot), AttemptError> {
    let in_flight = &call.in_flight;
    let unsent = |error: String| AttemptError::Unsent(Problem::CONNECT, Some(error));
    let connecting = async {
        let stream = upstreams.pools.dial(target, true).await.map_err(|error| unsent(error.to_string()))?;
        handshake(stream).await.map_err(|error| unsent(error.to_string()))
    };
    let sender = match in_flight.race(Box::pin(connecting)).await {
        Ok(connected) => connected?,
        Err(abort) if abort.problem.code == Problem::CONNECT_TIMEOUT.code => {
            in_flight.clear_timeout();
            return Err(AttemptError::Unsent(abort.problem, None));
        }
        Err(abort) => return Err(abort.into()),
    };
    let slot = connections.add(target.pool, &sender);
    Ok((sender, slot))
}

fn request(call: &Call, target: &Target, outgoing: &OutgoingCall<'_>, body: GrpcRequestBody) -> Option<Request<GrpcRequestBody>> {
    let scheme = if target.origin.tls { "https" } else { "http" };
    let authority = target.host_header.to_str().ok()?;
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(outgoing.path).build().ok()?;
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static("tenon-gateway"));
    headers.insert(headers::REQUEST_ID, headers::request_id(call.request.id));
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if let Some(timeout) = outgoing.timeout {
        let left = timeout.saturating_sub(call.request.started.elapsed()).as_millis().clamp(1, 99_999_999);
        headers.insert(TIMEOUT, HeaderValue::from_str(&format!("{left}m")).ok()?);
    }
    if let Some(traceparent) = &call.request.trace.header {
        headers.insert(headers::TRACEPARENT, traceparent.clone());
        copy(outgoing.headers, headers, &headers::TRACESTATE);
    }
    Some(request)
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, name: &HeaderName) {
    if let Some(value) = from.get(name) {
        to.insert(name.clone(), value.clone());
    }
}
