//! The road of one request.

use crate::admit::{Told, Wanted, admitted};
use crate::answer::{Reply, header_of};
use crate::ask::dialect_of;
use crate::authenticate::authenticate;
use crate::call::{Call, Subject};
use crate::connection::Busy;
use crate::doors::{Door, Task, explained};
use crate::failover::call;
use crate::in_place::boxed;
use crate::journal::Line;
use crate::listing::{model, models};
use crate::live::Live;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::realtime::realtime;
use crate::receive::receive;
use crate::relay::Relay;
use crate::trace::Trace;
use crate::translated;
use crate::upstream::{Answering, Prepared};
use crate::worker::Worker;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tenon_dialects::{Dialect, Form, IncludeUsage};
use tenon_limits::Applies;
use tenon_policy::Refusal;
use tenon_snapshot::Key;
use tenon_usage::{Operation, Outcome, RecordId};

/// When and as what a request arrived.
pub struct Arrival {
    pub id: RecordId,
    pub at: Instant,
    pub unix_us: i64,
    pub trace: Trace,
    pub peer: Peer,
}

impl Arrival {
    pub fn now(headers: &HeaderMap, peer: Peer) -> Self {
        let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        Self { id: RecordId::mint(unix_us / 1000), at: Instant::now(), unix_us, trace: Trace::of(headers), peer }
    }

    /// It becomes a call; whether it is sampled is decided here.
    pub fn subject(self, worker: &Worker, door: &'static Door, streamed: bool) -> Subject {
        let trace = match &worker.spans {
            Some(spans) => self.trace.sampled(spans),
            None => self.trace,
        };
        Subject { id: self.id, id_header: header_of::request_id(self.id), trace, started: self.at, started_unix_us: self.unix_us, door, streamed }
    }
}

/// Answers one request. It never fails: what goes wrong is an answer too.
pub async fn walk(worker: Rc<Worker>, peer: Peer, request: Request<Incoming>, busy: Busy) -> Result<Response<Reply>, Infallible> {
    let arrival = Arrival::now(request.headers(), peer);
    let id = arrival.id;
    let told = Told::default();
    let door = Door::of(request.method(), request.uri().path());
    let (index, dialect) = match &door {
        Ok(door) if matches!(door.task, Task::Call(_)) => (door.metric(), door.dialect),
        Ok(door) => (door.metric(), dialect_of(request.headers())),
        Err(_) => (0, dialect_of(request.headers())),
    };
    let answer = match door.map(|door| (door, door.task)) {
        Ok((_, Task::Models)) => Box::pin(models(&worker, &request, &arrival)).await.inspect_err(|problem| tell_refused(&worker, &arrival, problem)),
        Ok((_, Task::Model)) => Box::pin(model(&worker, &request, &arrival)).await.inspect_err(|problem| tell_refused(&worker, &arrival, problem)),
        Ok((_, Task::Explain)) => {
            Box::pin(explain(&worker, &request, &arrival)).await.inspect_err(|problem| tell_refused(&worker, &arrival, problem))
        }
        Ok((door, Task::Realtime)) => Box::pin(realtime(&worker, request, arrival, door, &told)).await,
        Ok((door, Task::Call(form))) => Box::into_pin(boxed(|| model_call(&worker, request, arrival, (door, form), &told))).await,
        // No path leads there: they have a listener of their own.
        Ok((_, Task::Grpc(_))) => Err(Problem::NOT_FOUND),
        Err(problem) => {
            tell_refused(&worker, &arrival, &problem);
            Err(problem)
        }
    };
    let mut response = answer.unwrap_or_else(|problem| {
        worker.metrics().refusal(problem.code);
        problem.response(id, dialect)
    });
    told.add_headers(&worker, &mut response);
    if dialect == Dialect::Anthropic {
        response.headers_mut().insert(header_of::ANTHROPIC_REQUEST_ID, header_of::request_id(id));
    }
    worker.metrics().request(index, response.status().as_u16());
    if busy.is_leaving() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().busy = Some(busy);
    Ok(response)
}

/// The log's line for what ended before it was a call. A call tells its own when it is over.
pub fn tell_refused(worker: &Worker, arrival: &Arrival, problem: &Problem) {
    worker.tell(&Line {
        id: arrival.id,
        trace: &arrival.trace,
        outcome: "refused",
        status: problem.status,
        code: Some(problem.code),
        endpoint_id: None,
        attempts: 0,
        took: arrival.at.elapsed(),
        detail: None,
        is_failure: problem.status >= 500,
    });
}

