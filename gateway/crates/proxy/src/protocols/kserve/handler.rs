//! The methods of the gRPC listener, from a request to its response.

use crate::base::headers;
use crate::base::peer::Peer;
use crate::base::problem::Problem;
use crate::call::guard::{Call, Measured};
use crate::pipeline::admit::{LimitHeaders, RequestedCall, admit_call};
use crate::pipeline::arrival::{Arrival, log_refusal};
use crate::pipeline::authenticate::authenticate;
use crate::pipeline::failover::try_routes;
use crate::pipeline::read_body::read_body;
use crate::pipeline::routes::{GRPC_ROUTES, Route, Rpc, Task};
use crate::protocols::kserve::attempt::{GrpcConnections, GrpcUpstream, OutgoingCall, attempt};
use crate::protocols::kserve::framing::Framer;
use crate::protocols::kserve::message::{framed, model_name, put_bytes};
use crate::protocols::kserve::relay::{GrpcRelay, status_of};
use crate::protocols::kserve::request_body::{CallerStream, GrpcRequestBody, StreamProblem};
use crate::protocols::kserve::response::GrpcResponseBody;
use crate::protocols::kserve::status::{self, GRPC, STATUS, trailers_only};
use crate::reactor::in_flight::InFlightCall;
use crate::reactor::shared::SharedState;
use crate::reactor::state::Reactor;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tenon_problem::ProblemCode;
use tenon_snapshot::Key;
use tenon_usage::{Operation, Outcome};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// What the methods work with: the reactor, and its connections to endpoints that speak gRPC.
pub struct Grpc {
    pub reactor: Rc<Reactor>,
    pub connections: GrpcConnections,
}

/// Answers one request. It never fails: an error is a status too.
pub async fn handle(grpc: Rc<Grpc>, peer: Peer, request: Request<Incoming>) -> Response<GrpcResponseBody> {
    let reactor = &grpc.reactor;
    let arrival = Arrival::now(request.headers(), peer);
    let id = arrival.id;
    let answer = answer(&grpc, request, arrival).await;
    let status = answer.as_ref().map_or_else(|problem| problem.status, |_| 200);
    reactor.observers.metrics().request(Operation::Infer as usize, status);
    answer.unwrap_or_else(|problem| {
        reactor.observers.metrics().refusal(problem.code);
        let mut response = Response::new(GrpcResponseBody::Empty);
        *response.headers_mut() = trailers_only(&problem, id);
        response
    })
}

async fn answer(grpc: &Grpc, request: Request<Incoming>, arrival: Arrival) -> Result<Response<GrpcResponseBody>, Problem> {
    let reactor = &grpc.reactor;
    let route = route_of(&request).inspect_err(|problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem))?;
    let Task::Grpc(rpc) = route.task else {
        return Err(Problem::UNIMPLEMENTED);
    };
    match rpc {
        // Needs no key, as `/livez` needs none.
        Rpc::ServerLive => Ok(one_message_response(&[0x08, 1])),
        Rpc::ServerReady | Rpc::ServerMetadata | Rpc::ModelReady => {
            local(reactor, rpc, request, &arrival).await.inspect_err(|problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem))
        }
        Rpc::ModelInfer | Rpc::ModelMetadata => Box::pin(unary(grpc, request, arrival, route)).await,
        Rpc::ModelStreamInfer => Box::pin(stream(grpc, request, arrival, route)).await,
    }
}

fn route_of(request: &Request<Incoming>) -> Result<&'static Route, Problem> {
    let headers = request.headers();
    let is_grpc =
        headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/grpc" || value.as_bytes().starts_with(b"application/grpc+proto"));
    if *request.method() != Method::POST || !is_grpc {
        return Err(Problem::NOT_GRPC);
    }
    if headers.get(ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Problem::COMPRESSED);
    }
    GRPC_ROUTES.iter().find(|route| route.path == request.uri().path()).ok_or(Problem::UNIMPLEMENTED)
}

