//! The guard of one call: opened in the log before the upstream hears of it, settled exactly once, whoever leaves first.

mod telling;

use crate::doors::Door;
use crate::in_place::boxed;
use crate::limits::WhenLogFull;
use crate::live::Live;
use crate::metrics::bump;
use crate::problem::Problem;
use crate::trace::Trace;
use crate::trail::Trail;
use crate::worker::Worker;
use bytes::Bytes;
use http::HeaderValue;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tenon_balance::{Ask, Strategy, Verdict};
use tenon_dialects::{Source, Usage};
use tenon_limits::{End as Money, Grant, Tokens};
use tenon_policy::Chosen;
use tenon_usage::{Full, Mark, Opened, Operation, Outcome, RecordId, Settled, Ticket, UsageSource, Use, random};

/// What does not change from attempt to attempt.
pub struct Subject {
    pub id: RecordId,
    /// The same, as everybody on the way is told.
    pub id_header: HeaderValue,
    pub trace: Trace,
    pub started: Instant,
    pub started_unix_us: i64,
    pub door: &'static Door,
    pub streamed: bool,
}

impl Subject {
    pub fn started_unix_seconds(&self) -> u64 {
        u64::try_from(self.started_unix_us / 1_000_000).unwrap_or(0)
    }
}

pub struct Call {
    worker: Rc<Worker>,
    pub live: Rc<Live>,
    place: usize,
    pub subject: Subject,
    ticket: Option<Ticket>,
    /// Opened while the log had no room, by the operator's choice: it is settled like any other, without a record.
    unmetered: bool,
    /// Where its settlement stands in the log, for answers that wait for the disk.
    pub mark: Option<Mark>,
    attempt: u8,
    /// Of the last attempt.
    chosen: Option<Chosen>,
    /// What the caller got, or will get.
    pub http_status: u16,
    /// From the call's arrival to the beginning of the running attempt.
    began: Duration,
    first_token: Option<Duration>,
    /// What was taken of limits and hard budgets, until the call is dropped.
    grant: Option<Box<Grant>>,
    /// The last thing that went wrong.
    trouble: Option<Trouble>,
    pub trail: Trail,
    /// What is known of the call that decides between routes.
    pub wish: Ask,
    /// Its body, when the call is one of the sample for the request log.
    sampled: Option<Bytes>,
    end: Option<End>,
}

struct Trouble {
    code: &'static str,
    endpoint_id: Option<Box<str>>,
    detail: Option<String>,
}

#[derive(Clone, Copy)]
struct End {
    outcome: Outcome,
    usage: Option<(Usage, UsageSource)>,
    took: Duration,
}

/// Numbers of a settlement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub usage: Option<Usage>,
    /// Frames counted, for streams that broke off without the engine's numbers.
    pub output_frames: u64,
    /// Where `usage` comes from, if not from the engine as the whole answer's.
    pub source: Option<UsageSource>,
}

impl From<(Usage, Source)> for Measured {
    fn from((usage, source): (Usage, Source)) -> Self {
        let source = match source {
            Source::Engine => UsageSource::Engine,
            Source::Continuous => UsageSource::Continuous,
            Source::Estimated => UsageSource::Estimated,
            Source::None => UsageSource::None,
        };
        Self { usage: Some(usage), output_frames: 0, source: Some(source) }
    }
}

impl Call {
    /// Registers the call for the sweep. Nothing is metered yet. Boxed: it is handed on several times, and its notes are some hundred bytes.
    pub fn new(worker: &Rc<Worker>, live: Live, subject: Subject) -> Box<Self> {
        let live = Rc::new(live);
        let place = worker.live.insert(live.clone());
        boxed(|| Self {
            worker: worker.clone(),
            live,
            place,
            subject,
            ticket: None,
            unmetered: false,
            mark: None,
            attempt: 0,
            chosen: None,
            http_status: 0,
            began: Duration::ZERO,
            first_token: None,
            grant: None,
            trouble: None,
            trail: Trail::default(),
            wish: Ask::default(),
            sampled: None,
            end: None,
        })
    }

    /// What the call has taken stays with it to its end.
    pub fn holds(&mut self, grant: Option<Box<Grant>>) {
        self.grant = grant;
    }

