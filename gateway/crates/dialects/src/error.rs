//! Errors in each dialect's format, with our stable code, our request id and a repair hint for agents.

use crate::dialect::Dialect;
use bytes::Bytes;
use serde::Serialize;

#[derive(Clone, Copy, Debug)]
pub struct ApiError<'a> {
    pub status: u16,
    pub code: &'a str,
    pub message: &'a str,
    pub param: Option<&'a str>,
    pub repair: Option<&'a str>,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    #[serde(rename = "type")]
    object_type: &'static str,
    error: Body<'a>,
    request_id: &'a str,
}

/// Anthropic's SDK ignores unknown fields, so both dialects get the same; only OpenAI's body holds the request id.
#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    error_type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<&'a str>,
}

/// The dialect's error type for a status.
pub(crate) fn error_type(dialect: Dialect, status: u16) -> &'static str {
    match (dialect, status) {
        (_, 401) => "authentication_error",
        (_, 403) => "permission_error",
        (_, 429) => "rate_limit_error",
        (Dialect::Anthropic, 402) => "billing_error",
        (Dialect::Anthropic, 404) => "not_found_error",
        (Dialect::Anthropic, 413) => "request_too_large",
        (Dialect::Anthropic, 503 | 529) => "overloaded_error",
        (Dialect::Anthropic, 504) => "timeout_error",
        (_, 400..=499) => "invalid_request_error",
        _ => "api_error",
    }
}

/// The body of an error answer.
#[must_use]
pub fn error_body(dialect: Dialect, error: &ApiError<'_>, request_id: &str) -> Bytes {
    let inner = |request_id| Body {
        message: error.message,
        error_type: error_type(dialect, error.status),
        param: error.param,
        code: error.code,
        request_id,
        repair: error.repair,
    };
    let text = match dialect {
        Dialect::OpenAi => serde_json::to_vec(&OpenAi { error: inner(Some(request_id)) }),
        Dialect::Anthropic => serde_json::to_vec(&Anthropic { object_type: "error", error: inner(None), request_id }),
    };
    text.unwrap_or_default().into()
}

/// The last frame of a stream that cannot go on. Neither `[DONE]` nor `message_stop` follows it. The leading empty line ends an unfinished
/// frame.
#[must_use]
pub fn error_frame(dialect: Dialect, error: &ApiError<'_>, request_id: &str) -> Bytes {
    let opening: &[u8] = match dialect {
        Dialect::OpenAi => b"\n\ndata: ",
        Dialect::Anthropic => b"\n\nevent: error\ndata: ",
    };
    [opening, &error_body(dialect, error, request_id)[..], b"\n\n"].concat().into()
}
