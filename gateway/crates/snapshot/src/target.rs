//! Where an endpoint's connections go, and the credential that is sent to it.

use http::HeaderValue;
use http::uri::{Scheme, Uri};
use tenon_contract as wire;

/// Where connections go. Endpoints with the same origin share a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// It may be in a private network. Part of the origin, so that a connection opened under one rule never serves
    /// under another.
    pub private: bool,
}

#[derive(Debug)]
pub struct Target {
    pub origin: Origin,
    /// Number of the origin, stable for the process: the index into each thread's pools.
    pub pool: usize,
    pub host_header: HeaderValue,
    /// `/v1`, or whatever comes before `/chat/completions`, without a slash at the end.
    pub path_prefix: String,
    /// `Bearer …`, or for Anthropic's protocol the value of `x-api-key`. Marked sensitive, so that nothing prints it.
    pub authorization: Option<HeaderValue>,
    /// It speaks Anthropic's dialect.
    pub is_anthropic: bool,
    /// OpenAI's own models need `max_completion_tokens`; engines know `max_tokens` best.
    pub is_openai_itself: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum UnusableTarget {
    #[error("its URL must be http:// or https:// with a host, and without credentials, query or fragment")]
    Url,
    #[error("its credential cannot be opened with this gateway's sealing key")]
    Credential,
    #[error("this gateway does not support its protocol")]
    Protocol,
}

pub(crate) fn credential(protocol: wire::Protocol, credential: &[u8]) -> Result<HeaderValue, UnusableTarget> {
    let scheme: &[u8] = if protocol == wire::Protocol::Anthropic { b"" } else { b"Bearer " };
    let mut value = HeaderValue::from_bytes(&[scheme, credential].concat()).map_err(|_| UnusableTarget::Credential)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Refuses other schemes, user information and queries instead of ignoring them.
pub(crate) fn parse_url(text: &str, private: bool) -> Option<(Origin, HeaderValue, String)> {
    let uri: Uri = text.parse().ok()?;
    let tls = match uri.scheme()? {
        scheme if *scheme == Scheme::HTTP => false,
        scheme if *scheme == Scheme::HTTPS => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    if authority.as_str().contains('@') || authority.host().is_empty() || uri.query().is_some() || text.contains('#') {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host_header = HeaderValue::from_str(authority.as_str()).ok()?;
    Some((Origin { tls, host, port, private }, host_header, uri.path().trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::parse_url;

    #[test]
    fn only_plain_http_addresses_pass() {
        for bad in ["ftp://h/v1", "file:///etc/passwd", "http://user:secret@h/v1", "http://h/v1?x=1", "http://h/v1#x", "h:80", "/v1", ""] {
            assert!(parse_url(bad, true).is_none(), "{bad}");
        }
        let (origin, host, prefix) = parse_url("http://[::1]:8000/v1/", true).unwrap();
        assert_eq!((origin.host.as_str(), origin.port, origin.tls), ("::1", 8000, false));
        assert_eq!((host.to_str().unwrap(), prefix.as_str()), ("[::1]:8000", "/v1"));
        assert_eq!(parse_url("https://api.example.com", false).unwrap().0.port, 443);
    }
}
