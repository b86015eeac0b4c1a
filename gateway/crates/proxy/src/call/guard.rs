//! The guard of one call: opened in the usage log before the endpoint is called, settled exactly once, whichever side leaves first.

use crate::base::boxing::boxed;
use crate::base::problem::Problem;
use crate::call::report::{Failure, Report, Settlement};
use crate::call::request_info::RequestInfo;
use crate::observe::call_trace::CallTrace;
use crate::observe::metrics::bump;
use crate::reactor::in_flight::InFlightCall;
use crate::reactor::state::Reactor;
use bytes::Bytes;
use std::rc::Rc;
use std::time::Duration;
use tenon_balance::{AttemptOutcome, RouteQuery, Strategy};
use tenon_dialects::{Source, Usage};
use tenon_limits::{Consumption, Reservation, Tokens};
use tenon_policy::ChosenRoute;
use tenon_problem::ProblemCode;
use tenon_usage::{LeaseUse, LogFull, OpenRecord, Operation, Outcome, SettleRecord, SyncPoint, Ticket, UsageSource, random};

/// A call from its registration on. Dropped unsettled, it settles as left by its caller.
pub struct Call {
    reactor: Rc<Reactor>,
    pub in_flight: Rc<InFlightCall>,
    slot: usize,
    pub request: RequestInfo,
    ticket: Option<Ticket>,
    /// Opened while the log had no room, by the operator's choice: it is settled like any other, without a record.
    unmetered: bool,
    /// The position of its settlement in the log, for answers that wait for the disk.
    pub mark: Option<SyncPoint>,
    attempt: u8,
    /// Of the last attempt.
    chosen: Option<ChosenRoute>,
    /// What the caller got, or will get.
    pub http_status: u16,
    /// From the call's arrival to the beginning of the running attempt.
    began: Duration,
    first_token: Option<Duration>,
    /// What the call holds of limits and hard budgets until it is dropped.
    reservation: Option<Box<Reservation>>,
    /// The last thing that went wrong.
    failure: Option<Failure>,
    pub call_trace: CallTrace,
    /// What the choice between routes depends on.
    pub route_query: RouteQuery,
    /// Its body, when the call is one of the sample for the request log.
    sampled: Option<Bytes>,
    settlement: Option<Settlement>,
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
    pub fn new(reactor: &Rc<Reactor>, in_flight: InFlightCall, request: RequestInfo) -> Box<Self> {
        let in_flight = Rc::new(in_flight);
        let slot = reactor.calls.insert(in_flight.clone());
        boxed(|| Self {
            reactor: reactor.clone(),
            in_flight,
            slot,
            request,
            ticket: None,
            unmetered: false,
            mark: None,
            attempt: 0,
            chosen: None,
            http_status: 0,
            began: Duration::ZERO,
            first_token: None,
            reservation: None,
            failure: None,
            call_trace: CallTrace::default(),
            route_query: RouteQuery::default(),
            sampled: None,
            settlement: None,
        })
    }

    /// The call holds this until it is dropped.
    pub fn hold(&mut self, reservation: Option<Box<Reservation>>) {
        self.reservation = reservation;
    }

    /// What the call holds, to give some of it back while it runs.
    pub fn reservation(&mut self) -> Option<&mut Reservation> {
        self.reservation.as_deref_mut()
    }

    /// The cap on output that the reservation pays and the caller did not set.
    pub fn cap(&self) -> Option<u64> {
        self.reservation.as_ref()?.cap()
    }

