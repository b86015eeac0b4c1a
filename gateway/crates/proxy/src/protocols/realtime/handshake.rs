//! The handshake of a WebSocket session (RFC 6455 §4): what the caller requests, and what is answered.

use crate::base::headers::API_KEY;
use crate::base::percent::decoded;
use crate::base::problem::Problem;
use http::header::{AUTHORIZATION, CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Method};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// How browsers send a key: they can set no other header. It is a secret: never answered, never logged.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";
/// The one subprotocol that is answered.
const PROTOCOL: &str = "realtime";
const BETA_PROTOCOL: &str = "openai-beta.realtime-v1";
pub const BETA: HeaderName = HeaderName::from_static("openai-beta");
const MODEL_BYTES_MAX: usize = 256;

/// What the caller requests.
#[derive(Debug)]
pub struct Handshake {
    pub accept: HeaderValue,
    /// The chosen subprotocol, for the answer.
    pub protocol: Option<HeaderValue>,
    /// An older form of the events; the endpoint gets the same header.
    pub beta: bool,
    pub model: String,
}

/// # Errors
/// When it is no WebSocket handshake, or its query does not name exactly one model.
pub fn read_handshake(method: &Method, headers: &HeaderMap, query: Option<&str>) -> Result<Handshake, Problem> {
    let one = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let upgrades = *method == Method::GET
        && has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket")
        && one(SEC_WEBSOCKET_VERSION) == b"13";
    // Sixteen bytes in base64.
    let key = one(SEC_WEBSOCKET_KEY);
    if !upgrades || key.len() != 24 || !key.ends_with(b"==") {
        return Err(Problem::UPGRADE_REQUIRED);
    }
    let model = model_of(query.unwrap_or_default())?;
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| Problem::UPGRADE_REQUIRED)?;
    let offers = |name: &str| protocols(headers).any(|protocol| protocol == name);
    let protocol = offers(PROTOCOL).then_some(HeaderValue::from_static(PROTOCOL));
    let beta = offers(BETA_PROTOCOL) || one(BETA) == b"realtime=v1";
    Ok(Handshake { accept, protocol, beta, model })
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The headers to authenticate by, where they are not the request's: without another credential, the key among the subprotocols is used.
///
/// # Errors
/// When two are sent there.
pub fn with_credential(headers: &HeaderMap) -> Result<Option<HeaderMap>, Problem> {
    if headers.contains_key(AUTHORIZATION) || headers.contains_key(API_KEY) {
        return Ok(None);
    }
    let mut keys = protocols(headers).filter_map(|protocol| protocol.strip_prefix(KEY_PROTOCOL));
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if keys.next().is_some() {
        return Err(Problem::TWO_KEYS);
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| Problem::TWO_KEYS)?;
    value.set_sensitive(true);
    let mut with = headers.clone();
    with.remove(SEC_WEBSOCKET_PROTOCOL);
    with.insert(AUTHORIZATION, value);
    Ok(Some(with))
}

/// The one parameter `model`. Others are refused: an endpoint might follow what the gateway does not read.
fn model_of(query: &str) -> Result<String, Problem> {
    let mut model = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "model" {
            return Err(Problem::UNKNOWN_PARAMETER);
        }
        // A `+` is a space, as forms write it.
        if model.replace(decoded(&value.replace('+', " ")).ok_or(Problem::BAD_MODEL)?).is_some() {
            return Err(Problem::MODEL_TWICE);
        }
    }
    let model = model.ok_or(Problem::MODEL_MISSING)?;
    let plain = !model.is_empty() && model.len() <= MODEL_BYTES_MAX && !model.chars().any(char::is_control);
    if plain { Ok(model) } else { Err(Problem::BAD_MODEL) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::percent::encoded;

    fn headers(more: &[(&'static str, &str)]) -> HeaderMap {
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in usual.iter().chain(more) {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn code(query: &str) -> &'static str {
        read_handshake(&Method::GET, &headers(&[]), Some(query)).err().map_or("none", |problem| problem.code.text())
    }

    #[test]
    fn a_handshake_is_answered_as_the_standard_says() {
        let opened =
            read_handshake(&Method::GET, &headers(&[("sec-websocket-protocol", "realtime, openai-beta.realtime-v1")]), Some("model=gpt%2Drt"))
                .unwrap();
        assert_eq!((opened.accept.to_str().unwrap(), &*opened.model, opened.beta), ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "gpt-rt", true));
        assert_eq!(opened.protocol.unwrap(), "realtime");
        for missing in ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key"] {
            let mut less = headers(&[]);
            less.remove(missing);
            assert_eq!(read_handshake(&Method::GET, &less, Some("model=m")).unwrap_err().code.text(), "upgrade_required", "{missing}");
        }
    }

    #[test]
    fn one_model_and_nothing_else() {
        let twice = ["model=a&model=b", "model=a&mod%65l=b", "model=a&MODEL=b", "model=a&x=y", "", "model=", "model=%zz", "model=a%00", "model=%ff"];
        let codes: Vec<_> = twice.iter().map(|query| code(query)).collect();
        let other = "unknown_parameter";
        assert_eq!(
            codes,
            ["duplicate_key", other, other, other, "missing_parameter", "invalid_type", "invalid_type", "invalid_type", "invalid_type"]
        );
        assert_eq!(decoded("a+b%20c").as_deref(), Some("a+b c"));
        assert_eq!(model_of("model=a+b%20c%2Bd").unwrap(), "a b c+d");
        assert_eq!(encoded("a/b c&model=x"), "a%2Fb%20c%26model%3Dx");
    }

    #[test]
    fn a_browsers_key_is_taken_from_the_subprotocols_and_goes_no_further() {
        let with = headers(&[("sec-websocket-protocol", "realtime, openai-insecure-api-key.tnn_x")]);
        let taken = with_credential(&with).unwrap().unwrap();
        assert_eq!(taken.get(AUTHORIZATION).unwrap(), "Bearer tnn_x");
        assert!(taken.get(AUTHORIZATION).unwrap().is_sensitive() && !taken.contains_key(SEC_WEBSOCKET_PROTOCOL));
        let two = headers(&[("sec-websocket-protocol", "openai-insecure-api-key.a"), ("sec-websocket-protocol", "openai-insecure-api-key.b")]);
        assert!(with_credential(&two).is_err());
        assert!(
            with_credential(&headers(&[("authorization", "Bearer a"), ("sec-websocket-protocol", "openai-insecure-api-key.b")])).unwrap().is_none()
        );
    }
}