async fn explain(worker: &Worker, request: &Request<Incoming>, arrival: &Arrival) -> Result<Response<Reply>, Problem> {
    let key = authenticate(worker, request.headers(), &arrival.peer, Operation::Unspecified).await?;
    if !key.may_call_models() {
        return Err(Refusal::MayNotCall.into());
    }
    let told = explained(request.uri().path()).and_then(|asked| worker.trails.explain_to(&key, asked)).ok_or(Problem::UNKNOWN_REQUEST)?;
    let mut response = Response::new(Reply::full(told.to_string().into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header_of::REQUEST_ID, header_of::request_id(arrival.id));
    Ok(response)
}

async fn model_call(
    worker: &Rc<Worker>,
    request: Request<Incoming>,
    arrival: Arrival,
    (door, form): (&'static Door, Form),
    told: &Told,
) -> Result<Response<Reply>, Problem> {
    let (parts, body) = request.into_parts();
    let refused = |problem: &Problem| tell_refused(worker, &arrival, problem);
    let (key, body) = caller_and_body(worker, &parts.headers, &arrival.peer, door, body).await.inspect_err(refused)?;
    told.set(Applies { key: key.rules.clone(), model: None });
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let head = form.read(content_type, &body).map_err(Problem::from).inspect_err(refused)?;
    let streamed = head.stream && form.streams();
    let ask_usage = streamed && form.asks_usage() && head.include_usage != IncludeUsage::Asked;
    let prepared = Prepared { body: &body, head: &head, door, form, ask_usage, headers: &parts.headers, refused: RefCell::default() };
    let id = arrival.id;
    let subject = arrival.subject(worker, door, streamed);
    let begun = pin!(admitted_call(worker, &key, subject, &prepared, told)).await;
    let (call, answering) = match begun {
        Ok(begun) => begun,
        Err(problem) => return told_with_field(worker, problem, &prepared, id),
    };
    let reading = Reading { form, take_usage_out: ask_usage, include_usage: head.include_usage == IncludeUsage::Asked };
    answer(worker, call, answering, &reading).await
}

async fn caller_and_body(worker: &Worker, headers: &HeaderMap, peer: &Peer, door: &Door, body: Incoming) -> Result<(Arc<Key>, Bytes), Problem> {
    let key = authenticate(worker, headers, peer, door.operation).await?;
    if !key.may_call_models() {
        return Err(Refusal::MayNotCall.into());
    }
    Ok((key, receive(body, worker).await?))
}

async fn admitted_call(
    worker: &Rc<Worker>,
    key: &Arc<Key>,
    subject: Subject,
    prepared: &Prepared<'_>,
    told: &Told,
) -> Result<(Box<Call>, Answering), Problem> {
    let mut guard = Call::new(worker, Live::new(key.clone(), subject.started), subject);
    guard.sample(prepared.body);
    let wanted =
        Wanted { model: &prepared.head.model, operation: prepared.door.operation, body: prepared.body, read: Some((prepared.form, prepared.head)) };
    let admitted = admitted(worker, key, &wanted, told).await.inspect_err(|problem| guard.refuse(problem))?;
    let answering = pin!(call(worker, admitted, &mut guard, prepared)).await?;
    Ok((guard, answering))
}

/// How the answer is read, and what of it the caller gets.
struct Reading {
    form: Form,
    /// The usage frame was our wish, not the caller's.
    take_usage_out: bool,
    /// The caller wants a usage frame.
    include_usage: bool,
}

/// The refusal of a request, with the field that could not be said to the endpoint.
fn told_with_field(worker: &Worker, problem: Problem, prepared: &Prepared<'_>, id: RecordId) -> Result<Response<Reply>, Problem> {
    match prepared.refused.take() {
        Some(refused) if refused.code == problem.code => {
            worker.metrics().refusal(problem.code);
            Ok(problem.response_about(&refused, id, prepared.door.dialect))
        }
        _ => Err(problem),
    }
}

/// What the caller must not see of the upstream's refusals is told in our own words.
fn check_head(call: &mut Call, answering: &Answering) -> Result<(), Problem> {
    let status = answering.response.status();
    let hidden = match status.as_u16() {
        // Not understood: its usage could not be read either.
        200..=299 if answering.response.headers().contains_key(CONTENT_ENCODING) => Some(Problem::PROTOCOL),
        200..=299 => None,
        401 | 403 | 407 => Some(Problem::CREDENTIAL),
        400..=499 => None,
        503 | 529 => Some(Problem::OVERLOADED),
        500..=599 => Some(Problem::UPSTREAM),
        _ => Some(Problem::PROTOCOL),
    };
    if let Some(problem) = hidden {
        call.trouble(problem.code, Some(format!("the endpoint answered {}", status.as_u16())));
        call.fail(&problem, Outcome::UpstreamError);
        return Err(problem);
    }
    call.http_status = status.as_u16();
    Ok(())
}

async fn answer(worker: &Rc<Worker>, mut call: Box<Call>, answering: Answering, reading: &Reading) -> Result<Response<Reply>, Problem> {
    check_head(&mut call, &answering)?;
    let events = answering.is_good_stream();
    match answering.direction {
        Some(direction) if !events => Box::pin(translated::answer(worker, call, answering, direction)).await,
        _ => Ok(relay(worker, call, answering, reading, events)),
    }
}

fn relay(worker: &Rc<Worker>, call: Box<Call>, answering: Answering, reading: &Reading, events: bool) -> Response<Reply> {
    let (id, status) = (call.subject.id_header.clone(), answering.response.status());
    let headers = answering.response.headers();
    let content_type = headers.get(CONTENT_TYPE).cloned();
    let retry_after = headers.get(RETRY_AFTER).cloned();
    let body = if let Some(direction) = answering.direction {
        Relay::translated(worker, call, answering, direction, reading.include_usage)
    } else if reading.form.is_media() && status.is_success() {
        Relay::media(worker, call, answering, reading.form, events)
    } else if events {
        Relay::events(worker, call, answering, reading.form, reading.take_usage_out)
    } else {
        Relay::whole(worker, call, answering, reading.form)
    };
    respond(status, id, content_type, retry_after, events, body)
}

fn respond(
    status: StatusCode,
    id: HeaderValue,
    content_type: Option<HeaderValue>,
    retry_after: Option<HeaderValue>,
    events: bool,
    body: Box<Relay>,
) -> Response<Reply> {
    let mut response = Response::new(Reply::relay(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Room for what is added on the way out, hyper's own included: growing would move everything.
    headers.reserve(8);
    headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/json")));
    headers.insert(header_of::REQUEST_ID, id);
    if events {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    if let Some(retry_after) = retry_after {
        headers.insert(RETRY_AFTER, retry_after);
    }
    response
}
