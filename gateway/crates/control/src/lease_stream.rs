//! The stream of leases and shares: usage and demand are sent at least once a second, and at once when a call waits for
//! a lease.

use crate::backoff::Backoff;
use crate::channel::{Client, describe};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenon_contract::{LeaseRequest, LeaseResponse};
use tenon_limits::{LeaseExchange, LimitRegistry};
use tenon_usage::Shipper;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two requests, however often more is requested.
const REQUEST_GAP_MIN: Duration = Duration::from_millis(10);
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Requests on their way or being answered; more would only wait at the other end.
const UNANSWERED_MAX: usize = 4;
/// When no response comes for this long, another connection is tried.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// For returning the leases of a process that stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What this process holds of limits and budgets, and what it has to say about them.
pub(crate) struct LeaseState {
    registry: Arc<LimitRegistry>,
    exchange: LeaseExchange,
    shipper: Rc<RefCell<Shipper>>,
}

impl LeaseState {
    pub fn new(registry: Arc<LimitRegistry>, shipper: Rc<RefCell<Shipper>>) -> Self {
        let process_id = shipper.borrow().process_id().text().to_string();
        let exchange = LeaseExchange::new(registry.clone(), process_id);
        Self { registry, exchange, shipper }
    }

    /// Whether there is anything to exchange with the control plane.
    fn is_needed(&mut self) -> bool {
        self.collect_shipped_processes();
        self.exchange.is_needed()
    }

    fn collect_shipped_processes(&mut self) {
        for process_id in self.shipper.borrow_mut().take_shipped_processes() {
            self.exchange.add_shipped_process(process_id.text().to_string());
        }
    }

    fn next_request(&mut self, now: Instant) -> LeaseRequest {
        self.collect_shipped_processes();
        self.exchange.next_request(self.registry.micros(now))
    }

    fn apply(&mut self, response: &LeaseResponse, now: Instant) {
        self.exchange.connected();
        for process_id in self.exchange.apply_response(response, self.registry.micros(now)) {
            self.shipper.borrow_mut().forget_process(&process_id);
        }
    }
}

/// Runs until `closing` fires, then returns what is held.
pub(crate) async fn run_leases(mut state: LeaseState, client: Client, mut closing: oneshot::Receiver<()>) {
    let registry = state.registry.clone();
    let mut backoff = Backoff::for_leases();
    let mut is_logged = false;
    loop {
        while !state.is_needed() {
            tokio::select! {
                _ = &mut closing => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = registry.lease_needed.notified() => {}
            }
        }
        let mut stream = LeaseStream::new(&mut state);
        let Err(reason) = stream.run(client.clone(), &mut closing, &mut backoff).await else {
            return;
        };
        is_logged = is_logged && !stream.has_received;
        state.exchange.disconnected();
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!("no leases and shares from the control plane: {reason}");
        }
        tokio::select! {
            _ = &mut closing => return,
            () = backoff.pause() => {}
        }
    }
}

type Responses = Streaming<LeaseResponse>;

/// One connection's exchange of requests and responses.
struct LeaseStream<'a> {
    state: &'a mut LeaseState,
    unanswered: usize,
    sent: Instant,
    received: Instant,
    has_received: bool,
}

impl<'a> LeaseStream<'a> {
    fn new(state: &'a mut LeaseState) -> Self {
        let now = Instant::now();
        Self { state, unanswered: 0, sent: now, received: now, has_received: false }
    }

    /// Ends with `Ok` when the process stops, and with the reason when the connection breaks.
    async fn run(&mut self, mut client: Client, closing: &mut oneshot::Receiver<()>, backoff: &mut Backoff) -> Result<(), String> {
        let (sender, receiver) = mpsc::channel(UNANSWERED_MAX * 2);
        self.state.exchange.start_connection();
        // Sent before the response's headers have come, because some servers send those with the first message.
        self.send_request(&sender);
        let mut call: Pin<Box<dyn Future<Output = Result<Response<Responses>, Status>>>> =
            Box::pin(async move { client.lease(Request::new(ReceiverStream::new(receiver))).await });
        let mut responses: Option<Responses> = None;
        loop {
            tokio::select! {
                begun = &mut call, if responses.is_none() => responses = Some(begun.map_err(|status| describe(&status))?.into_inner()),
                response = next(&mut responses) => {
                    let response = response.map_err(|status| describe(&status))?.ok_or("the server ended the stream")?;
                    backoff.reset();
                    self.receive(&response);
                }
                () = self.until_next_request() => self.send_request(&sender),
                _ = &mut *closing => {
                    let close = self.return_leases(&sender, &mut responses);
                    // What is not confirmed in time is known once the log has shipped.
                    let _unconfirmed = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
                    return Ok(());
                }
            }
            if self.unanswered > 0 && self.received.elapsed() > RESPONSE_TIMEOUT {
                return Err("no response in time".to_owned());
            }
        }
    }

    /// Once a second, or at once when a call needs more, as long as responses come.
    async fn until_next_request(&self) {
        let due = self.sent + REPORT_INTERVAL;
        if self.unanswered < UNANSWERED_MAX {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = async {
                    tokio::time::sleep_until((self.sent + REQUEST_GAP_MIN).into()).await;
                    self.state.registry.lease_needed.notified().await;
                } => {}
            }
        } else {
            tokio::time::sleep_until(due.into()).await;
        }
    }

    fn send_request(&mut self, sender: &mpsc::Sender<LeaseRequest>) {
        self.sent = Instant::now();
        if self.unanswered >= UNANSWERED_MAX {
            return;
        }
        if self.unanswered == 0 {
            self.received = self.sent;
        }
        let request = self.state.next_request(self.sent);
        self.unanswered += 1;
        // The channel has room for all unanswered requests; a closed one shows as the broken call.
        let _closed = sender.try_send(request);
    }

    fn receive(&mut self, response: &LeaseResponse) {
        self.received = Instant::now();
        self.has_received = true;
        self.unanswered = self.unanswered.saturating_sub(1);
        self.state.apply(response, self.received);
    }

    /// Returns what is held, and what responses on their way still grant.
    async fn return_leases(&mut self, sender: &mpsc::Sender<LeaseRequest>, responses: &mut Option<Responses>) {
        loop {
            let now_us = self.state.registry.micros(Instant::now());
            match self.state.exchange.closing_request(now_us) {
                Some(request) => {
                    self.unanswered += 1;
                    if sender.send(request).await.is_err() {
                        return;
                    }
                }
                None if self.unanswered == 0 => return,
                None => {}
            }
            while self.unanswered > 0 {
                let Ok(Some(response)) = next(responses).await else {
                    return;
                };
                self.receive(&response);
            }
        }
    }
}

async fn next(responses: &mut Option<Responses>) -> Result<Option<LeaseResponse>, Status> {
    match responses {
        Some(responses) => responses.message().await,
        None => std::future::pending().await,
    }
}
