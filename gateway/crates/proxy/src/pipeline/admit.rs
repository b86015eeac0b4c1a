//! Admission of a call: limits and budgets are asked for what its body needs, and a call without a lease waits a moment for one.

use crate::base::problem::Problem;
use crate::reactor::clock::Clock;
use crate::reactor::shared::SharedState;
use http::{Response, StatusCode};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenon_dialects::{Head, RequestFormat};
use tenon_limits::{AdmissionRequest, ApplicableRules, Budget, Denied, Output};
use tenon_policy::{Admitted, Limiting, NotAdmitted, admit, recheck};
use tenon_snapshot::{Key, unix_ms};
use tenon_usage::Operation;

/// How long a call waits for a lease. The control plane answers in milliseconds, or not at all.
const LEASE_WAIT_MAX: Duration = Duration::from_secs(1);
/// OpenAI's own default of `completions`, which engines share.
const COMPLETION_TOKENS: u64 = 16;

/// What limits a request, for the headers of its answer. Set as soon as it is known.
#[derive(Default)]
pub struct LimitHeaders(RefCell<ApplicableRules>);

impl LimitHeaders {
    pub fn set(&self, applies: ApplicableRules) {
        self.0.replace(applies);
    }

    /// Writes nothing where no limit applies. A caller who reached a limit gets every form of the headers.
    pub fn write<B>(&self, shared: &SharedState, clock: &Clock, response: &mut Response<B>) {
        let applies = self.0.borrow();
        if applies.key.is_some() || applies.model.is_some() {
            let as_openai_too = shared.limits.openai_limit_headers || response.status() == StatusCode::TOO_MANY_REQUESTS;
            applies.add_headers(response.headers_mut(), clock.limits_us(), as_openai_too);
        }
    }
}

/// A call as its protocol has read it.
pub struct RequestedCall<'a> {
    pub model: &'a str,
    pub operation: Operation,
    pub body: &'a [u8],
    /// `None` = a session, whose use is not known before it ends.
    pub read: Option<(RequestFormat, &'a Head<'a>)>,
}

impl RequestedCall<'_> {
    /// `exactly`: a hard budget applies, so the body is read once more for bounds that it proves.
    fn admission_request(&self, clock: &Clock, exactly: bool, has_waited: bool) -> AdmissionRequest {
        let mut request = AdmissionRequest {
            // Leases end at an instant, so the clock is read for them; for windows the sweep's time is good enough.
            now_us: if exactly { clock.limits_us_exact() } else { clock.limits_us() },
            unix_ms: if exactly { unix_ms() } else { 0 },
            body_bytes: self.body.len() as u64,
            output: Output::Unbounded,
            choices: 1,
            images: 0,
            is_text: false,
            is_endless: self.read.is_none(),
            has_waited,
        };
        let Some((format, head)) = self.read else {
            return request;
        };
        request.choices = head.choices.max(1);
        request.images = if format.has_images() { request.choices } else { 0 };
        request.output = output_of(format, head);
        if exactly {
            let bound = format.bound(head, self.body);
            (request.is_text, request.body_bytes, request.choices) = (bound.is_text, bound.input_bytes, bound.completions.max(1));
        }
        request
    }
}

fn output_of(format: RequestFormat, head: &Head<'_>) -> Output {
    match (format, head.max_tokens) {
        (RequestFormat::Embedding | RequestFormat::Rerank | RequestFormat::CountTokens, _) => Output::None,
        (RequestFormat::Chat | RequestFormat::Completion | RequestFormat::Response | RequestFormat::Message, Some(cap)) => Output::Capped(cap),
        (RequestFormat::Completion, None) => Output::Default(COMPLETION_TOKENS),
        (RequestFormat::Chat | RequestFormat::Response | RequestFormat::Message, None) => Output::Open,
        (RequestFormat::Speech | RequestFormat::Image | RequestFormat::Transcription | RequestFormat::ImageEdit, _) => Output::Unbounded,
    }
}

/// Admits the call by the current snapshot: reading the body may have taken a while.
///
/// # Errors
/// Why it is refused.
pub async fn admit_call(
    shared: &SharedState,
    clock: &Clock,
    key: &Arc<Key>,
    requested: &RequestedCall<'_>,
    limit_headers: &LimitHeaders,
) -> Result<Admitted, Problem> {
    match attempt(shared, clock, key, requested, false) {
        Ok(admitted) => {
            limit_headers.set(admitted.applies());
            Ok(admitted)
        }
        Err(NotAdmitted::Refused(refusal)) => Err(refusal.into()),
        Err(NotAdmitted::Limited(applies, denied)) => {
            limit_headers.set(applies);
            // Boxed: few calls wait, and every call would carry it.
            Box::pin(wait_for_lease(shared, clock, key, requested, denied)).await
        }
    }
}

fn attempt(shared: &SharedState, clock: &Clock, key: &Arc<Key>, requested: &RequestedCall<'_>, has_waited: bool) -> Result<Admitted, NotAdmitted> {
    let snapshot = shared.snapshots.load();
    recheck(&snapshot, key, &clock.moment())?;
    let request = |exactly| requested.admission_request(clock, exactly, has_waited);
    admit(&snapshot, key, requested.model, requested.operation, &Limiting { registry: &shared.limit_registry, request: &request })
}

async fn wait_for_lease(
    shared: &SharedState,
    clock: &Clock,
    key: &Arc<Key>,
    requested: &RequestedCall<'_>,
    mut denied: Denied,
) -> Result<Admitted, Problem> {
    let deadline = Instant::now() + LEASE_WAIT_MAX;
    while let Denied::Short { budget, nano, least } = &denied {
        let seen = budget.changes.version();
        // A lease may have come between the refusal and the reading of the version.
        let mut next = attempt(shared, clock, key, requested, false);
        if let Err(NotAdmitted::Limited(_, Denied::Short { .. })) = next {
            request_lease(shared, clock, budget, *nano, *least)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = tokio::time::timeout(left, budget.changes.changed_after(seen)).await;
            next = attempt(shared, clock, key, requested, true);
            if waited.is_err() && matches!(next, Err(NotAdmitted::Limited(_, Denied::Short { .. }))) {
                return Err(Problem::LEASE_UNAVAILABLE);
            }
        }
        denied = match next {
            Ok(admitted) => return Ok(admitted),
            Err(NotAdmitted::Refused(refusal)) => return Err(refusal.into()),
            Err(NotAdmitted::Limited(_, denied)) => denied,
        };
    }
    Err(Problem::from(&denied))
}

/// Requests what is missing beside what is held: a call may use several leases.
fn request_lease(shared: &SharedState, clock: &Clock, budget: &Budget, nano: i64, least: i64) -> Result<(), Problem> {
    let now_us = clock.limits_us_exact();
    let left = budget.left(now_us);
    let missing = nano.saturating_sub(left);
    match budget.denied_remaining(now_us) {
        Some(remaining) if remaining.saturating_add(left) < least => return Err(Problem::BUDGET_EXHAUSTED),
        _ if shared.limit_registry.is_lost.load(std::sync::atomic::Ordering::Acquire) => return Err(Problem::LEASE_UNAVAILABLE),
        Some(remaining) => budget.request_lease(missing.min(remaining)),
        None => budget.request_lease(missing),
    }
    shared.limit_registry.lease_needed.notify();
    Ok(())
}
