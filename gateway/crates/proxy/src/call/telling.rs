//! What is told of a call when it is over: a line where something was amiss, its notes for `explain` and the request log, its span.

use super::Call;
use crate::journal::Line;
use crate::metrics::OUTCOMES;
use crate::trail::Past;
use std::time::Duration;
use tenon_telemetry::Span;
use tenon_usage::Outcome;

impl Call {
    fn outcome(&self) -> &'static str {
        self.end.map_or("refused", |end| OUTCOMES[end.outcome as usize])
    }

    fn took(&self) -> Duration {
        self.end.map_or_else(|| self.subject.started.elapsed(), |end| end.took)
    }

    /// What was amiss with the answer; a caller who left is not.
    fn error(&self) -> Option<&'static str> {
        match self.end.map(|end| end.outcome) {
            Some(Outcome::Completed | Outcome::ClientGone) => None,
            _ => Some(self.trouble.as_ref().map_or(self.outcome(), |trouble| trouble.code)),
        }
    }

    pub(super) fn tell(&self) {
        if self.attempt <= 1 && self.end.is_some_and(|end| end.outcome == Outcome::Completed) {
            return;
        }
        self.worker.tell(&Line {
            id: self.subject.id,
            trace: &self.subject.trace,
            outcome: self.outcome(),
            status: self.http_status,
            code: self.trouble.as_ref().map(|trouble| trouble.code),
            endpoint_id: self.trouble.as_ref().map_or_else(|| Some(&*self.chosen()?.endpoint().id), |trouble| trouble.endpoint_id.as_deref()),
            attempts: self.attempt,
            took: self.took(),
            detail: self.trouble.as_ref().and_then(|trouble| trouble.detail.as_deref()),
            is_failure: self.error().is_some() && !(400..500).contains(&self.http_status),
        });
    }

    pub(super) fn leave_trail(&mut self) {
        let (kept, sampled) = (self.worker.trails.are_kept(), self.sampled.take());
        if !kept && sampled.is_none() {
            return;
        }
        let past = Past {
            id: self.subject.id,
            key: self.live.key.clone(),
            model: self.chosen.as_ref().map(|chosen| chosen.model.clone()).or_else(|| self.trail.model.take()),
            operation: self.subject.door.operation,
            streamed: self.subject.streamed,
            started_unix_us: self.subject.started_unix_us,
            took: self.took(),
            first_token: self.first_token,
            outcome: self.outcome(),
            http_status: self.http_status,
            code: self.trouble.as_ref().map(|trouble| trouble.code),
            usage: self.end.and_then(|end| end.usage),
            trail: std::mem::take(&mut self.trail),
        };
        if let (Some(body), Some(log)) = (sampled, &self.worker.request_log) {
            log.leave(past.clone(), body);
        }
        if kept {
            self.worker.leave_trail(past);
        }
    }

    pub(super) fn leave_span(&mut self) {
        let (Some(own), Some(spans)) = (self.subject.trace.span, &self.worker.spans) else {
            return;
        };
        spans.leave(Span {
            trace_id: self.subject.trace.id,
            span_id: own.id,
            parent_id: own.parent_id,
            started_unix_us: self.subject.started_unix_us,
            took: self.took(),
            operation: self.subject.door.span,
            model: self.chosen().map(|chosen| chosen.model.name.clone()),
            request_id: (*self.subject.id.text()).into(),
            outcome: self.outcome(),
            http_status: self.http_status,
            tokens: self.end.and_then(|end| end.usage).map(|(usage, _)| (usage.input, usage.output)),
            error: self.error(),
        });
    }
}
