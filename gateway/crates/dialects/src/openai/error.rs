//! Errors as OpenAI clients read them, with our request id and, for agents, a repair hint.

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
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<&'a str>,
}

/// OpenAI's word for the class of an error.
fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

#[must_use]
pub fn error_body(error: &ApiError<'_>, request_id: &str) -> Bytes {
    let body = Body { message: error.message, kind: kind(error.status), param: error.param, code: error.code, request_id, repair: error.repair };
    serde_json::to_vec(&Envelope { error: body }).unwrap_or_default().into()
}

/// The last frame of a stream that cannot go on. No `[DONE]` follows it. The empty line before ends a frame that broke off half way.
#[must_use]
pub fn error_frame(error: &ApiError<'_>, request_id: &str) -> Bytes {
    [b"\n\ndata: ", &error_body(error, request_id)[..], b"\n\n"].concat().into()
}