/// The methods that need no endpoint.
async fn local(reactor: &Reactor, rpc: Rpc, request: Request<Incoming>, arrival: &Arrival) -> Result<Response<GrpcResponseBody>, Problem> {
    let (parts, body) = request.into_parts();
    let key = authenticate(&reactor.credentials, &reactor.clock, &parts.headers, &arrival.peer, Operation::Infer).await?;
    match rpc {
        Rpc::ServerReady => Ok(one_message_response(&[0x08, 1])),
        Rpc::ServerMetadata => {
            let mut metadata = Vec::new();
            put_bytes(1, b"tenon-gateway", &mut metadata);
            put_bytes(2, env!("CARGO_PKG_VERSION").as_bytes(), &mut metadata);
            Ok(one_message_response(&metadata))
        }
        _ => {
            let message = one_message(&reactor.shared, body).await?;
            match admit_call(&reactor.shared, &reactor.clock, &key, &requested(model_name(&message)?.name, &message), &LimitHeaders::default()).await
            {
                Ok(_) => Ok(one_message_response(&[0x08, 1])),
                Err(problem) if problem.code == ProblemCode::NoUsableEndpoint => Ok(one_message_response(&[])),
                Err(problem) => Err(problem),
            }
        }
    }
}

/// A response of the gateway's own: one message, with status OK.
fn one_message_response(message: &[u8]) -> Response<GrpcResponseBody> {
    let ok = HeaderMap::from_iter([(STATUS, http::HeaderValue::from_static("0"))]);
    let framed = framed(&Bytes::copy_from_slice(message), None).concat();
    let mut response = Response::new(GrpcResponseBody::Own(Some(framed.into()), Some(ok)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

async fn one_message(shared: &SharedState, body: Incoming) -> Result<Bytes, Problem> {
    let whole = read_body(body, shared).await?;
    let mut framer = Framer::default();
    framer.push(&whole);
    let message = framer.next(shared.limits.body_bytes_max)?.ok_or(Problem::BODY_BROKEN)?;
    if framer.is_empty() { Ok(message) } else { Err(Problem::BAD_MESSAGE) }
}

async fn unary(grpc: &Grpc, request: Request<Incoming>, arrival: Arrival, route: &'static Route) -> Result<Response<GrpcResponseBody>, Problem> {
    let reactor = &grpc.reactor;
    let (parts, body) = request.into_parts();
    let read = async {
        let key = authenticate(&reactor.credentials, &reactor.clock, &parts.headers, &arrival.peer, Operation::Infer).await?;
        let message = one_message(&reactor.shared, body).await?;
        let name = model_name(&message)?.name.to_owned();
        Ok((key, message, name))
    };
    let (key, message, name) = read.await.inspect_err(|problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem))?;
    let make = |upstream_model: Option<&str>| Some(GrpcRequestBody::Whole(framed(&message, upstream_model).into_iter()));
    let outgoing = OutgoingCall {
        path: route.path,
        headers: &parts.headers,
        timeout: status::timeout(&parts.headers),
        body: &make,
        stream_problem: None,
        take_back: &drop,
    };
    let (call, upstream) = admitted_call(grpc, &key, (&name, &message), arrival, (route, false), &outgoing).await?;
    relay(reactor, call, upstream, None)
}

async fn stream(grpc: &Grpc, request: Request<Incoming>, arrival: Arrival, route: &'static Route) -> Result<Response<GrpcResponseBody>, Problem> {
    let reactor = &grpc.reactor;
    let (parts, body) = request.into_parts();
    let read = async {
        let key = authenticate(&reactor.credentials, &reactor.clock, &parts.headers, &arrival.peer, Operation::Infer).await?;
        let opening = CallerStream::open(body, reactor.shared.limits.body_bytes_max);
        let stream = tokio::time::timeout(reactor.shared.limits.body_read, opening).await.map_err(|_| Problem::BODY_TIMEOUT)??;
        Ok((key, stream))
    };
    let (key, stream) = read.await.inspect_err(|problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem))?;
    let (name, first, stream_problem) = (stream.model().to_owned(), stream.first().unwrap_or_default(), stream.stream_problem.clone());
    let held = RefCell::new(Some(Box::new(stream)));
    let make = |upstream_model: Option<&str>| {
        let mut stream = held.borrow_mut().take()?;
        stream.upstream_model = upstream_model.map(Into::into);
        Some(GrpcRequestBody::Stream(stream))
    };
    let take_back = |body: GrpcRequestBody| {
        if let GrpcRequestBody::Stream(stream) = body {
            *held.borrow_mut() = Some(stream);
        }
    };
    let outgoing = OutgoingCall {
        path: route.path,
        headers: &parts.headers,
        timeout: status::timeout(&parts.headers),
        body: &make,
        stream_problem: Some(&stream_problem),
        take_back: &take_back,
    };
    let (call, upstream) = admitted_call(grpc, &key, (&name, &first), arrival, (route, true), &outgoing).await?;
    relay(reactor, call, upstream, Some(stream_problem))
}

/// Nothing in a request bounds the tokens that an engine makes of it.
fn requested<'a>(model: &'a str, message: &'a [u8]) -> RequestedCall<'a> {
    RequestedCall { model, operation: Operation::Infer, body: message, read: None }
}

async fn admitted_call(
    grpc: &Grpc,
    key: &Arc<Key>,
    (model, first): (&str, &[u8]),
    arrival: Arrival,
    (route, streamed): (&'static Route, bool),
    outgoing: &OutgoingCall<'_>,
) -> Result<(Box<Call>, GrpcUpstream), Problem> {
    let reactor = &grpc.reactor;
    let info = arrival.into_request(&reactor.observers, route, streamed);
    let mut call = Call::new(reactor, InFlightCall::new(key.clone(), info.started), info);
    // Tensors are not logged: they are no text that could be redacted.
    call.sample(&Bytes::new());
    let admitted = admit_call(&reactor.shared, &reactor.clock, key, &requested(model, first), &LimitHeaders::default())
        .await
        .inspect_err(|problem| call.refuse(problem))?;
    let upstream =
        try_routes(reactor, admitted, &mut call, async |call| attempt(&reactor.upstreams, &grpc.connections, &reactor.clock, call, outgoing).await)
            .await?;
    Ok((call, upstream))
}

/// The head of the answer. Refusals that the caller must not see are replaced.
fn relay(
    reactor: &Rc<Reactor>,
    mut call: Box<Call>,
    upstream: GrpcUpstream,
    stream_problem: Option<Rc<StreamProblem>>,
) -> Result<Response<GrpcResponseBody>, Problem> {
    let headers = upstream.response.headers();
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let is_plain = headers.get(ENCODING).is_none_or(|encoding| encoding == "identity");
    let hidden = match (upstream.response.status().as_u16(), status_of(headers)) {
        (200, Some(status::UNAUTHENTICATED | status::PERMISSION_DENIED)) | (401 | 403, _) => Some(Problem::CREDENTIAL),
        (200, _) if is_grpc && is_plain => None,
        (503, _) => Some(Problem::OVERLOADED),
        (500.., _) => Some(Problem::UPSTREAM),
        _ => Some(Problem::PROTOCOL),
    };
    if let Some(problem) = hidden {
        call.fail(&problem, Outcome::UpstreamError);
        return Err(problem);
    }
    call.http_status = 200;
    let id = headers::request_id(call.request.id);
    // A refusal comes as a head without a body, and is passed on as one.
    let refusal = status_of(headers).map(|_| headers.clone());
    let mut response = match refusal {
        Some(theirs) => {
            call.settle(Outcome::UpstreamError, Measured::default());
            let mut response = Response::new(GrpcResponseBody::Empty);
            *response.headers_mut() = theirs;
            response
        }
        None => Response::new(GrpcResponseBody::Relay(Box::new(GrpcRelay::new(reactor, call, upstream, stream_problem)))),
    };
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response.headers_mut().insert(headers::REQUEST_ID, id);
    Ok(response)
}