    /// Writes the open record of the next attempt.
    pub fn open(&mut self, chosen: ChosenRoute) -> Result<(), LogFull> {
        let chosen = self.chosen.insert(chosen);
        self.began = self.request.started.elapsed();
        self.call_trace.note_attempt(chosen.index, self.began);
        self.attempt = self.attempt.saturating_add(1);
        let key = self.in_flight.key.clone();
        let uses: Vec<_> = self
            .reservation
            .iter()
            .flat_map(|reservation| reservation.lease_parts())
            .map(|piece| LeaseUse { lease_id: &piece.lease.id, nano: piece.nano })
            .collect();
        let record = OpenRecord {
            id: self.request.id,
            trace_id: self.request.trace.id,
            started_unix_us: self.request.started_unix_us,
            operation: self.request.operation,
            streamed: self.request.streamed,
            attempt: self.attempt,
            parties: &key.parties,
            endpoint_id: &chosen.endpoint().id,
            model: &chosen.model.name,
            upstream_model: chosen.upstream_model().unwrap_or_default(),
            price_id: self.reservation.as_ref().map_or("", |reservation| reservation.price_id()),
            uses: &uses,
        };
        let stored = match &self.ticket {
            None => self.reactor.metering.lane.open(&record).map(|ticket| self.ticket = Some(ticket)),
            Some(ticket) => self.reactor.metering.lane.reopen(ticket, &record),
        };
        match stored {
            Ok(()) => self.unmetered = false,
            Err(LogFull) if self.reactor.metering.serves_unmetered() => self.continue_unmetered(),
            Err(full) => return Err(full),
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.open();
        }
        Ok(())
    }

    /// Settles what was recorded so far; from here on the call has no record.
    fn continue_unmetered(&mut self) {
        // The call goes on, and keeps what it holds.
        let reservation = self.reservation.take();
        self.settle(Outcome::UpstreamError, Measured::default());
        self.reservation = reservation;
        self.unmetered = true;
        bump(&self.reactor.observers.metrics().unmetered, 1);
    }

    /// The route of the running attempt.
    pub fn chosen(&self) -> Option<&ChosenRoute> {
        self.chosen.as_ref()
    }

    /// Counts the result of the running attempt in its endpoint's health.
    pub fn record_outcome(&self, verdict: AttemptOutcome) {
        if let Some(chosen) = &self.chosen {
            chosen.record_outcome(verdict, self.reactor.clock.balance_ms());
        }
    }

    /// The running attempt is over and no longer counts at its endpoint; another may follow.
    pub fn attempt_failed(&mut self, code: ProblemCode, detail: Option<String>) {
        self.failed(code, detail);
        if let Some(chosen) = &self.chosen {
            chosen.release(Some(0));
        }
    }

    /// Something went wrong, whether or not the caller will learn of it.
    pub fn failed(&mut self, code: ProblemCode, detail: Option<String>) {
        let endpoint_id = self.chosen.as_ref().map(|chosen| chosen.endpoint().id.clone());
        self.call_trace.note_failure(code, self.request.started.elapsed());
        self.failure = Some(Failure { code, endpoint_id, detail });
    }

    /// The caller gets `problem` instead of an answer.
    pub fn refuse(&mut self, problem: &Problem) {
        self.http_status = problem.status;
        self.call_trace.limit = problem.exceeded();
        if self.failure.as_ref().is_none_or(|failure| failure.code != problem.code) {
            self.failed(problem.code, None);
        }
    }

    /// As [`Self::refuse`], after the endpoint was called.
    pub fn fail(&mut self, problem: &Problem, outcome: Outcome) {
        self.refuse(problem);
        self.settle(outcome, Measured::default());
    }

    pub fn first_token(&mut self) {
        if self.first_token.is_none() {
            let took = self.request.started.elapsed();
            self.first_token = Some(took);
            if let Some(chosen) = self.chosen.as_ref().filter(|chosen| chosen.model.group.strategy == Strategy::Latency) {
                chosen.endpoint().state.record_first_token(micros(took.saturating_sub(self.began)), self.reactor.clock.balance_ms());
            }
            self.reactor.observers.metrics().first_token.observe(took);
        }
    }

    /// Decides whether the call is one of the sample for the request log.
    pub fn sample(&mut self, body: &Bytes) {
        let sampled = self.reactor.observers.request_log().is_some_and(|log| log.samples(random()));
        self.sampled = sampled.then(|| body.clone());
    }

    /// Its trace is kept, for `explain` or the request log.
    pub fn is_kept(&self) -> bool {
        self.reactor.observers.keeps_calls() || self.sampled.is_some()
    }

