//! Which endpoint, and which next: the queue before the first attempt, the attempts that follow a failed one.
//!
//! Another route is tried only before anything of an answer was given away, only as often as the model and its budget of retries allow, and,
//! where the upstream may have worked on the call already, only if the model's operator said so (`retries_max`).

use crate::call::Call;
use crate::live::Cut;
use crate::metrics::bump;
use crate::problem::Problem;
use crate::upstream::{Answering, Begun, Failed, Prepared, attempt};
use crate::worker::Worker;
use std::future::poll_fn;
use std::time::Duration;
use tenon_balance::{Ask, Charge, Grant, Strategy, Verdict, Who, bits, of_heads, of_text};
use tenon_contract::Priority;
use tenon_policy::{Admitted, Choice, Chosen, Refusal, Waiting};
use tenon_snapshot::Model;
use tenon_usage::{Outcome, random};

/// Why an attempt is followed by another: index into [`RETRIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Connect,
    /// 429.
    Limited,
    /// 503, 529.
    Overloaded,
    /// 401, 403, 407: our credential is not taken there.
    Credential,
    /// Other 5xx.
    Status,
    /// The connection broke before the first bytes of an answer.
    Reset,
    Timeout,
    /// Nothing was sent: the endpoint's dialect has no words for it.
    Untranslatable,
}

pub const RETRIES: [&str; 8] = ["connect", "limited", "overloaded", "credential", "status", "reset", "timeout", "untranslatable"];

/// Attempts after the first where the model does not say.
const RETRIES_DEFAULT: u32 = 2;
/// What a call is reckoned to answer where nobody says.
const OUTPUT_TOKENS: u64 = 512;

impl Reason {
    fn of_status(status: u16) -> Option<Self> {
        match status {
            429 => Some(Self::Limited),
            503 | 529 => Some(Self::Overloaded),
            401 | 403 | 407 => Some(Self::Credential),
            500..=599 => Some(Self::Status),
            _ => None,
        }
    }

    /// The upstream may have worked on it: repeating is the operator's decision.
    fn is_doubtful(self) -> bool {
        matches!(self, Self::Status | Self::Reset | Self::Timeout)
    }
}

/// The calls of one request.
struct Attempts<'a> {
    worker: &'a Worker,
    admitted: Admitted,
    wish: Ask,
    made: u32,
}

/// Calls the routes of `admitted` until one answers.
///
/// # Errors
/// What the caller is told. The call is settled then, if it was opened.
pub fn call(worker: &Worker, admitted: Admitted, call: &mut Call, prepared: &Prepared<'_>) -> impl Future<Output = Result<Answering, Problem>> {
    call.wish = wish(admitted.model(), prepared);
    try_routes(worker, admitted, call, async move |call| attempt(worker, call, prepared).await)
}

/// Calls the routes of `admitted`, in whatever protocol `attempt` speaks: the only way to an upstream. `call.wish` says what is known of it.
///
/// # Errors
/// As [`call`].
pub async fn try_routes<T: Begun>(
    worker: &Worker,
    mut admitted: Admitted,
    call: &mut Call,
    attempt: impl AsyncFn(&Call) -> Result<T, Failed>,
) -> Result<T, Problem> {
    call.holds(admitted.take_grant());
    if admitted.open().count_ones() > 1 {
        admitted.model().group.budget.earn();
    }
    let mut attempts = Attempts { worker, admitted, wish: call.wish, made: 0 };
    let mut chosen = match attempts.first(call).await {
        Ok(chosen) => chosen,
        Err(problem) => {
            call.trail.model = Some(attempts.admitted.model().clone());
            call.refuse(&problem);
            return Err(problem);
        }
    };
    loop {
        if call.open(chosen).is_err() {
            call.fail(&Problem::UNMETERED, Outcome::UpstreamError);
            return Err(Problem::UNMETERED);
        }
        attempts.made += 1;
        chosen = match attempt(call).await {
            Ok(begun) => match attempts.after_answer(call, &begun) {
                Some(next) => next,
                None => return Ok(begun),
            },
            Err(failed) => attempts.after_failure(call, failed).await?,
        };
    }
}