    /// What was taken, for those who give some of it back while the call runs.
    pub fn grant(&mut self) -> Option<&mut Grant> {
        self.grant.as_deref_mut()
    }

    /// The cap on output that the reservation pays and the caller did not set.
    pub fn cap(&self) -> Option<u64> {
        self.grant.as_ref()?.cap()
    }

    /// Writes the open record of the next attempt.
    pub fn open(&mut self, chosen: Chosen) -> Result<(), Full> {
        let chosen = self.chosen.insert(chosen);
        self.began = self.subject.started.elapsed();
        self.trail.attempt(chosen.index, self.began);
        self.attempt = self.attempt.saturating_add(1);
        let key = self.live.key.clone();
        let uses: Vec<_> =
            self.grant.iter().flat_map(|grant| grant.pieces()).map(|piece| Use { lease_id: &piece.lease.id, nano: piece.nano }).collect();
        let record = Opened {
            id: self.subject.id,
            trace_id: self.subject.trace.id,
            started_unix_us: self.subject.started_unix_us,
            operation: self.subject.door.operation,
            streamed: self.subject.streamed,
            attempt: self.attempt,
            parties: &key.parties,
            endpoint_id: &chosen.endpoint().id,
            model: &chosen.model.name,
            upstream_model: chosen.upstream_model().unwrap_or_default(),
            price_id: self.grant.as_ref().map_or("", |grant| grant.price_id()),
            uses: &uses,
        };
        let stored = match &self.ticket {
            None => self.worker.lane.open(&record).map(|ticket| self.ticket = Some(ticket)),
            Some(ticket) => self.worker.lane.reopen(ticket, &record),
        };
        match stored {
            Ok(()) => self.unmetered = false,
            Err(Full) if self.worker.limits.when_log_full == WhenLogFull::ServeUnmetered => self.go_on_unmetered(),
            Err(full) => return Err(full),
        }
        if let Some(grant) = &mut self.grant {
            grant.open();
        }
        Ok(())
    }

    /// What was recorded so far is settled as it stands; from here on the call leaves no record.
    fn go_on_unmetered(&mut self) {
        // The call goes on, and so does what it has taken.
        let grant = self.grant.take();
        self.settle(Outcome::UpstreamError, Measured::default());
        self.grant = grant;
        self.unmetered = true;
        bump(&self.worker.metrics().unmetered, 1);
    }

