//! A request as an endpoint gets it: with the endpoint's path, dialect and credential.

use crate::base::headers;
use crate::call::guard::Call;
use crate::pipeline::routes::Route;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};
use std::cell::RefCell;
use tenon_dialects::multipart::splice_form;
use tenon_dialects::translate::{Direction, EndpointOptions, TranslationError};
use tenon_dialects::{Cap, Changes, Dialect, Head, Pieces, RequestFormat, UsageRequest, splice};
use tenon_policy::ChosenRoute;
use tenon_snapshot::Target;
use tenon_upstream::request_body::RequestBody;

/// The version that the translation follows, for callers who name none.
const ANTHROPIC_VERSION_OURS: HeaderValue = HeaderValue::from_static("2023-06-01");
/// Headers of a dialect that its callers may pass on. Not those that choose an account (`openai-organization`, `openai-project`): the
/// credential is the operator's.
const PASSED_ON: [(Dialect, HeaderName); 3] = [
    (Dialect::Anthropic, headers::ANTHROPIC_VERSION),
    (Dialect::Anthropic, HeaderName::from_static("anthropic-beta")),
    (Dialect::OpenAi, HeaderName::from_static("openai-beta")),
];

/// The caller's request, read, for whichever route it takes.
pub struct CallerRequest<'a> {
    pub body: &'a Bytes,
    pub head: &'a Head<'a>,
    pub route: &'static Route,
    pub format: RequestFormat,
    pub requests_usage: bool,
    pub headers: &'a HeaderMap,
    /// Why the request could not be translated for the last route that was tried.
    pub refused: RefCell<Option<Box<TranslationError>>>,
}

/// Why a route cannot be sent the request.
pub enum RequestError {
    /// The endpoint's address does not make a valid path.
    Address,
    /// The request cannot be translated into the endpoint's dialect.
    Untranslatable(TranslationError),
}

/// The request, and how its answer is to be translated.
pub fn request(
    call: &Call,
    chosen: &ChosenRoute,
    target: &Target,
    caller_request: &CallerRequest<'_>,
) -> Result<(Request<RequestBody>, Option<Direction>), RequestError> {
    let direction = direction(chosen, target, caller_request);
    let uri = uri(target, caller_request.route, direction).ok_or(RequestError::Address)?;
    let format = caller_request.format;
    let cap = call.cap().map(|tokens| cap(caller_request, target, tokens));
    let pieces = match direction {
        Some(direction) => {
            let body = capped(caller_request, cap.as_ref());
            Pieces::One(direction.request(&body, &endpoint_options(chosen, target)).map_err(RequestError::Untranslatable)?.into())
        }
        None if format.is_multipart() => splice_form(caller_request.body, caller_request.head.model_at, chosen.upstream_model()),
        None => {
            let usage = usage_request(call, chosen, format, caller_request.requests_usage);
            let changes = Changes { model: chosen.upstream_model(), usage, cap: cap.as_ref() };
            splice(caller_request.body, caller_request.head, &changes)
        }
    };
    let mut request = Request::new(RequestBody(pieces));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    headers(request.headers_mut(), call, target, caller_request, format);
    if direction.is_none() {
        pass_on(request.headers_mut(), caller_request.headers, format.dialect());
    } else if target.is_anthropic {
        request.headers_mut().insert(headers::ANTHROPIC_VERSION, ANTHROPIC_VERSION_OURS);
    }
    Ok((request, direction))
}

/// The bound on the output that a hard budget pays and the caller did not set.
fn cap(caller_request: &CallerRequest<'_>, target: &Target, tokens: u64) -> Cap {
    let cap = caller_request.format.cap(caller_request.head, tokens);
    // OpenAI's reasoning models accept no other name.
    if caller_request.format == RequestFormat::Chat && target.is_openai_itself { cap.named("max_completion_tokens") } else { cap }
}

