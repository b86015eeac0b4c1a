//! The span of one call. The type has room only for ids, numbers, our own fixed words and a model's configured name.

use crate::names;
use crate::otlp::{self, KeyValue, SpanKind, StatusCode};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Span {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// The caller's span. `None` = the trace begins here.
    pub parent_id: Option<[u8; 8]>,
    pub started_unix_us: i64,
    pub took: Duration,
    pub operation: &'static str,
    /// As configured, never as requested: `None` when there is no such model.
    pub model: Option<Box<str>>,
    pub request_id: Box<str>,
    pub outcome: &'static str,
    /// The status that the caller got. Zero = none, because it had left.
    pub http_status: u16,
    /// Input and output, when known.
    pub tokens: Option<(u64, u64)>,
    /// Our error code.
    pub error: Option<&'static str>,
}

impl Span {
    pub(crate) fn message(&self) -> otlp::Span {
        let start = u64::try_from(self.started_unix_us).unwrap_or(0).saturating_mul(1000);
        let status = self.error.map(|_| otlp::Status { code: StatusCode::Error as i32 });
        otlp::Span {
            trace_id: self.trace_id.to_vec(),
            span_id: self.span_id.to_vec(),
            parent_span_id: self.parent_id.map(|id| id.to_vec()).unwrap_or_default(),
            name: self.model.as_ref().map_or_else(|| self.operation.to_owned(), |model| format!("{} {model}", self.operation)),
            // One span covers both sides of the gateway. As a server span it counts in the request rates that collectors compute.
            kind: SpanKind::Server as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: start.saturating_add(u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX)),
            attributes: self.attributes(),
            status,
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::text(names::OPERATION, self.operation),
            KeyValue::text(names::PROVIDER, names::OPENAI),
            KeyValue::text(names::REQUEST_ID, &self.request_id),
            KeyValue::text(names::OUTCOME, self.outcome),
        ];
        attributes.extend(self.model.as_ref().map(|model| KeyValue::text(names::REQUEST_MODEL, model)));
        attributes.extend((self.http_status != 0).then(|| KeyValue::number(names::STATUS_CODE, u64::from(self.http_status))));
        attributes.extend(self.error.map(|code| KeyValue::text(names::ERROR_TYPE, code)));
        if let Some((input, output)) = self.tokens {
            attributes.extend([KeyValue::number(names::INPUT_TOKENS, input), KeyValue::number(names::OUTPUT_TOKENS, output)]);
        }
        attributes
    }
}

/// The message for a batch of spans.
pub(crate) fn request(spans: &[Span]) -> otlp::ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![KeyValue::text(names::SERVICE_NAME, names::SERVICE), KeyValue::text(names::SERVICE_VERSION, version)];
    let scope = otlp::InstrumentationScope { name: names::SERVICE.to_owned(), version: version.to_owned() };
    let scope_spans = vec![otlp::ScopeSpans { scope: Some(scope), spans: spans.iter().map(Span::message).collect() }];
    otlp::ExportTraceServiceRequest { resource_spans: vec![otlp::ResourceSpans { resource: Some(otlp::Resource { attributes }), scope_spans }] }
}
