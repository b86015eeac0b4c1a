//! Ships usage records to the control plane until they are acknowledged.

use crate::backoff::Backoff;
use crate::channel::{UsageClient, describe};
use crate::status::ControlStatus;
use crate::usage_codec::UsageCodec;
use http::uri::PathAndQuery;
use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tenon_contract::UsageAck;
use tenon_usage::Shipper;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};

const METHOD: &str = "/tenon.gateway.v1.GatewayControl/ShipUsage";
const RECORDS_PER_BATCH: usize = 500;
const BATCHES_IN_FLIGHT_MAX: usize = 16;
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// When no acknowledgement comes for this long while some are due, another connection is tried.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct UsageStream {
    pub shipper: Rc<RefCell<Shipper>>,
    pub status: Arc<ControlStatus>,
}

impl UsageStream {
    pub async fn run(self, client: UsageClient) {
        let mut backoff = Backoff::default();
        loop {
            let reason = self.ship(client.clone(), &mut backoff).await;
            if self.status.shipping.swap(false, Ordering::Relaxed) {
                tracing::warn!("usage is not being shipped: {reason}");
            }
            self.shipper.borrow_mut().resend();
            backoff.pause().await;
        }
    }

    /// Runs until the connection breaks, and returns why. Batches are sent before the response's headers have come,
    /// because some servers send those with the first acknowledgement.
    async fn ship(&self, mut client: UsageClient, backoff: &mut Backoff) -> String {
        let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT_MAX);
        let mut call = pin!(async move {
            client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            client.streaming(Request::new(ReceiverStream::new(receiver)), PathAndQuery::from_static(METHOD), UsageCodec).await
        });
        let mut acknowledgements: Option<Streaming<UsageAck>> = None;
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = Instant::now();
        loop {
            tokio::select! {
                response = &mut call, if acknowledgements.is_none() => match Result::<Response<_>, tonic::Status>::map(response, Response::into_inner) {
                    Ok(stream) => acknowledgements = Some(stream),
                    Err(status) => return describe(&status),
                },
                message = next(&mut acknowledgements) => match message {
                    Ok(Some(ack)) => {
                        progress = Instant::now();
                        backoff.reset();
                        self.acknowledge(&ack);
                        self.send_batches(&sender);
                    }
                    Ok(None) => return "the server ended the stream".to_owned(),
                    Err(status) => return describe(&status),
                },
                _ = poll.tick() => {
                    self.send_batches(&sender);
                    let is_due = self.shipper.borrow().in_flight() > 0;
                    if !is_due { progress = Instant::now(); }
                    if progress.elapsed() > ACK_TIMEOUT { return "no acknowledgement in time".to_owned(); }
                }
            }
        }
    }

    fn acknowledge(&self, ack: &UsageAck) {
        self.status.shipping.store(true, Ordering::Relaxed);
        if ack.quarantined > 0 {
            let (batch_id, quarantined) = (&ack.batch_id, ack.quarantined);
            tracing::warn!(%batch_id, quarantined, "the control plane quarantined usage records: its clock or this one is wrong");
        }
        self.shipper.borrow_mut().acknowledge(&ack.batch_id);
    }

    fn send_batches(&self, sender: &mpsc::Sender<Vec<u8>>) {
        let mut shipper = self.shipper.borrow_mut();
        while shipper.in_flight() < BATCHES_IN_FLIGHT_MAX && sender.capacity() > 0 {
            let Some(batch) = shipper.next_batch(RECORDS_PER_BATCH) else {
                return;
            };
            if sender.try_send(batch.message).is_err() {
                return; // closed: the caller sees the broken connection and sends all of it again
            }
        }
    }
}

async fn next(stream: &mut Option<Streaming<UsageAck>>) -> Result<Option<UsageAck>, tonic::Status> {
    match stream {
        Some(stream) => stream.message().await,
        None => std::future::pending().await,
    }
}
