//! The doors of the Open Inference Protocol v2 (`inference.GRPCInferenceService`) over gRPC, on a listener of their own.
//!
//! The same road as every other call: authenticate, admit, route, call, meter. Messages pass byte for byte, but for the model's name where a
//! route renames it. One record for each `ModelInfer`, `ModelMetadata` and `ModelStreamInfer`, the whole stream included.

mod body;
mod framing;
mod message;
mod relay;
mod server;
mod status;
mod upstream;

use crate::admit::{Told, Wanted, admitted};
use crate::authenticate::authenticate;
use crate::call::{Call, Measured};
use crate::doors::{Door, GRPC_DOORS, Rpc, Task};
use crate::failover::try_routes;
use crate::live::Live;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::receive::receive;
use crate::road::{Arrival, tell_refused};
use crate::worker::Worker;
use body::{CallerStream, Reply, Upgoing};
use bytes::Bytes;
use framing::Framer;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use message::{framed, model_name, put_bytes};
use relay::{Relay, status_of};
use status::{GRPC, STATUS, trailers_only};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tenon_policy::Refusal;
use tenon_snapshot::Key;
use tenon_usage::{Operation, Outcome};
use upstream::{Answering, Wish, attempt};

pub use server::greet;
pub use upstream::{Connections, Local};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

impl Problem {
    pub const BAD_MESSAGE: Self = Self::new(400, "invalid_message", "The message cannot be read in one way only.");
    pub const COMPRESSED: Self = Self::new(501, "compression_not_served", "Messages must not be compressed.");
    pub const NOT_GRPC: Self = Self::new(415, "unsupported_media_type", "This listener speaks gRPC.");
    pub const UNIMPLEMENTED: Self = Self::new(501, "unknown_route", "There is no such method here.");
}

/// Answers one request. It never fails: what goes wrong is a status.
pub async fn walk(worker: Rc<Worker>, peer: Peer, request: Request<Incoming>) -> Response<Reply> {
    let arrival = Arrival::now(request.headers(), peer);
    let id = arrival.id;
    let answer = answer(&worker, request, arrival).await;
    let status = answer.as_ref().map_or_else(|problem| problem.status, |_| 200);
    worker.metrics().request(Operation::Infer as usize, status);
    answer.unwrap_or_else(|problem| {
        worker.metrics().refusal(problem.code);
        let mut response = Response::new(Reply::Empty);
        *response.headers_mut() = trailers_only(&problem, id);
        response
    })
}

async fn answer(worker: &Rc<Worker>, request: Request<Incoming>, arrival: Arrival) -> Result<Response<Reply>, Problem> {
    let door = understood(&request).inspect_err(|problem| tell_refused(worker, &arrival, problem))?;
    let Task::Grpc(rpc) = door.task else {
        return Err(Problem::UNIMPLEMENTED);
    };
    match rpc {
        // Whoever can connect may know that it lives, as at `/livez`.
        Rpc::ServerLive => Ok(own(&[0x08, 1])),
        Rpc::ServerReady | Rpc::ServerMetadata | Rpc::ModelReady => {
            local(worker, rpc, request, &arrival).await.inspect_err(|problem| tell_refused(worker, &arrival, problem))
        }
        Rpc::ModelInfer | Rpc::ModelMetadata => Box::pin(unary(worker, request, arrival, door)).await,
        Rpc::ModelStreamInfer => Box::pin(stream(worker, request, arrival, door)).await,
    }
}

fn understood(request: &Request<Incoming>) -> Result<&'static Door, Problem> {
    let headers = request.headers();
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc" || kind.as_bytes().starts_with(b"application/grpc+proto"));
    if *request.method() != Method::POST || !is_grpc {
        return Err(Problem::NOT_GRPC);
    }
    if headers.get(ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Problem::COMPRESSED);
    }
    GRPC_DOORS.iter().find(|door| door.path == request.uri().path()).ok_or(Problem::UNIMPLEMENTED)
}

async fn caller(worker: &Worker, headers: &HeaderMap, arrival: &Arrival) -> Result<Arc<Key>, Problem> {
    let key = authenticate(worker, headers, &arrival.peer, Operation::Infer).await?;
    if key.may_call_models() { Ok(key) } else { Err(Refusal::MayNotCall.into()) }
}

/// What needs no endpoint.
async fn local(worker: &Worker, rpc: Rpc, request: Request<Incoming>, arrival: &Arrival) -> Result<Response<Reply>, Problem> {
    let (parts, body) = request.into_parts();
    let key = caller(worker, &parts.headers, arrival).await?;
    match rpc {
        Rpc::ServerReady => Ok(own(&[0x08, 1])),
        Rpc::ServerMetadata => {
            let mut metadata = Vec::new();
            put_bytes(1, b"tenon-gateway", &mut metadata);
            put_bytes(2, env!("CARGO_PKG_VERSION").as_bytes(), &mut metadata);
            Ok(own(&metadata))
        }
        _ => {
            let message = one_message(worker, body).await?;
            match admitted(worker, &key, &wanted(model_name(&message)?.name, &message), &Told::default()).await {
                Ok(_) => Ok(own(&[0x08, 1])),
                Err(problem) if problem.code == Refusal::NoUsableEndpoint.told().code => Ok(own(&[])),
                Err(problem) => Err(problem),
            }
        }
    }
}