impl Attempts<'_> {
    fn ask(&self) -> Ask {
        Ask { now_ms: self.worker.balance_ms(), random: random(), ..self.wish }
    }

    /// One of the routes not tried yet; how all of them stand is noted where somebody may ask.
    fn choose(&mut self, call: &mut Call) -> Choice {
        let ask = self.ask();
        let model = self.admitted.model();
        if model.routes.len() > 1 && call.is_kept() {
            call.trail.look(&model.group, self.admitted.open(), &ask);
        }
        self.admitted.choose(&ask)
    }

    /// The first route, when there is one with room; in the queue for it otherwise.
    async fn first(&mut self, call: &mut Call) -> Result<Chosen, Problem> {
        match self.choose(call) {
            Choice::Go(chosen) => Ok(chosen),
            Choice::Nowhere => Err(Refusal::NoUsableEndpoint.into()),
            // Boxed: few calls wait, and every call would carry the room for it.
            Choice::Full(routes) => Box::pin(self.wait(call, routes)).await,
        }
    }

    async fn wait(&mut self, call: &mut Call, mut routes: u64) -> Result<Chosen, Problem> {
        let worker = self.worker;
        let since = std::time::Instant::now();
        let own = self.admitted.model().queue_timeout;
        // By the true time: the sweep's is up to a tick old, and a short wait would be shorter than it says.
        call.live.wait_in_queue(if own.is_zero() { worker.limits.queue_wait } else { own }, since);
        let chosen = loop {
            let Some(mut waiting) = self.admitted.wait(routes, self.who()) else {
                break Err(Problem::QUEUE_FULL.after(self.retry_after(routes)));
            };
            match wait_for_turn(call, &mut waiting).await {
                Ok(Some(grant)) => {
                    if let Some(chosen) = self.admitted.granted(waiting, grant, worker.balance_ms()) {
                        break Ok(chosen);
                    }
                }
                Ok(None) => break Err(Problem::QUEUE_FULL.after(self.retry_after(routes))),
                Err(cut) if cut.timeout => break Err(cut.problem.after(self.retry_after(routes))),
                Err(cut) => break Err(cut.problem),
            }
            // What was granted fell ill in the meantime.
            match self.choose(call) {
                Choice::Go(chosen) => break Ok(chosen),
                Choice::Full(others) => routes = others,
                Choice::Nowhere => break Err(Refusal::NoUsableEndpoint.into()),
            }
        };
        call.trail.queued = since.elapsed();
        worker.metrics().queue_wait.observe(call.trail.queued);
        chosen
    }

    fn who(&self) -> Who {
        let record = &self.admitted.key().record;
        let band = match record.priority() {
            Priority::High => 0,
            Priority::Unspecified | Priority::Normal => 1,
            Priority::Low => 2,
        };
        Who { band, flow: of_text(record.tenant_id.as_bytes()), tokens: self.wish.input_tokens + self.wish.output_tokens }
    }

    fn retry_after(&self, routes: u64) -> Duration {
        let members = self.admitted.model().group.members();
        bits(routes).map(|index| members[index].state.capacity.retry_after()).min().unwrap_or(Duration::from_secs(1))
    }

    /// An answer has begun: whether another route is asked instead of giving it away.
    fn after_answer(&mut self, call: &mut Call, begun: &impl Begun) -> Option<Chosen> {
        let status = begun.status();
        call.judge(if status < 400 { Verdict::Answered } else { Verdict::of_status(status, begun.retry_after_seconds()) });
        call.trail.connection(begun.is_on_kept_connection());
        call.trail.answered(status, call.subject.started.elapsed());
        let reason = Reason::of_status(status)?;
        // An answer in the hand is not given up for a place in a queue.
        let Choice::Go(chosen) = self.next(call, reason) else {
            return None;
        };
        self.count(reason);
        call.attempt_failed("upstream_status", Some(format!("the endpoint answered {status}")));
        Some(chosen)
    }

    /// No answer: the next route, waiting for it where it is full, or what the caller is told.
    async fn after_failure(&mut self, call: &mut Call, failed: Failed) -> Result<Chosen, Problem> {
        let failures = &self.worker.metrics().failures;
        let (problem, outcome, reason) = match failed {
            Failed::Unsent(problem, detail) => {
                bump(&failures[0], 1);
                call.judge(Verdict::Unreachable);
                call.attempt_failed(problem.code, detail);
                (problem, Outcome::UpstreamError, Reason::Connect)
            }
            Failed::Untranslatable(problem) => {
                call.judge(Verdict::Nothing);
                call.attempt_failed(problem.code, None);
                (problem, Outcome::UpstreamError, Reason::Untranslatable)
            }
            Failed::Unanswered(problem, outcome) => {
                let reason = if outcome == Outcome::Timeout { Reason::Timeout } else { Reason::Reset };
                bump(&failures[if reason == Reason::Timeout { 3 } else { 2 }], 1);
                call.judge(Verdict::Failed);
                call.attempt_failed(problem.code, None);
                (problem, outcome, reason)
            }
            Failed::Final(problem, outcome) => {
                bump(&failures[if outcome == Outcome::Timeout { 3 } else { 2 }], 1);
                call.fail(&problem, outcome);
                return Err(problem);
            }
        };
        // A deadline that passed at this endpoint does not end the next attempt.
        call.live.forgive();
        let chosen = match self.next(call, reason) {
            Choice::Go(chosen) => Some(chosen),
            Choice::Full(routes) => Box::pin(self.wait(call, routes)).await.ok(),
            Choice::Nowhere => None,
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

    /// Another route, if another attempt may be made and paid for.
    fn next(&mut self, call: &mut Call, reason: Reason) -> Choice {
        let model = self.admitted.model();
        // Reading on in the list of routes costs nobody anything.
        if reason == Reason::Untranslatable {
            return self.choose(call);
        }
        if self.made > most(model) || self.admitted.open() == 0 || (reason.is_doubtful() && model.retries_max == 0) {
            return Choice::Nowhere;
        }
        let choice = self.choose(call);
        let is_paid = !matches!(choice, Choice::Nowhere) && self.admitted.model().group.budget.spend(self.worker.balance_ms());
        if is_paid { choice } else { Choice::Nowhere }
    }

    fn count(&self, reason: Reason) {
        bump(&self.worker.metrics().retries[reason as usize], 1);
    }
}

fn most(model: &Model) -> u32 {
    if model.retries_max == 0 { RETRIES_DEFAULT } else { model.retries_max }
}

/// `None` = a longer queue than this place was worth. It is given up when the caller leaves.
async fn wait_for_turn(call: &Call, waiting: &mut Waiting) -> Result<Option<(u32, Charge)>, Cut> {
    let grant = call.live.race(poll_fn(|context| waiting.poll(context))).await?;
    Ok(match grant {
        Grant::Route { route, charge } => Some((route, charge)),
        Grant::Evicted => None,
    })
}

fn wish(model: &Model, prepared: &Prepared<'_>) -> Ask {
    let head = prepared.head;
    let part = |span: Option<(usize, usize)>| span.and_then(|(from, to)| prepared.body.get(from..to));
    let affinity = match model.group.strategy {
        Strategy::Session => prepared.headers.get(&model.affinity_header).map(|value| of_text(value.as_bytes())),
        Strategy::Prefix => part(head.prompt_at).map(|prompt| of_heads(part(head.system_at).unwrap_or_default(), prompt)),
        _ => None,
    };
    let output_tokens = head.max_tokens.unwrap_or(OUTPUT_TOKENS).saturating_mul(head.choices);
    Ask { affinity, input_tokens: prepared.body.len() as u64 / 4, output_tokens, ..Ask::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_did_wrong_is_not_tried_elsewhere() {
        for status in [200, 400, 402, 404, 408, 409, 413, 422] {
            assert_eq!(Reason::of_status(status), None, "{status}");
        }
        assert!([429, 503, 529, 401].iter().all(|status| !Reason::of_status(*status).unwrap().is_doubtful()));
        assert!([500, 502, 504].iter().all(|status| Reason::of_status(*status).unwrap().is_doubtful()));
    }
}