    /// The route of the running attempt.
    pub fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_ref()
    }

    /// What the running attempt says about its endpoint.
    pub fn judge(&self, verdict: Verdict) {
        if let Some(chosen) = &self.chosen {
            chosen.judge(verdict, self.worker.balance_ms());
        }
    }

    /// The running attempt is over, and so is its place at the endpoint; another may follow.
    pub fn attempt_failed(&mut self, code: &'static str, detail: Option<String>) {
        self.trouble(code, detail);
        if let Some(chosen) = &self.chosen {
            chosen.release(Some(0));
        }
    }

    /// Something went wrong, whether or not the caller will hear of it.
    pub fn trouble(&mut self, code: &'static str, detail: Option<String>) {
        let endpoint_id = self.chosen.as_ref().map(|chosen| chosen.endpoint().id.clone());
        self.trail.failed(code, self.subject.started.elapsed());
        self.trouble = Some(Trouble { code, endpoint_id, detail });
    }

    /// The caller is told `problem` instead of an answer.
    pub fn refuse(&mut self, problem: &Problem) {
        self.http_status = problem.status;
        self.trail.limit = problem.exceeded();
        if self.trouble.as_ref().is_none_or(|trouble| trouble.code != problem.code) {
            self.trouble(problem.code, None);
        }
    }

    /// As [`Self::refuse`], after the upstream was called.
    pub fn fail(&mut self, problem: &Problem, outcome: Outcome) {
        self.refuse(problem);
        self.settle(outcome, Measured::default());
    }

    pub fn first_token(&mut self) {
        if self.first_token.is_none() {
            let took = self.subject.started.elapsed();
            self.first_token = Some(took);
            if let Some(chosen) = self.chosen.as_ref().filter(|chosen| chosen.model.group.strategy == Strategy::Latency) {
                chosen.endpoint().state.first_token(micros(took.saturating_sub(self.began)), self.worker.balance_ms());
            }
            self.worker.metrics().first_token.observe(took);
        }
    }

    /// Whether the call is one of the sample is decided here.
    pub fn sample(&mut self, body: &Bytes) {
        let sampled = self.worker.request_log.as_ref().is_some_and(|log| log.samples(random()));
        self.sampled = sampled.then(|| body.clone());
    }

    /// Somebody may ask why it went as it went.
    pub fn is_kept(&self) -> bool {
        self.worker.trails.are_kept() || self.sampled.is_some()
    }

    pub fn is_settled(&self) -> bool {
        self.ticket.is_none() && !self.unmetered
    }

    /// Stores how it ended. The first word counts; later ones do nothing.
    pub fn settle(&mut self, outcome: Outcome, measured: Measured) {
        let ticket = self.ticket.take();
        if !std::mem::take(&mut self.unmetered) && ticket.is_none() {
            return;
        }
        let took = self.subject.started.elapsed();
        let (usage, mut source) = match (measured.usage, measured.output_frames) {
            (Some(usage), _) => (usage, measured.source.unwrap_or(UsageSource::Engine)),
            (None, 0) => (Usage::default(), UsageSource::None),
            (None, frames) => (Usage { output: frames, ..Usage::default() }, UsageSource::Estimated),
        };
        if let Some(chosen) = &self.chosen {
            // Of an unknown use the estimate stands in the queue's books.
            chosen.release((source != UsageSource::None).then_some(usage.input + usage.output));
        }
        let end = self.end_of(outcome, &usage, source);
        let charges = self.grant.as_mut().map_or(&[][..], |grant| grant.reckon(&end));
        if end == Money::Unknown && !charges.is_empty() {
            source = UsageSource::Reserved;
        }
        let settled = Settled {
            outcome,
            source,
            http_status: self.http_status,
            input: usage.input,
            output: usage.output,
            cache_read: usage.cached,
            cache_write: usage.cache_write,
            reasoning: usage.reasoning,
            audio: usage.audio,
            images: usage.images,
            first_token_us: self.first_token.map_or(0, micros),
            duration_us: micros(took),
        };
        if let Some(ticket) = ticket {
            self.worker.lane.settle_charged(ticket, &settled, charges);
            if self.worker.limits.settle_on_disk {
                self.mark = self.worker.lane.mark();
            }
        }
        if let Some(grant) = &mut self.grant {
            grant.settle(&end, self.worker.limits_now());
        }
        self.count(outcome, &usage, took);
        self.end = Some(End { outcome, usage: (source != UsageSource::None).then_some((usage, source)), took });
    }

    /// What the end means for money and tokens. An engine that may have worked without saying how much costs what was reserved.
    fn end_of(&self, outcome: Outcome, usage: &Usage, source: UsageSource) -> Money {
        match source {
            UsageSource::Engine | UsageSource::Continuous => Money::Used(tokens(usage)),
            UsageSource::Estimated => Money::Counted(usage.output),
            // Refused or never sent; and a count of tokens costs nobody anything.
            _ if outcome == Outcome::UpstreamError || self.subject.door.operation == Operation::CountTokens => Money::Nothing,
            _ => Money::Unknown,
        }
    }

    fn count(&self, outcome: Outcome, usage: &Usage, took: Duration) {
        let metrics = self.worker.metrics();
        bump(&metrics.outcomes[outcome as usize], 1);
        metrics.duration.observe(took);
        let kinds = [usage.input, usage.output, usage.cached, usage.cache_write, usage.reasoning];
        metrics.tokens.iter().zip(kinds).filter(|(_, tokens)| *tokens > 0).for_each(|(counter, tokens)| bump(counter, tokens));
    }
}

/// What was used, as limits and prices count it.
pub fn tokens(usage: &Usage) -> Tokens {
    Tokens {
        input: usage.input,
        output: usage.output,
        cache_read: usage.cached,
        cache_write: usage.cache_write,
        reasoning: usage.reasoning,
        audio: usage.audio,
        images: u64::from(usage.images),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Call {
    fn drop(&mut self) {
        // Reached unsettled only when the caller left: every other end settles with its own outcome.
        if self.ticket.is_some() || self.unmetered {
            self.http_status = 0;
            self.settle(Outcome::ClientGone, Measured::default());
        }
        self.worker.live.remove(self.place);
        self.tell();
        self.leave_span();
        self.leave_trail();
    }
}
