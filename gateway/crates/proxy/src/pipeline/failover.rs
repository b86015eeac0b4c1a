//! Which endpoint is called, and which next: the queue before the first attempt, and the attempts after a failed one.
//!
//! Another route is tried only before anything of an answer was passed on, and only as often as the model and its retry allowance permit. Where
//! the endpoint may have worked on the call already, it is tried only if the model's operator set `retries_max`.

use crate::base::problem::Problem;
use crate::call::guard::Call;
use crate::observe::metrics::bump;
use crate::observe::retry_reason::RetryReason;
use crate::pipeline::attempt::{AttemptError, ResponseHead, UpstreamResponse, attempt};
use crate::pipeline::upstream_request::CallerRequest;
use crate::reactor::in_flight::Abort;
use crate::reactor::state::Reactor;
use std::future::poll_fn;
use std::time::Duration;
use tenon_balance::{AttemptOutcome, QueueRequest, QueueResult, RouteQuery, Strategy, TokenCharge, bits, hash_prompt, hash_text};
use tenon_contract::Priority;
use tenon_policy::{Admitted, ChosenRoute, Refusal, RouteChoice, WaitingCall};
use tenon_problem::ProblemCode;
use tenon_snapshot::Model;
use tenon_usage::{Outcome, random};

/// Attempts after the first where the model does not say.
const RETRIES_DEFAULT: u32 = 2;
/// Estimated output of a call that does not limit it.
const OUTPUT_TOKENS: u64 = 512;

/// The attempts of one call.
struct Attempts<'a> {
    reactor: &'a Reactor,
    admitted: Admitted,
    route_query: RouteQuery,
    count: u32,
}

/// Calls the routes of `admitted` until one answers.
///
/// # Errors
/// What the caller gets. The call is settled then, if it was opened.
pub fn call_upstream(
    reactor: &Reactor,
    admitted: Admitted,
    call: &mut Call,
    caller_request: &CallerRequest<'_>,
) -> impl Future<Output = Result<UpstreamResponse, Problem>> {
    call.route_query = route_query(admitted.model(), caller_request);
    try_routes(reactor, admitted, call, async move |call| attempt(&reactor.upstreams, &reactor.clock, &reactor.observers, call, caller_request).await)
}

/// Calls the routes of `admitted`, in whatever protocol `attempt` speaks: the only way to an endpoint. Set `call.route_query` before.
///
/// # Errors
/// As [`call_upstream`].
pub async fn try_routes<T: ResponseHead>(
    reactor: &Reactor,
    mut admitted: Admitted,
    call: &mut Call,
    attempt: impl AsyncFn(&Call) -> Result<T, AttemptError>,
) -> Result<T, Problem> {
    call.hold(admitted.take_reservation());
    if admitted.open().count_ones() > 1 {
        admitted.model().group.retry_allowance.earn();
    }
    let mut attempts = Attempts { reactor, admitted, route_query: call.route_query, count: 0 };
    let mut chosen = match attempts.first(call).await {
        Ok(chosen) => chosen,
        Err(problem) => {
            call.call_trace.model = Some(attempts.admitted.model().clone());
            call.refuse(&problem);
            return Err(problem);
        }
    };
    loop {
        if call.open(chosen).is_err() {
            call.fail(&Problem::UNMETERED, Outcome::UpstreamError);
            return Err(Problem::UNMETERED);
        }
        attempts.count += 1;
        chosen = match attempt(call).await {
            Ok(answer) => match attempts.after_answer(call, &answer) {
                Some(next) => next,
                None => return Ok(answer),
            },
            Err(failed) => attempts.after_failure(call, failed).await?,
        };
    }
}