    pub fn is_settled(&self) -> bool {
        self.ticket.is_none() && !self.unmetered
    }

    /// Stores how it ended. The first settlement counts; later ones do nothing.
    pub fn settle(&mut self, outcome: Outcome, measured: Measured) {
        let ticket = self.ticket.take();
        if !std::mem::take(&mut self.unmetered) && ticket.is_none() {
            return;
        }
        let took = self.request.started.elapsed();
        let (usage, mut source) = match (measured.usage, measured.output_frames) {
            (Some(usage), _) => (usage, measured.source.unwrap_or(UsageSource::Engine)),
            (None, 0) => (Usage::default(), UsageSource::None),
            (None, frames) => (Usage { output: frames, ..Usage::default() }, UsageSource::Estimated),
        };
        if let Some(chosen) = &self.chosen {
            // When the usage is unknown, the estimate stays in the queue's counts.
            chosen.release((source != UsageSource::None).then_some(usage.input + usage.output));
        }
        let end = self.end_of(outcome, &usage, source);
        let charges = self.reservation.as_mut().map_or(&[][..], |reservation| reservation.compute_cost(&end));
        if end == Consumption::Unknown && !charges.is_empty() {
            source = UsageSource::Reserved;
        }
        let settled = SettleRecord {
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
            self.reactor.metering.lane.settle_charged(ticket, &settled, charges);
            self.mark = self.reactor.metering.mark();
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.settle(&end, self.reactor.clock.limits_us());
        }
        self.count(outcome, &usage, took);
        self.settlement = Some(Settlement { outcome, usage: (source != UsageSource::None).then_some((usage, source)), took });
    }

    /// What the end means for money and tokens. An engine that may have worked without saying how much costs what was reserved.
    fn end_of(&self, outcome: Outcome, usage: &Usage, source: UsageSource) -> Consumption {
        match source {
            UsageSource::Engine | UsageSource::Continuous => Consumption::Used(tokens(usage)),
            UsageSource::Estimated => Consumption::Counted(usage.output),
            // Refused or never sent; and counting tokens is free.
            _ if outcome == Outcome::UpstreamError || self.request.operation == Operation::CountTokens => Consumption::Nothing,
            _ => Consumption::Unknown,
        }
    }

    fn count(&self, outcome: Outcome, usage: &Usage, took: Duration) {
        let metrics = self.reactor.observers.metrics();
        bump(&metrics.outcomes[outcome as usize], 1);
        metrics.duration.observe(took);
        let counts = [usage.input, usage.output, usage.cached, usage.cache_write, usage.reasoning];
        metrics.tokens.iter().zip(counts).filter(|(_, tokens)| *tokens > 0).for_each(|(counter, tokens)| bump(counter, tokens));
    }

    /// Logs the call where something was unusual, records its span, and keeps its trace for `explain` and the request log.
    fn report(&mut self) {
        let (observers, clock) = (&self.reactor.observers, &self.reactor.clock);
        let report = Report {
            request: &self.request,
            chosen: self.chosen.as_ref(),
            attempts: self.attempt,
            http_status: self.http_status,
            failure: self.failure.as_ref(),
            settlement: self.settlement,
        };
        if let Some(entry) = report.entry() {
            observers.log(&entry, clock.now());
        }
        if let (Some(own), Some(spans)) = (self.request.trace.span, observers.spans()) {
            spans.record(report.span(&own));
        }
        let (kept, sampled) = (observers.keeps_calls(), self.sampled.take());
        if !kept && sampled.is_none() {
            return;
        }
        let call = report.completed(self.in_flight.key.clone(), self.first_token, &mut self.call_trace);
        if let (Some(body), Some(log)) = (sampled, observers.request_log()) {
            log.push(call.clone(), body);
        }
        if kept {
            observers.keep(call);
        }
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
        // Only a caller who left gets here unsettled: every other end settles with its own outcome.
        if self.ticket.is_some() || self.unmetered {
            self.http_status = 0;
            self.settle(Outcome::ClientGone, Measured::default());
        }
        self.reactor.calls.remove(self.slot);
        self.report();
    }
}
