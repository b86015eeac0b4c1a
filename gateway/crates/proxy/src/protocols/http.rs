//! Requests of the HTTP listener, from their arrival to their response.

use crate::base::boxing::boxed;
use crate::base::headers;
use crate::base::headers::dialect_of;
use crate::base::peer::Peer;
use crate::base::problem::Problem;
use crate::call::guard::Call;
use crate::call::request_info::RequestInfo;
use crate::pipeline::admit::{LimitHeaders, RequestedCall, admit_call};
use crate::pipeline::arrival::{Arrival, log_refusal};
use crate::pipeline::attempt::{UpstreamResponse, hidden_status};
use crate::pipeline::authenticate::authenticate;
use crate::pipeline::failover::call_upstream;
use crate::pipeline::read_body::read_body;
use crate::pipeline::relay::Relay;
use crate::pipeline::response::{ResponseBody, respond, respond_about};
use crate::pipeline::routes::{Route, Task};
use crate::pipeline::translated_response;
use crate::pipeline::upstream_request::CallerRequest;
use crate::protocols::explain::explain;
use crate::protocols::models::{model, models};
use crate::protocols::realtime::handler::realtime;
use crate::reactor::caller_connection::BusyGuard;
use crate::reactor::in_flight::InFlightCall;
use crate::reactor::state::Reactor;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tenon_dialects::{Dialect, IncludeUsage, RequestFormat};
use tenon_limits::ApplicableRules;
use tenon_snapshot::Key;
use tenon_usage::{Outcome, RecordId};

/// Answers one request. It never fails: an error is an answer too.
pub async fn handle(reactor: Rc<Reactor>, peer: Peer, request: Request<Incoming>, busy: BusyGuard) -> Result<Response<ResponseBody>, Infallible> {
    let arrival = Arrival::now(request.headers(), peer);
    let id = arrival.id;
    let limit_headers = LimitHeaders::default();
    let route = Route::of(request.method(), request.uri().path());
    let (index, dialect) = match &route {
        Ok(route) if matches!(route.task, Task::Call(_)) => (route.metric(), route.dialect),
        Ok(route) => (route.metric(), dialect_of(request.headers())),
        Err(_) => (0, dialect_of(request.headers())),
    };
    let answer = match route.map(|route| (route, route.task)) {
        Ok((_, Task::Models)) => Box::pin(models(&reactor.credentials, &reactor.clock, &request, &arrival))
            .await
            .inspect_err(|problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem)),
        Ok((_, Task::Model)) => Box::pin(model(&reactor.credentials, &reactor.clock, &request, &arrival))
            .await
            .inspect_err(|problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem)),
        Ok((_, Task::Explain)) => Box::pin(explain(&reactor, &request, &arrival))
            .await
            .inspect_err(|problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem)),
        Ok((route, Task::Realtime)) => Box::pin(realtime(&reactor, request, arrival, route, &limit_headers)).await,
        Ok((route, Task::Call(format))) => Box::into_pin(boxed(|| model_call(&reactor, request, arrival, (route, format), &limit_headers))).await,
        // Not reached by a path: gRPC has a listener of its own.
        Ok((_, Task::Grpc(_))) => Err(Problem::NOT_FOUND),
        Err(problem) => {
            log_refusal(&reactor.observers, &reactor.clock, &arrival, &problem);
            Err(problem)
        }
    };
    let mut response = answer.unwrap_or_else(|problem| {
        reactor.observers.metrics().refusal(problem.code);
        respond(&problem, id, dialect)
    });
    limit_headers.write(&reactor.shared, &reactor.clock, &mut response);
    if dialect == Dialect::Anthropic {
        response.headers_mut().insert(headers::ANTHROPIC_REQUEST_ID, headers::request_id(id));
    }
    reactor.observers.metrics().request(index, response.status().as_u16());
    if busy.is_closing() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().busy = Some(busy);
    Ok(response)
}