impl Attempts<'_> {
    fn route_query(&self) -> RouteQuery {
        RouteQuery { now_ms: self.reactor.clock.balance_ms(), random: random(), ..self.route_query }
    }

    /// One of the routes not tried yet. The state of all of them is noted where the call's trace is kept.
    fn choose(&mut self, call: &mut Call) -> RouteChoice {
        let query = self.route_query();
        let model = self.admitted.model();
        if model.routes.len() > 1 && call.is_kept() {
            call.call_trace.note_routes(&model.group, self.admitted.open(), &query);
        }
        self.admitted.choose(&query)
    }

    /// The first route. When none has room, after a wait in the queue.
    async fn first(&mut self, call: &mut Call) -> Result<ChosenRoute, Problem> {
        match self.choose(call) {
            RouteChoice::Taken(chosen) => Ok(chosen),
            RouteChoice::Exhausted => Err(Refusal::NoUsableEndpoint.into()),
            // Boxed: few calls wait, and every call would carry the room for it.
            RouteChoice::Full(routes) => Box::pin(self.wait(call, routes)).await,
        }
    }

    async fn wait(&mut self, call: &mut Call, mut routes: u64) -> Result<ChosenRoute, Problem> {
        let reactor = self.reactor;
        let since = std::time::Instant::now();
        let own = self.admitted.model().queue_timeout;
        // By the exact time: the sweep's is up to a tick old, and a short wait would be too short.
        call.in_flight.wait_in_queue(if own.is_zero() { reactor.shared.limits.queue_wait } else { own }, since);
        let chosen = loop {
            let Some(mut waiting) = self.admitted.wait(routes, self.who()) else {
                break Err(Problem::QUEUE_FULL.after(self.retry_after(routes)));
            };
            match wait_for_turn(call, &mut waiting).await {
                Ok(Some(grant)) => {
                    if let Some(chosen) = self.admitted.take_granted(waiting, grant, reactor.clock.balance_ms()) {
                        break Ok(chosen);
                    }
                }
                Ok(None) => break Err(Problem::QUEUE_FULL.after(self.retry_after(routes))),
                Err(abort) if abort.timeout => break Err(abort.problem.after(self.retry_after(routes))),
                Err(abort) => break Err(abort.problem),
            }
            // The granted route became unhealthy in the meantime.
            match self.choose(call) {
                RouteChoice::Taken(chosen) => break Ok(chosen),
                RouteChoice::Full(others) => routes = others,
                RouteChoice::Exhausted => break Err(Refusal::NoUsableEndpoint.into()),
            }
        };
        call.call_trace.queued = since.elapsed();
        reactor.observers.metrics().queue_wait.observe(call.call_trace.queued);
        chosen
    }

    fn who(&self) -> QueueRequest {
        let record = &self.admitted.key().record;
        let band = match record.priority() {
            Priority::High => 0,
            Priority::Unspecified | Priority::Normal => 1,
            Priority::Low => 2,
        };
        QueueRequest { band, flow: hash_text(record.tenant_id.as_bytes()), tokens: self.route_query.input_tokens + self.route_query.output_tokens }
    }

    fn retry_after(&self, routes: u64) -> Duration {
        let members = self.admitted.model().group.members();
        bits(routes).map(|index| members[index].state.capacity.retry_after()).min().unwrap_or(Duration::from_secs(1))
    }

    /// An answer has begun. `Some` = another route is tried instead of passing it on.
    fn after_answer(&mut self, call: &mut Call, head: &impl ResponseHead) -> Option<ChosenRoute> {
        let status = head.status();
        call.record_outcome(if status < 400 { AttemptOutcome::Answered } else { AttemptOutcome::of_status(status, head.retry_after_seconds()) });
        call.call_trace.note_connection(head.is_on_kept_connection());
        call.call_trace.note_answer(status, call.request.started.elapsed());
        let reason = RetryReason::of_status(status)?;
        // An answer that is here is not given up for a wait in a queue.
        let RouteChoice::Taken(chosen) = self.next(call, reason) else {
            return None;
        };
        self.count(reason);
        call.attempt_failed(ProblemCode::UpstreamStatus, Some(format!("the endpoint answered {status}")));
        Some(chosen)
    }

    /// No answer came. The next route, after a wait where it is full, or the error for the caller.
    async fn after_failure(&mut self, call: &mut Call, failed: AttemptError) -> Result<ChosenRoute, Problem> {
        let failures = &self.reactor.observers.metrics().failures;
        let (problem, outcome, reason) = match failed {
            AttemptError::Unsent(problem, detail) => {
                bump(&failures[0], 1);
                call.record_outcome(AttemptOutcome::Unreachable);
                call.attempt_failed(problem.code, detail);
                (problem, Outcome::UpstreamError, RetryReason::Connect)
            }
            AttemptError::Untranslatable(problem) => {
                call.record_outcome(AttemptOutcome::Nothing);
                call.attempt_failed(problem.code, None);
                (problem, Outcome::UpstreamError, RetryReason::Untranslatable)
            }
            AttemptError::Unanswered(problem, outcome) => {
                let reason = if outcome == Outcome::Timeout { RetryReason::Timeout } else { RetryReason::Reset };
                bump(&failures[if reason == RetryReason::Timeout { 3 } else { 2 }], 1);
                call.record_outcome(AttemptOutcome::Failed);
                call.attempt_failed(problem.code, None);
                (problem, outcome, reason)
            }
            AttemptError::Final(problem, outcome) => {
                bump(&failures[if outcome == Outcome::Timeout { 3 } else { 2 }], 1);
                call.fail(&problem, outcome);
                return Err(problem);
            }
        };
        // A timeout at this endpoint does not end the next attempt.
        call.in_flight.clear_timeout();
        let chosen = match self.next(call, reason) {
            RouteChoice::Taken(chosen) => Some(chosen),
            RouteChoice::Full(routes) => Box::pin(self.wait(call, routes)).await.ok(),
            RouteChoice::Exhausted => None,
        };
        match chosen {
            Some(chosen) => {
                self.count(reason);
                Ok(chosen)
            }
            None => {
                call.fail(&problem, outcome);
                Err(problem)
            }
        }
    }

    /// Another route, if the retry allowance permits another attempt.
    fn next(&mut self, call: &mut Call, reason: RetryReason) -> RouteChoice {
        let model = self.admitted.model();
        // Nothing was sent, so going on to the next route is free.
        if reason == RetryReason::Untranslatable {
            return self.choose(call);
        }
        if self.count > retries_max(model) || self.admitted.open() == 0 || (reason.is_doubtful() && model.retries_max == 0) {
            return RouteChoice::Exhausted;
        }
        let choice = self.choose(call);
        let is_permitted =
            !matches!(choice, RouteChoice::Exhausted) && self.admitted.model().group.retry_allowance.spend(self.reactor.clock.balance_ms());
        if is_permitted { choice } else { RouteChoice::Exhausted }
    }

    fn count(&self, reason: RetryReason) {
        bump(&self.reactor.observers.metrics().retries[reason as usize], 1);
    }
}

