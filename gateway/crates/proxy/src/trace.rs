//! W3C trace context: a caller's `traceparent` is passed on and its trace id goes into the log and the usage record.

use http::{HeaderMap, HeaderValue};

use crate::answer::header_of::TRACEPARENT;

#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Zero = none.
    pub id: [u8; 16],
    pub header: Option<HeaderValue>,
}

impl Trace {
    /// A header that is not version 00 in exact form is as if it were not there (W3C Trace Context §3.2).
    pub fn of(headers: &HeaderMap) -> Self {
        let header = headers.get(TRACEPARENT);
        header.and_then(|value| Some(Self { id: parse(value.as_bytes())?, header: Some(value.clone()) })).unwrap_or_default()
    }
}

fn parse(text: &[u8]) -> Option<[u8; 16]> {
    let lower_hex = |part: &[u8]| part.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let formed = text.len() == 55 && text.starts_with(b"00-") && text[35] == b'-' && text[52] == b'-';
    if !formed || !lower_hex(&text[3..35]) || !lower_hex(&text[36..52]) || !lower_hex(&text[53..]) {
        return None;
    }
    let digits = std::str::from_utf8(&text[3..35]).ok()?;
    let id = u128::from_str_radix(digits, 16).ok()?;
    (id != 0 && text[36..52] != *b"0000000000000000").then(|| id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_well_formed_parents_count() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(parse(good).unwrap()[0], 0x4b);
        assert!(parse(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01").is_none());
        assert!(parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01").is_none());
        assert!(parse(b"00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").is_none());
        assert!(parse(&good[..54]).is_none());
    }
}
