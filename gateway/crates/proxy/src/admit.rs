//! Admission as the road does it: what the body says is asked of limits and budgets, and a call that finds no lease waits a moment for one.

use crate::answer::Reply;
use crate::problem::Problem;
use crate::worker::Worker;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenon_dialects::{Form, Head};
use tenon_limits::{Applies, Ask, Budget, Denied, Output};
use tenon_policy::{Admitted, Limiting, NotAdmitted, admit, recheck};
use tenon_snapshot::{Key, unix_ms};
use tenon_usage::Operation;

/// How long a call waits for a lease. The control plane answers in milliseconds, or not at all.
const LEASE_PATIENCE: Duration = Duration::from_secs(1);
/// OpenAI's own default of `completions`, which engines share.
const COMPLETION_TOKENS: u64 = 16;

/// What limits a request, for the headers of its answer: filled as soon as it is known.
#[derive(Default)]
pub struct Told(RefCell<Applies>);

impl Told {
    pub fn set(&self, applies: Applies) {
        self.0.replace(applies);
    }

    /// Nothing applies, nothing is done. A caller who reached a limit is told in every way.
    pub fn add_headers(&self, worker: &Worker, response: &mut http::Response<Reply>) {
        let applies = self.0.borrow();
        if applies.key.is_some() || applies.model.is_some() {
            let as_openai_too = worker.limits.openai_limit_headers || response.status() == http::StatusCode::TOO_MANY_REQUESTS;
            applies.tell(response.headers_mut(), worker.limits_now(), as_openai_too);
        }
    }
}

/// A call by what its door knows of it.
pub struct Wanted<'a> {
    pub model: &'a str,
    pub operation: Operation,
    pub body: &'a [u8],
    /// `None` = a session, which asks for as much as it likes while it lasts.
    pub read: Option<(Form, &'a Head<'a>)>,
}

impl Wanted<'_> {
    /// `exactly`: a hard budget applies, so the body is read once more for what it proves.
    fn ask(&self, worker: &Worker, exactly: bool, has_waited: bool) -> Ask {
        let mut ask = Ask {
            // Leases end at an instant, so it is read anew for them; windows are content with the sweep's.
            now_us: if exactly { worker.registry.micros(Instant::now()) } else { worker.limits_now() },
            unix_ms: if exactly { unix_ms() } else { 0 },
            body_bytes: self.body.len() as u64,
            output: Output::Unbounded,
            choices: 1,
            images: 0,
            is_text: false,
            is_endless: self.read.is_none(),
            has_waited,
        };
        let Some((form, head)) = self.read else {
            return ask;
        };
        ask.choices = head.choices.max(1);
        ask.images = if form.makes_images() { ask.choices } else { 0 };
        ask.output = output_of(form, head);
        if exactly {
            let bound = form.bound(head, self.body);
            (ask.is_text, ask.body_bytes, ask.choices) = (bound.is_text, bound.input_bytes, bound.completions.max(1));
        }
        ask
    }
}

fn output_of(form: Form, head: &Head<'_>) -> Output {
    match (form, head.max_tokens) {
        (Form::Embedding | Form::Rerank | Form::CountTokens, _) => Output::None,
        (Form::Chat | Form::Completion | Form::Response | Form::Message, Some(cap)) => Output::Capped(cap),
        (Form::Completion, None) => Output::Default(COMPLETION_TOKENS),
        (Form::Chat | Form::Response | Form::Message, None) => Output::Open,
        (Form::Speech | Form::Image | Form::Transcription | Form::ImageForm, _) => Output::Unbounded,
    }
}

/// Admits the call, as the world is now: the body may have taken its time.
///
/// # Errors
/// What the caller is told.
pub async fn admitted(worker: &Worker, key: &Arc<Key>, wanted: &Wanted<'_>, told: &Told) -> Result<Admitted, Problem> {
    match attempt(worker, key, wanted, false) {
        Ok(admitted) => {
            told.set(admitted.applies());
            Ok(admitted)
        }
        Err(NotAdmitted::Refused(refusal)) => Err(refusal.into()),
        Err(NotAdmitted::Limited(applies, denied)) => {
            told.set(applies);
            // Boxed: few calls wait, and every call would carry it.
            Box::pin(wait_for_lease(worker, key, wanted, denied)).await
        }
    }
}

fn attempt(worker: &Worker, key: &Arc<Key>, wanted: &Wanted<'_>, has_waited: bool) -> Result<Admitted, NotAdmitted> {
    let snapshot = worker.snapshots.load();
    recheck(&snapshot, key, &worker.moment())?;
    let ask = |exactly| wanted.ask(worker, exactly, has_waited);
    admit(&snapshot, key, wanted.model, wanted.operation, &Limiting { registry: &worker.registry, ask: &ask })
}

async fn wait_for_lease(worker: &Worker, key: &Arc<Key>, wanted: &Wanted<'_>, mut denied: Denied) -> Result<Admitted, Problem> {
    let deadline = Instant::now() + LEASE_PATIENCE;
    while let Denied::Short { budget, nano, least } = &denied {
        let seen = budget.news.version();
        // A lease may have come between the look at the budget and the look at its news.
        let mut next = attempt(worker, key, wanted, false);
        if let Err(NotAdmitted::Limited(_, Denied::Short { .. })) = next {
            ask_for(worker, budget, *nano, *least)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = tokio::time::timeout(left, budget.news.after(seen)).await;
            next = attempt(worker, key, wanted, true);
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

/// Asks for what is missing beside what is held: a call may use several leases.
fn ask_for(worker: &Worker, budget: &Budget, nano: i64, least: i64) -> Result<(), Problem> {
    let now_us = worker.registry.micros(Instant::now());
    let left = budget.left(now_us);
    let missing = nano.saturating_sub(left);
    match budget.denied_remaining(now_us) {
        Some(remaining) if remaining.saturating_add(left) < least => return Err(Problem::BUDGET_EXHAUSTED),
        _ if worker.registry.is_lost.load(std::sync::atomic::Ordering::Acquire) => return Err(Problem::LEASE_UNAVAILABLE),
        Some(remaining) => budget.want(missing.min(remaining)),
        None => budget.want(missing),
    }
    worker.registry.bell.ring();
    Ok(())
}
