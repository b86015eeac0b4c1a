//! A request as an endpoint gets it: its own path, its own dialect, its own credential.

use crate::answer::header_of;
use crate::call::Call;
use crate::doors::Door;
use crate::outgoing::Outgoing;
use crate::upstream::Prepared;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};
use tenon_dialects::multipart::splice_form;
use tenon_dialects::translate::{Direction, Refused, Route};
use tenon_dialects::{AskUsage, Cap, Dialect, Form, Pieces, splice_capped};
use tenon_policy::Chosen;
use tenon_snapshot::Target;

const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// The version whose shapes the translation knows, for callers who name none.
const ANTHROPIC_VERSION_OURS: HeaderValue = HeaderValue::from_static("2023-06-01");
/// Headers of a dialect that its callers may pass on. Not those that choose an account (`openai-organization`, `openai-project`): the
/// credential is the operator's.
const PASSED_ON: [(Dialect, HeaderName); 3] = [
    (Dialect::Anthropic, ANTHROPIC_VERSION),
    (Dialect::Anthropic, HeaderName::from_static("anthropic-beta")),
    (Dialect::OpenAi, HeaderName::from_static("openai-beta")),
];

/// Why there is no request for a route.
pub enum Unsayable {
    /// The address makes no path.
    Address,
    /// The endpoint's dialect has no words for what the caller asks.
    Refused(Refused),
}

/// The request, and how its answer is to be translated.
pub fn request(call: &Call, chosen: &Chosen, target: &Target, prepared: &Prepared<'_>) -> Result<(Request<Outgoing>, Option<Direction>), Unsayable> {
    let direction = direction(chosen, target, prepared);
    let uri = uri(target, prepared.door, direction).ok_or(Unsayable::Address)?;
    let form = prepared.form;
    let cap = call.cap().map(|tokens| cap(prepared, target, tokens));
    let pieces = match direction {
        Some(direction) => {
            let body = capped(prepared, cap.as_ref());
            Pieces::One(direction.request(&body, &route(chosen, target)).map_err(Unsayable::Refused)?.into())
        }
        None if form.is_multipart() => splice_form(prepared.body, prepared.head.model_at, chosen.upstream_model()),
        None => {
            let ask = ask_usage(call, chosen, form, prepared.ask_usage);
            splice_capped(prepared.body, prepared.head, chosen.upstream_model(), ask, cap.as_ref())
        }
    };
    let mut request = Request::new(Outgoing(pieces));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    headers(request.headers_mut(), call, target, prepared, form);
    if direction.is_none() {
        pass_on(request.headers_mut(), prepared.headers, form.dialect());
    } else if target.is_anthropic {
        request.headers_mut().insert(ANTHROPIC_VERSION, ANTHROPIC_VERSION_OURS);
    }
    Ok((request, direction))
}

/// The bound on the output that a hard budget pays and the caller did not set.
fn cap(prepared: &Prepared<'_>, target: &Target, tokens: u64) -> Cap {
    let cap = prepared.form.cap(prepared.head, tokens);
    // OpenAI's reasoning models know no other name.
    if prepared.form == Form::Chat && target.is_openai_itself { cap.named("max_completion_tokens") } else { cap }
}

/// The caller's body with the cap, in the caller's dialect.
fn capped(prepared: &Prepared<'_>, cap: Option<&Cap>) -> Bytes {
    if cap.is_none() {
        return prepared.body.clone();
    }
    splice_capped(prepared.body, prepared.head, None, AskUsage::No, cap).flatten().collect()
}

/// `None` = bytes pass. Admission let through only what the endpoint serves in one way or the other.
fn direction(chosen: &Chosen, target: &Target, prepared: &Prepared<'_>) -> Option<Direction> {
    if chosen.endpoint().native & 1 << prepared.door.operation as u32 != 0 {
        return None;
    }
    let spoken = if target.is_anthropic { Dialect::Anthropic } else { Dialect::OpenAi };
    Direction::between(prepared.form, spoken).ok().flatten()
}

fn route<'a>(chosen: &'a Chosen, target: &Target) -> Route<'a> {
    Route {
        model: chosen.upstream_model(),
        output_tokens_max: chosen.model.output_tokens_max,
        max_completion_tokens: target.is_openai_itself,
        continuous_usage: chosen.endpoint().continuous_usage,
    }
}

fn ask_usage(call: &Call, chosen: &Chosen, form: Form, ask: bool) -> AskUsage {
    match (call.subject.streamed && form.asks_usage() && chosen.endpoint().continuous_usage, ask) {
        (true, _) => AskUsage::Continuous,
        (false, true) => AskUsage::Total,
        (false, false) => AskUsage::No,
    }
}

/// Anthropic's addresses are commonly written without `/v1`.
fn uri(target: &Target, door: &Door, direction: Option<Direction>) -> Option<Uri> {
    let path = direction.map_or(door.path, Direction::endpoint_path);
    match &*target.path_prefix {
        "/v1" if direction.is_none() => Some(door.uri().clone()),
        "/v1" => Some(Uri::from_static(path)),
        "" if target.is_anthropic => Some(Uri::from_static(path)),
        prefix => format!("{prefix}{}", path.strip_prefix("/v1")?).parse().ok(),
    }
}

/// Headers are written anew, from a list: whatever a caller sends beside (credentials, hop-by-hop, cookies) ends here.
fn headers(headers: &mut HeaderMap, call: &Call, target: &Target, prepared: &Prepared<'_>, form: Form) {
    headers.reserve(8);
    headers.insert(HOST, target.host_header.clone());
    // A form's type names its boundary; it was read and understood.
    let content_type = prepared.headers.get(CONTENT_TYPE).filter(|_| form.is_multipart()).cloned();
    headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/json")));
    headers.insert(USER_AGENT, HeaderValue::from_static("tenon-gateway"));
    headers.insert(header_of::REQUEST_ID, call.subject.id_header.clone());
    if let Some(authorization) = &target.authorization {
        headers.insert(if target.is_anthropic { header_of::API_KEY } else { AUTHORIZATION }, authorization.clone());
    }
    if let Some(accept) = prepared.headers.get(ACCEPT) {
        headers.insert(ACCEPT, accept.clone());
    }
    if let Some(traceparent) = &call.subject.trace.header {
        headers.insert(header_of::TRACEPARENT, traceparent.clone());
        if let Some(state) = prepared.headers.get(header_of::TRACESTATE) {
            headers.insert(header_of::TRACESTATE, state.clone());
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
    if dialect == Dialect::Anthropic && !to.contains_key(ANTHROPIC_VERSION) {
        to.insert(ANTHROPIC_VERSION, ANTHROPIC_VERSION_OURS);
    }
}

/// The caller of `GET /v1/models` tells by this header whose list it reads.
pub fn dialect_of(headers: &HeaderMap) -> Dialect {
    if headers.contains_key(ANTHROPIC_VERSION) { Dialect::Anthropic } else { Dialect::OpenAi }
}