async fn model_call(
    reactor: &Rc<Reactor>,
    request: Request<Incoming>,
    arrival: Arrival,
    (route, format): (&'static Route, RequestFormat),
    limit_headers: &LimitHeaders,
) -> Result<Response<ResponseBody>, Problem> {
    let (parts, body) = request.into_parts();
    let refused = |problem: &Problem| log_refusal(&reactor.observers, &reactor.clock, &arrival, problem);
    let (key, body) = caller_and_body(reactor, &parts.headers, &arrival.peer, route, body).await.inspect_err(refused)?;
    limit_headers.set(ApplicableRules { key: key.rules.clone(), model: None });
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let head = format.read(content_type, &body).map_err(Problem::from).inspect_err(refused)?;
    let streamed = head.stream && format.streams();
    let requests_usage = streamed && format.needs_usage_option() && head.include_usage != IncludeUsage::Requested;
    let caller_request =
        CallerRequest { body: &body, head: &head, route, format, requests_usage, headers: &parts.headers, refused: RefCell::default() };
    let id = arrival.id;
    let info = arrival.into_request(&reactor.observers, route, streamed);
    let begun = pin!(admitted_call(reactor, &key, info, &caller_request, limit_headers)).await;
    let (call, upstream) = match begun {
        Ok(begun) => begun,
        Err(problem) => return respond_with_field(reactor, problem, &caller_request, id),
    };
    let reading = Reading { format, take_usage_out: requests_usage, include_usage: head.include_usage == IncludeUsage::Requested };
    answer(reactor, call, upstream, &reading).await
}

async fn caller_and_body(reactor: &Reactor, headers: &HeaderMap, peer: &Peer, route: &Route, body: Incoming) -> Result<(Arc<Key>, Bytes), Problem> {
    let key = authenticate(&reactor.credentials, &reactor.clock, headers, peer, route.operation).await?;
    Ok((key, read_body(body, &reactor.shared).await?))
}

async fn admitted_call(
    reactor: &Rc<Reactor>,
    key: &Arc<Key>,
    info: RequestInfo,
    caller_request: &CallerRequest<'_>,
    limit_headers: &LimitHeaders,
) -> Result<(Box<Call>, UpstreamResponse), Problem> {
    let mut guard = Call::new(reactor, InFlightCall::new(key.clone(), info.started), info);
    guard.sample(caller_request.body);
    let CallerRequest { head, format, body, .. } = *caller_request;
    let requested = RequestedCall { model: &head.model, operation: caller_request.route.operation, body, read: Some((format, head)) };
    let admitted = admit_call(&reactor.shared, &reactor.clock, key, &requested, limit_headers).await.inspect_err(|problem| guard.refuse(problem))?;
    let upstream = pin!(call_upstream(reactor, admitted, &mut guard, caller_request)).await?;
    Ok((guard, upstream))
}

/// How the answer is read, and what of it the caller gets.
struct Reading {
    format: RequestFormat,
    /// The gateway asked for the usage frame, not the caller.
    take_usage_out: bool,
    /// The caller asked for a usage frame.
    include_usage: bool,
}

/// The refusal of a request, naming the field that could not be translated.
fn respond_with_field(
    reactor: &Reactor,
    problem: Problem,
    caller_request: &CallerRequest<'_>,
    id: RecordId,
) -> Result<Response<ResponseBody>, Problem> {
    match caller_request.refused.take() {
        Some(refused) if refused.code == problem.code => {
            reactor.observers.metrics().refusal(problem.code);
            Ok(respond_about(&problem, &refused, id, caller_request.route.dialect))
        }
        _ => Err(problem),
    }
}

/// Checks the head of an endpoint's answer. Refusals that the caller must not see are replaced.
fn check_head(call: &mut Call, upstream: &UpstreamResponse) -> Result<(), Problem> {
    let status = upstream.response.status();
    let hidden = match status.as_u16() {
        // An encoded answer is not understood: its usage could not be read either.
        200..=299 => upstream.response.headers().contains_key(CONTENT_ENCODING).then_some(Problem::PROTOCOL),
        other => hidden_status(other),
    };
    if let Some(problem) = hidden {
        call.failed(problem.code, Some(format!("the endpoint answered {}", status.as_u16())));
        call.fail(&problem, Outcome::UpstreamError);
        return Err(problem);
    }
    call.http_status = status.as_u16();
    Ok(())
}

async fn answer(
    reactor: &Rc<Reactor>,
    mut call: Box<Call>,
    upstream: UpstreamResponse,
    reading: &Reading,
) -> Result<Response<ResponseBody>, Problem> {
    check_head(&mut call, &upstream)?;
    let events = upstream.is_good_stream();
    match upstream.direction {
        Some(direction) if !events => Box::pin(translated_response::answer(&reactor.upstreams, &reactor.clock, call, upstream, direction)).await,
        _ => Ok(relay(reactor, call, upstream, reading, events)),
    }
}

fn relay(reactor: &Rc<Reactor>, call: Box<Call>, upstream: UpstreamResponse, reading: &Reading, events: bool) -> Response<ResponseBody> {
    let (id, status) = (call.request.id_header.clone(), upstream.response.status());
    let headers = upstream.response.headers();
    let content_type = headers.get(CONTENT_TYPE).cloned();
    let retry_after = headers.get(RETRY_AFTER).cloned();
    let body = if let Some(direction) = upstream.direction {
        Relay::translated(reactor, call, upstream, direction, reading.include_usage)
    } else if reading.format.is_media() && status.is_success() {
        Relay::media(reactor, call, upstream, reading.format, events)
    } else if events {
        Relay::events(reactor, call, upstream, reading.format, reading.take_usage_out)
    } else {
        Relay::whole(reactor, call, upstream, reading.format)
    };
    relayed(status, id, content_type, retry_after, events, body)
}

fn relayed(
    status: StatusCode,
    id: HeaderValue,
    content_type: Option<HeaderValue>,
    retry_after: Option<HeaderValue>,
    events: bool,
    body: Box<Relay>,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::relay(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // With room for headers that are added later, hyper's own included: growing would move everything.
    headers.reserve(8);
    headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/json")));
    headers.insert(headers::REQUEST_ID, id);
    if events {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    if let Some(retry_after) = retry_after {
        headers.insert(RETRY_AFTER, retry_after);
    }
    response
}
