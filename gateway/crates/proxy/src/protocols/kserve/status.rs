//! gRPC statuses (grpc.io, "gRPC over HTTP2" and "Status codes"): how the gateway's problems are written, and how endpoints' are read.

use crate::base::headers;
use crate::base::problem::Problem;
use crate::protocols::kserve::message::put_bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;
use tenon_usage::RecordId;

pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// Our stable code, beside gRPC's few.
const CODE: HeaderName = HeaderName::from_static("tenon-code");
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
pub const UNAUTHENTICATED: u8 = 16;
pub const PERMISSION_DENIED: u8 = 7;

/// The gRPC status for a problem's HTTP status.
fn number(status: u16) -> u8 {
    match status {
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => 5,             // NOT_FOUND
        408 | 504 => 4,       // DEADLINE_EXCEEDED
        402 | 413 | 429 => 8, // RESOURCE_EXHAUSTED
        405 | 501 => 12,      // UNIMPLEMENTED
        499 => 1,             // CANCELLED
        400..=498 => 3,       // INVALID_ARGUMENT
        _ => 14,              // UNAVAILABLE
    }
}

/// The trailers that report a problem.
pub fn trailers(problem: &Problem, id: RecordId) -> HeaderMap {
    let (number, sentence) = (number(problem.status), problem.sentence());
    let mut trailers = HeaderMap::with_capacity(6);
    trailers.insert(STATUS, HeaderValue::from(u16::from(number)));
    trailers.insert(MESSAGE, percent(&sentence));
    trailers.insert(CODE, HeaderValue::from_static(problem.code.text()));
    trailers.insert(headers::REQUEST_ID, headers::request_id(id));
    if let Some(after) = problem.retry_after() {
        trailers.insert(DETAILS, details(number, &sentence, after));
    }
    trailers
}

/// An answer without a body.
pub fn trailers_only(problem: &Problem, id: RecordId) -> HeaderMap {
    let mut headers = trailers(problem, id);
    headers.insert(CONTENT_TYPE, GRPC);
    headers
}

fn percent(text: &str) -> HeaderValue {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..=0x1f | 0x7f.. => out += &format!("%{byte:02X}"),
            plain => out.push(char::from(plain)),
        }
    }
    HeaderValue::from_str(&out).unwrap_or(HeaderValue::from_static(""))
}

/// `google.rpc.Status` with one `google.rpc.RetryInfo`.
fn details(number: u8, sentence: &str, after: Duration) -> HeaderValue {
    let (mut duration, mut retry, mut any, mut status) = (Vec::new(), Vec::new(), Vec::new(), vec![0x08, number]);
    duration.push(0x08);
    let mut seconds = after.as_secs().max(1);
    while seconds >= 0x80 {
        duration.push(u8::try_from(seconds & 0x7f).unwrap_or(0) | 0x80);
        seconds >>= 7;
    }
    duration.push(u8::try_from(seconds).unwrap_or(0));
    put_bytes(1, &duration, &mut retry);
    put_bytes(1, b"type.googleapis.com/google.rpc.RetryInfo", &mut any);
    put_bytes(2, &retry, &mut any);
    put_bytes(2, sentence.as_bytes(), &mut status);
    put_bytes(3, &any, &mut status);
    HeaderValue::from_str(&base64(&status)).unwrap_or(HeaderValue::from_static(""))
}

/// RFC 4648 §4 without padding, as gRPC writes binary metadata.
fn base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// `grpc-timeout`: at most eight digits and a unit. What is not one is no timeout.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(TIMEOUT)?.as_bytes().split_last()?;
    let number: u64 = std::str::from_utf8(digits).ok().filter(|text| text.len() <= 8 && text.bytes().all(|c| c.is_ascii_digit()))?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_as_the_protocol_requires() {
        assert_eq!(base64(b"\xfb\xff\xfe"), "+//+");
        assert_eq!((base64(b"a"), base64(b"ab"), base64(b"abc")), ("YQ".into(), "YWI".into(), "YWJj".into()));
        assert_eq!(percent("50% ö\n"), "50%25 %C3%B6%0A");
        let of = |text: &'static str| timeout(&HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_static(text))]));
        assert_eq!(
            (of("250m"), of("2S"), of("1H")),
            (Some(Duration::from_millis(250)), Some(Duration::from_secs(2)), Some(Duration::from_secs(3600)))
        );
        assert_eq!((of("123456789m"), of("m"), of("5"), of("-1S")), (None, None, None, None));
    }
}
