//! Names of HTTP headers that several modules read or write.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tenon_dialects::Dialect;
use tenon_usage::RecordId;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where Anthropic's SDKs look for it.
pub const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// The request id as a header's value.
pub fn request_id(id: RecordId) -> HeaderValue {
    HeaderValue::from_str(&id.text()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The dialect of a caller where the route alone does not say it, as on `GET /v1/models`.
pub fn dialect_of(headers: &HeaderMap) -> Dialect {
    if headers.contains_key(ANTHROPIC_VERSION) { Dialect::Anthropic } else { Dialect::OpenAi }
}