/// The caller's body with the cap, in the caller's dialect.
fn capped(caller_request: &CallerRequest<'_>, cap: Option<&Cap>) -> Bytes {
    if cap.is_none() {
        return caller_request.body.clone();
    }
    splice(caller_request.body, caller_request.head, &Changes { model: None, usage: UsageRequest::None, cap }).flatten().collect()
}

/// `None` = the bytes pass as they are. Admission let through only what the endpoint serves in one way or the other.
fn direction(chosen: &ChosenRoute, target: &Target, caller_request: &CallerRequest<'_>) -> Option<Direction> {
    if chosen.endpoint().native & 1 << caller_request.route.operation as u32 != 0 {
        return None;
    }
    let endpoint_dialect = if target.is_anthropic { Dialect::Anthropic } else { Dialect::OpenAi };
    Direction::between(caller_request.format, endpoint_dialect).ok().flatten()
}

fn endpoint_options<'a>(chosen: &'a ChosenRoute, target: &Target) -> EndpointOptions<'a> {
    EndpointOptions {
        model: chosen.upstream_model(),
        output_tokens_max: chosen.model.output_tokens_max,
        max_completion_tokens: target.is_openai_itself,
        continuous_usage: chosen.endpoint().continuous_usage,
    }
}

fn usage_request(call: &Call, chosen: &ChosenRoute, format: RequestFormat, requested: bool) -> UsageRequest {
    match (call.request.streamed && format.needs_usage_option() && chosen.endpoint().continuous_usage, requested) {
        (true, _) => UsageRequest::Continuous,
        (false, true) => UsageRequest::Total,
        (false, false) => UsageRequest::None,
    }
}

/// Anthropic's addresses are commonly written without `/v1`.
fn uri(target: &Target, route: &Route, direction: Option<Direction>) -> Option<Uri> {
    let path = direction.map_or(route.path, Direction::endpoint_path);
    match &*target.path_prefix {
        "/v1" if direction.is_none() => Some(route.uri().clone()),
        "/v1" => Some(Uri::from_static(path)),
        "" if target.is_anthropic => Some(Uri::from_static(path)),
        prefix => format!("{prefix}{}", path.strip_prefix("/v1")?).parse().ok(),
    }
}

/// Only headers on this list are sent: whatever else a caller sends (credentials, hop-by-hop headers, cookies) ends here.
fn headers(headers: &mut HeaderMap, call: &Call, target: &Target, caller_request: &CallerRequest<'_>, format: RequestFormat) {
    headers.reserve(8);
    headers.insert(HOST, target.host_header.clone());
    // A form's content type holds its boundary, which was checked when the form was read.
    let content_type = caller_request.headers.get(CONTENT_TYPE).filter(|_| format.is_multipart()).cloned();
    headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/json")));
    headers.insert(USER_AGENT, HeaderValue::from_static("tenon-gateway"));
    headers.insert(headers::REQUEST_ID, call.request.id_header.clone());
    if let Some(authorization) = &target.authorization {
        headers.insert(if target.is_anthropic { headers::API_KEY } else { AUTHORIZATION }, authorization.clone());
    }
    if let Some(accept) = caller_request.headers.get(ACCEPT) {
        headers.insert(ACCEPT, accept.clone());
    }
    if let Some(traceparent) = &call.request.trace.header {
        headers.insert(headers::TRACEPARENT, traceparent.clone());
        if let Some(state) = caller_request.headers.get(headers::TRACESTATE) {
            headers.insert(headers::TRACESTATE, state.clone());
        }
    }
}

fn pass_on(to: &mut HeaderMap, from: &HeaderMap, dialect: Dialect) {
    for (of, name) in &PASSED_ON {
        if *of == dialect
            && let Some(value) = from.get(name)
        {
            to.insert(name, value.clone());
        }
    }
    if dialect == Dialect::Anthropic && !to.contains_key(headers::ANTHROPIC_VERSION) {
        to.insert(headers::ANTHROPIC_VERSION, ANTHROPIC_VERSION_OURS);
    }
}