/// An answer of our own: one message, and that all is well.
fn own(message: &[u8]) -> Response<Reply> {
    let well = HeaderMap::from_iter([(STATUS, http::HeaderValue::from_static("0"))]);
    let framed = framed(&Bytes::copy_from_slice(message), None).concat();
    let mut response = Response::new(Reply::Own(Some(framed.into()), Some(well)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

async fn one_message(worker: &Worker, body: Incoming) -> Result<Bytes, Problem> {
    let whole = receive(body, worker).await?;
    let mut framer = Framer::default();
    framer.push(&whole);
    let message = framer.next(worker.limits.body_bytes_max)?.ok_or(Problem::BODY_BROKEN)?;
    if framer.is_empty() { Ok(message) } else { Err(Problem::BAD_MESSAGE) }
}

async fn unary(worker: &Rc<Worker>, request: Request<Incoming>, arrival: Arrival, door: &'static Door) -> Result<Response<Reply>, Problem> {
    let (parts, body) = request.into_parts();
    let read = async {
        let key = caller(worker, &parts.headers, &arrival).await?;
        let message = one_message(worker, body).await?;
        let name = model_name(&message)?.name.to_owned();
        Ok((key, message, name))
    };
    let (key, message, name) = read.await.inspect_err(|problem| tell_refused(worker, &arrival, problem))?;
    let make = |upstream_model: Option<&str>| Some(Upgoing::Whole(framed(&message, upstream_model).into_iter()));
    let wish = Wish { headers: &parts.headers, timeout: status::timeout(&parts.headers), body: &make, objection: None, take_back: &drop };
    let (call, answering) = admitted_call(worker, &key, (&name, &message), arrival, (door, false), &wish).await?;
    relay(worker, call, answering, None)
}

async fn stream(worker: &Rc<Worker>, request: Request<Incoming>, arrival: Arrival, door: &'static Door) -> Result<Response<Reply>, Problem> {
    let (parts, body) = request.into_parts();
    let read = async {
        let key = caller(worker, &parts.headers, &arrival).await?;
        let begin = CallerStream::begin(body, worker.limits.body_bytes_max);
        let stream = tokio::time::timeout(worker.limits.body_read, begin).await.map_err(|_| Problem::BODY_TIMEOUT)??;
        Ok((key, stream))
    };
    let (key, stream) = read.await.inspect_err(|problem| tell_refused(worker, &arrival, problem))?;
    let (name, first, objection) = (stream.model().to_owned(), stream.first().unwrap_or_default(), stream.objection.clone());
    let held = RefCell::new(Some(Box::new(stream)));
    let make = |upstream_model: Option<&str>| {
        let mut stream = held.borrow_mut().take()?;
        stream.upstream_model = upstream_model.map(Into::into);
        Some(Upgoing::Stream(stream))
    };
    let take_back = |body: Upgoing| {
        if let Upgoing::Stream(stream) = body {
            *held.borrow_mut() = Some(stream);
        }
    };
    let wish =
        Wish { headers: &parts.headers, timeout: status::timeout(&parts.headers), body: &make, objection: Some(&objection), take_back: &take_back };
    let (call, answering) = admitted_call(worker, &key, (&name, &first), arrival, (door, true), &wish).await?;
    relay(worker, call, answering, Some(objection))
}

/// What an engine makes of a request is not told in it: its tokens have no bound that we could see.
fn wanted<'a>(model: &'a str, message: &'a [u8]) -> Wanted<'a> {
    Wanted { model, operation: Operation::Infer, body: message, read: None }
}

async fn admitted_call(
    worker: &Rc<Worker>,
    key: &Arc<Key>,
    (model, first): (&str, &[u8]),
    arrival: Arrival,
    (door, streamed): (&'static Door, bool),
    wish: &Wish<'_>,
) -> Result<(Box<Call>, Answering), Problem> {
    let subject = arrival.subject(worker, door, streamed);
    let mut call = Call::new(worker, Live::new(key.clone(), subject.started), subject);
    // Tensors are no text that could be redacted.
    call.sample(&Bytes::new());
    let admitted = admitted(worker, key, &wanted(model, first), &Told::default()).await.inspect_err(|problem| call.refuse(problem))?;
    let answering = try_routes(worker, admitted, &mut call, async |call| attempt(worker, call, wish).await).await?;
    Ok((call, answering))
}

/// The head of the answer. What the caller must not see of the endpoint's refusals is told in our own words.
fn relay(worker: &Rc<Worker>, mut call: Box<Call>, answering: Answering, objection: Option<Rc<body::Objection>>) -> Result<Response<Reply>, Problem> {
    let headers = answering.response.headers();
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let is_plain = headers.get(ENCODING).is_none_or(|encoding| encoding == "identity");
    let hidden = match (answering.response.status().as_u16(), status_of(headers)) {
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
    let id = crate::answer::header_of::request_id(call.subject.id);
    // A refusal comes as a head without a body: it is passed on as one.
    let over = status_of(headers).map(|_| headers.clone());
    let mut response = match over {
        Some(theirs) => {
            call.settle(Outcome::UpstreamError, Measured::default());
            let mut response = Response::new(Reply::Empty);
            *response.headers_mut() = theirs;
            response
        }
        None => Response::new(Reply::Relay(Box::new(Relay::new(worker, call, answering, objection)))),
    };
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response.headers_mut().insert(crate::answer::header_of::REQUEST_ID, id);
    Ok(response)
}
