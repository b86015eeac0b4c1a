//! The queue of spans and the thread that sends them.

use crate::collector::{Collector, EndpointError, TlsConfigSource};
use crate::span::{Span, request};
use prost::Message;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

const QUEUE_SPANS_MAX: usize = 4096;
const BATCH_SPANS_MAX: usize = 512;
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// The thread polls; waking it would cost the reactor a system call.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
    #[error("the telemetry thread could not be started: {0}")]
    Thread(#[from] io::Error),
}

/// For metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub exported: AtomicU64,
    pub dropped_queue_full: AtomicU64,
    pub dropped_send_failed: AtomicU64,
}

/// The reactors' end of the queue.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: mpsc::Sender<Span>,
    pub counts: Arc<Counts>,
    /// A random number below it means sampled; the type is wider so that a ratio of 1 is exact.
    threshold: u128,
}

impl Spans {
    /// Whether to sample a call for which the caller's `traceparent` does not decide. `random` is uniform.
    #[must_use]
    pub fn samples(&self, random: u64) -> bool {
        u128::from(random) < self.threshold
    }

    /// Never waits: a full queue drops the span.
    pub fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counts.dropped_queue_full.fetch_add(1, Relaxed);
        }
    }
}

/// `ratio` is from 0 to 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped before, and 2^64 times a ratio fits
fn threshold(ratio: f64) -> u128 {
    (ratio.clamp(0.0, 1.0) * 18_446_744_073_709_551_616.0) as u128
}

pub struct Exporter {
    pub spans: Spans,
    stop: watch::Sender<Option<Duration>>,
    thread: JoinHandle<()>,
}

impl Exporter {
    /// # Errors
    /// When the address is invalid or the thread cannot be started. An absent collector is not an error.
    pub fn start(endpoint: &str, sample_ratio: f64, tls: Box<TlsConfigSource>) -> Result<Self, StartError> {
        let collector = Collector::new(endpoint, tls)?;
        let (sender, queue) = mpsc::channel(QUEUE_SPANS_MAX);
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = watch::channel(None);
        let sending = Sending { collector, queue, counts: counts.clone(), failing: false };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let body = move || runtime.block_on(until_stopped(sending, stopped));
        let thread = std::thread::Builder::new().name("telemetry".into()).spawn(body)?;
        Ok(Self { spans: Spans { queue: sender, counts, threshold: threshold(sample_ratio) }, stop, thread })
    }

    /// Sends the queued spans, for at most `grace_period`, and ends the thread.
    pub fn stop(self, grace_period: Duration) {
        self.stop.send_replace(Some(grace_period));
        if self.thread.join().is_err() {
            tracing::error!("the telemetry thread panicked");
        }
    }
}

async fn until_stopped(mut sending: Sending, stopped: watch::Receiver<Option<Duration>>) {
    let mut stop = stopped.clone();
    let grace_period_over = async move {
        let grace_period = stop.wait_for(Option::is_some).await.ok().and_then(|period| *period);
        tokio::time::sleep(grace_period.unwrap_or_default()).await;
    };
    tokio::select! {
        () = sending.run(stopped) => {}
        () = grace_period_over => tracing::warn!("spans were lost because the collector did not accept them in time"),
    }
}

struct Sending {
    collector: Collector,
    queue: mpsc::Receiver<Span>,
    counts: Arc<Counts>,
    failing: bool,
}

impl Sending {
    async fn run(&mut self, mut stopped: watch::Receiver<Option<Duration>>) {
        let mut flushed = Instant::now();
        loop {
            let stopping = tokio::time::timeout(POLL_INTERVAL, stopped.wait_for(Option::is_some)).await.is_ok();
            if stopping || self.queue.len() >= BATCH_SPANS_MAX || flushed.elapsed() >= FLUSH_INTERVAL {
                self.flush().await;
                flushed = Instant::now();
            }
            if stopping {
                return;
            }
        }
    }

    /// Sends all queued spans, in batches. A failed batch is not retried: spans are diagnostics, not records.
    async fn flush(&mut self) {
        loop {
            let batch: Vec<Span> = std::iter::from_fn(|| self.queue.try_recv().ok()).take(BATCH_SPANS_MAX).collect();
            if batch.is_empty() {
                return;
            }
            let message = request(&batch).encode_to_vec();
            let sent = match tokio::time::timeout(SEND_TIMEOUT, self.collector.send(message)).await {
                Ok(sent) => sent.map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            self.count(batch.len() as u64, sent);
        }
    }

    /// Counts a batch, and logs once when the collector goes away and once when it is back.
    fn count(&mut self, spans: u64, sent: Result<(), String>) {
        let was_failing = std::mem::replace(&mut self.failing, sent.is_err());
        match sent {
            Ok(()) => {
                self.counts.exported.fetch_add(spans, Relaxed);
                if was_failing {
                    tracing::info!("spans are exported again");
                }
            }
            Err(reason) => {
                self.counts.dropped_send_failed.fetch_add(spans, Relaxed);
                if !was_failing {
                    tracing::warn!("spans are not exported: {reason}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> Span {
        Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_id: None,
            started_unix_us: 0,
            took: Duration::ZERO,
            operation: crate::names::CHAT,
            model: None,
            request_id: "".into(),
            outcome: "completed",
            http_status: 200,
            tokens: None,
            error: None,
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, _unread) = mpsc::channel(1);
        let spans = Spans { queue, counts: Arc::default(), threshold: 0 };
        (0..3).for_each(|_| spans.record(span()));
        assert_eq!(spans.counts.dropped_queue_full.load(Relaxed), 2);
    }

    #[test]
    fn ratios_become_thresholds() {
        let samples = |ratio, random| u128::from(random) < threshold(ratio);
        assert!(!samples(0.0, 0_u64) && samples(1.0, u64::MAX));
        assert!(samples(0.01, u64::MAX / 101) && !samples(0.01, u64::MAX / 99));
    }
}
