//! The guard of one call: opened in the log before the upstream hears of it, settled exactly once, whoever leaves first.

use crate::live::Live;
use crate::metrics::bump;
use crate::worker::Worker;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tenon_dialects::openai::Usage;
use tenon_policy::Chosen;
use tenon_usage::{Full, Opened, Operation, Outcome, RecordId, Settled, Ticket, UsageSource};

/// What does not change from attempt to attempt.
pub struct Subject {
    pub id: RecordId,
    pub trace_id: [u8; 16],
    pub started: Instant,
    pub started_unix_us: i64,
    pub operation: Operation,
    pub streamed: bool,
}

pub struct Call {
    worker: Rc<Worker>,
    pub live: Rc<Live>,
    place: usize,
    pub subject: Subject,
    ticket: Option<Ticket>,
    attempt: u8,
    /// What the caller got, or will get.
    pub http_status: u16,
    first_token: Option<Duration>,
}

/// Numbers of a settlement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub usage: Option<Usage>,
    /// Frames counted, for streams that broke off without the engine's numbers.
    pub output_frames: u64,
}

impl Call {
    /// Registers the call for the sweep. Nothing is metered yet.
    pub fn new(worker: &Rc<Worker>, live: Live, subject: Subject) -> Self {
        let live = Rc::new(live);
        let place = worker.live.insert(live.clone());
        Self { worker: worker.clone(), live, place, subject, ticket: None, attempt: 0, http_status: 0, first_token: None }
    }

    /// Writes the open record of the next attempt.
    pub fn open(&mut self, chosen: &Chosen) -> Result<(), Full> {
        self.attempt = self.attempt.saturating_add(1);
        let key = self.live.key.clone();
        let record = Opened {
            id: self.subject.id,
            trace_id: self.subject.trace_id,
            started_unix_us: self.subject.started_unix_us,
            operation: self.subject.operation,
            streamed: self.subject.streamed,
            attempt: self.attempt,
            parties: &key.parties,
            endpoint_id: &chosen.endpoint().id,
            model: &chosen.model.name,
            upstream_model: chosen.upstream_model().unwrap_or_default(),
        };
        match &self.ticket {
            None => self.ticket = Some(self.worker.lane.open(&record)?),
            Some(ticket) => self.worker.lane.reopen(ticket, &record)?,
        }
        Ok(())
    }

    pub fn first_token(&mut self) {
        if self.first_token.is_none() {
            let took = self.subject.started.elapsed();
            self.first_token = Some(took);
            self.worker.metrics().first_token.observe(took);
        }
    }

    /// Stores how it ended. The first word counts; later ones do nothing.
    pub fn settle(&mut self, outcome: Outcome, measured: Measured) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let took = self.subject.started.elapsed();
        let (usage, source) = match (measured.usage, measured.output_frames) {
            (Some(usage), _) => (usage, UsageSource::Engine),
            (None, 0) => (Usage::default(), UsageSource::None),
            (None, frames) => (Usage { output: frames, ..Usage::default() }, UsageSource::Estimated),
        };
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let settled = Settled {
            outcome,
            source,
            http_status: self.http_status,
            input: usage.input,
            output: usage.output,
            cache_read: usage.cached,
            cache_write: usage.cache_write,
            reasoning: usage.reasoning,
            first_token_us: self.first_token.map_or(0, micros),
            duration_us: micros(took),
        };
        self.worker.lane.settle(ticket, &settled);
        self.count(outcome, &usage, took);
    }

    fn count(&self, outcome: Outcome, usage: &Usage, took: Duration) {
        let metrics = self.worker.metrics();
        bump(&metrics.outcomes[outcome as usize], 1);
        metrics.duration.observe(took);
        let kinds = [usage.input, usage.output, usage.cached, usage.cache_write, usage.reasoning];
        metrics.tokens.iter().zip(kinds).filter(|(_, tokens)| *tokens > 0).for_each(|(counter, tokens)| bump(counter, tokens));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Reached unsettled only when the caller left: every other end settles with its own outcome.
        self.http_status = 0;
        self.settle(Outcome::ClientGone, Measured::default());
        self.worker.live.remove(self.place);
    }
}