fn retries_max(model: &Model) -> u32 {
    if model.retries_max == 0 { RETRIES_DEFAULT } else { model.retries_max }
}

/// `None` = the call was evicted from the queue. It leaves the queue when the caller leaves.
async fn wait_for_turn(call: &Call, waiting: &mut WaitingCall) -> Result<Option<(u32, TokenCharge)>, Abort> {
    let grant = call.in_flight.race(poll_fn(|context| waiting.poll(context))).await?;
    Ok(match grant {
        QueueResult::Route { route, charge } => Some((route, charge)),
        QueueResult::Evicted => None,
    })
}

fn route_query(model: &Model, caller_request: &CallerRequest<'_>) -> RouteQuery {
    let head = caller_request.head;
    let part = |span: Option<(usize, usize)>| span.and_then(|(from, to)| caller_request.body.get(from..to));
    let affinity = match model.group.strategy {
        Strategy::Session => caller_request.headers.get(&model.affinity_header).map(|value| hash_text(value.as_bytes())),
        Strategy::Prefix => part(head.prompt_at).map(|prompt| hash_prompt(part(head.system_at).unwrap_or_default(), prompt)),
        _ => None,
    };
    let output_tokens = head.max_tokens.unwrap_or(OUTPUT_TOKENS).saturating_mul(head.choices);
    RouteQuery { affinity, input_tokens: caller_request.body.len() as u64 / 4, output_tokens, ..RouteQuery::default() }
}
