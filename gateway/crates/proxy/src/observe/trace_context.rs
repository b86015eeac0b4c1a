//! W3C trace context: a caller's trace goes on through the gateway. In a sampled one, our span stands between the caller's and the endpoint's.

use crate::base::headers::TRACEPARENT;
use http::{HeaderMap, HeaderValue};
use tenon_telemetry::Spans;
use tenon_usage::{RecordId, random};

const SAMPLED: u8 = 1;

#[derive(Clone, Debug, Default)]
pub struct TraceContext {
    /// Zero = none.
    pub id: [u8; 16],
    /// What the endpoint gets as `traceparent`.
    pub header: Option<HeaderValue>,
    /// The caller's span, and whether it is recorded.
    parent: Option<([u8; 8], u8)>,
    pub span: Option<OwnSpan>,
}

/// Our span of a sampled call.
#[derive(Clone, Copy, Debug)]
pub struct OwnSpan {
    pub id: [u8; 8],
    pub parent_id: Option<[u8; 8]>,
}

impl TraceContext {
    /// A header that is not version 00 in exact form is as if it were not there (W3C Trace Context §3.2).
    pub fn of(headers: &HeaderMap) -> Self {
        let Some((header, (id, parent, flags))) = headers.get(TRACEPARENT).and_then(|header| Some((header, parse(header.as_bytes())?))) else {
            return Self::default();
        };
        Self { id, header: Some(header.clone()), parent: Some((parent, flags)), span: None }
    }

    /// Decides once a call whether it is sampled: as the caller did, else by the ratio. An unsampled context stays as it came.
    pub fn sampled(self, spans: &Spans) -> Self {
        match self.parent {
            Some((parent, flags)) if flags & SAMPLED != 0 => Self::with_span(self.id, Some(parent), flags),
            None if spans.samples(random()) => Self::with_span((u128::from(random()) << 64 | u128::from(random())).to_be_bytes(), None, SAMPLED),
            _ => self,
        }
    }

    fn with_span(id: [u8; 16], parent_id: Option<[u8; 8]>, flags: u8) -> Self {
        let own = OwnSpan { id: random().max(1).to_be_bytes(), parent_id };
        let header = format!("00-{}-{:016x}-{flags:02x}", id_text(id), u64::from_be_bytes(own.id));
        Self { id, header: HeaderValue::from_str(&header).ok(), parent: None, span: Some(own) }
    }

    /// For the log.
    pub fn text(&self) -> Option<String> {
        (self.id != [0; 16]).then(|| id_text(self.id))
    }
}

fn id_text(id: [u8; 16]) -> String {
    RecordId(id).text().replace('-', "")
}

fn parse(text: &[u8]) -> Option<([u8; 16], [u8; 8], u8)> {
    let lower_hex = |part: &[u8]| part.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let formed = text.len() == 55 && text.starts_with(b"00-") && text[35] == b'-' && text[52] == b'-';
    if !formed || !lower_hex(&text[3..35]) || !lower_hex(&text[36..52]) || !lower_hex(&text[53..]) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let id = u128::from_str_radix(&text[3..35], 16).ok()?;
    let parent = u64::from_str_radix(&text[36..52], 16).ok()?;
    let flags = u8::from_str_radix(&text[53..], 16).ok()?;
    (id != 0 && parent != 0).then(|| (id.to_be_bytes(), parent.to_be_bytes(), flags))
}

#[cfg(test)]
mod tests {
    use super::{TraceContext, id_text, parse};

    #[test]
    fn only_well_formed_parents_count() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (id, parent, flags) = parse(good).unwrap();
        assert_eq!((id[0], parent[1], flags), (0x4b, 0xf0, 1));
        assert!(parse(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01").is_none());
        assert!(parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01").is_none());
        assert!(parse(b"00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").is_none());
        assert!(parse(&good[..54]).is_none());
    }

    #[test]
    fn our_span_is_what_goes_on() {
        let trace = TraceContext::with_span([0x4b; 16], Some([7; 8]), 3);
        let header = trace.header.unwrap();
        let (id, parent, flags) = parse(header.as_bytes()).unwrap();
        assert_eq!((id, parent, flags), ([0x4b; 16], trace.span.unwrap().id, 3));
        assert_eq!(id_text(id), "4b".repeat(16));
    }
}
