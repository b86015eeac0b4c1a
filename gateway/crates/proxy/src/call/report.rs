//! What is reported of a call that is over: an entry of the access log where something was unusual, its span, its trace for `explain`.

use crate::call::request_info::RequestInfo;
use crate::observe::access_log::Entry;
use crate::observe::call_trace::{CallTrace, CompletedCall};
use crate::observe::metrics::OUTCOMES;
use crate::observe::trace_context::OwnSpan;
use std::sync::Arc;
use std::time::Duration;
use tenon_dialects::Usage;
use tenon_policy::ChosenRoute;
use tenon_problem::ProblemCode;
use tenon_snapshot::Key;
use tenon_telemetry::Span;
use tenon_usage::{Outcome, UsageSource};

/// Something that went wrong, whether or not the caller learns of it.
pub struct Failure {
    pub code: ProblemCode,
    pub endpoint_id: Option<Box<str>>,
    pub detail: Option<String>,
}

/// How a call ended.
#[derive(Clone, Copy)]
pub struct Settlement {
    pub outcome: Outcome,
    pub usage: Option<(Usage, UsageSource)>,
    pub took: Duration,
}

pub struct Report<'a> {
    pub request: &'a RequestInfo,
    pub chosen: Option<&'a ChosenRoute>,
    pub attempts: u8,
    /// Zero = the caller got no answer.
    pub http_status: u16,
    pub failure: Option<&'a Failure>,
    /// `None` = the call was refused before an endpoint was called.
    pub settlement: Option<Settlement>,
}

impl<'a> Report<'a> {
    fn outcome(&self) -> &'static str {
        self.settlement.map_or("refused", |settlement| OUTCOMES[settlement.outcome as usize])
    }

    fn took(&self) -> Duration {
        self.settlement.map_or_else(|| self.request.started.elapsed(), |settlement| settlement.took)
    }

    fn code(&self) -> Option<ProblemCode> {
        self.failure.map(|failure| failure.code)
    }

    /// What was wrong with the answer. A caller who left is no error.
    fn error(&self) -> Option<&'static str> {
        match self.settlement.map(|settlement| settlement.outcome) {
            Some(Outcome::Completed | Outcome::ClientGone) => None,
            _ => Some(self.code().map_or(self.outcome(), ProblemCode::text)),
        }
    }

    /// `None` = the call went as calls do.
    pub fn entry(&self) -> Option<Entry<'a>> {
        if self.attempts <= 1 && self.settlement.is_some_and(|settlement| settlement.outcome == Outcome::Completed) {
            return None;
        }
        Some(Entry {
            id: self.request.id,
            trace: &self.request.trace,
            outcome: self.outcome(),
            status: self.http_status,
            code: self.code(),
            endpoint_id: self.failure.map_or_else(|| Some(&*self.chosen?.endpoint().id), |failure| failure.endpoint_id.as_deref()),
            attempts: self.attempts,
            took: self.took(),
            detail: self.failure.and_then(|failure| failure.detail.as_deref()),
            is_failure: self.error().is_some() && !(400..500).contains(&self.http_status),
        })
    }

    pub fn span(&self, own: &OwnSpan) -> Span {
        Span {
            trace_id: self.request.trace.id,
            span_id: own.id,
            parent_id: own.parent_id,
            started_unix_us: self.request.started_unix_us,
            took: self.took(),
            operation: self.request.span_name,
            model: self.chosen.map(|chosen| chosen.model.name.clone()),
            request_id: (*self.request.id.text()).into(),
            outcome: self.outcome(),
            http_status: self.http_status,
            tokens: self.settlement.and_then(|settlement| settlement.usage).map(|(usage, _)| (usage.input, usage.output)),
            error: self.error(),
        }
    }

    /// With the trace taken out of the call.
    pub fn completed(&self, key: Arc<Key>, first_token: Option<Duration>, call_trace: &mut CallTrace) -> CompletedCall {
        CompletedCall {
            id: self.request.id,
            key,
            model: self.chosen.map(|chosen| chosen.model.clone()).or_else(|| call_trace.model.take()),
            operation: self.request.operation,
            streamed: self.request.streamed,
            started_unix_us: self.request.started_unix_us,
            took: self.took(),
            first_token,
            outcome: self.outcome(),
            http_status: self.http_status,
            code: self.code(),
            usage: self.settlement.and_then(|settlement| settlement.usage),
            call_trace: std::mem::take(call_trace),
        }
    }
}
