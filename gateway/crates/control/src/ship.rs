//! Ships usage until it is acknowledged.

use crate::channel::{Backoff, Shipping, told as why};
use crate::codec::Encoded;
use crate::thread::World;
use http::uri::PathAndQuery;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tenon_contract::UsageAck;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const METHOD: &str = "/tenon.gateway.v1.GatewayControl/ShipUsage";
const RECORDS_A_BATCH: usize = 500;
const BATCHES_IN_FLIGHT: usize = 16;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// No acknowledgement for this long while some are due: try another connection.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn ship_for_ever(world: Rc<World>, client: Shipping) {
    let mut backoff = Backoff::default();
    loop {
        let reason = ship(&world, client.clone(), &mut backoff).await;
        if world.status.shipping.swap(false, Ordering::Relaxed) {
            tracing::warn!("usage is not being shipped: {reason}");
        }
        world.queue.borrow_mut().resend();
        backoff.pause().await;
    }
}

/// Until the connection breaks. Batches go up before the answer's head has come down: some servers send it with the first acknowledgement.
async fn ship(world: &World, mut client: Shipping, backoff: &mut Backoff) -> String {
    let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
    let mut call = pin!(async move {
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        client.streaming(Request::new(ReceiverStream::new(receiver)), PathAndQuery::from_static(METHOD), Encoded).await
    });
    let mut acknowledgements: Option<Streaming<UsageAck>> = None;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Instant::now();
    loop {
        tokio::select! {
            answer = &mut call, if acknowledgements.is_none() => match Result::<Response<_>, Status>::map(answer, Response::into_inner) {
                Ok(stream) => acknowledgements = Some(stream),
                Err(status) => return why(&status),
            },
            told = next(&mut acknowledgements) => match told {
                Ok(Some(ack)) => {
                    progress = Instant::now();
                    backoff.succeeded();
                    acknowledged(world, &ack);
                    pump(world, &sender);
                }
                Ok(None) => return "the stream was ended".to_owned(),
                Err(status) => return why(&status),
            },
            _ = look.tick() => {
                pump(world, &sender);
                let due = world.queue.borrow().in_flight() > 0;
                if !due { progress = Instant::now(); }
                if progress.elapsed() > PATIENCE { return "no acknowledgement in time".to_owned(); }
            }
        }
    }
}

async fn next(stream: &mut Option<Streaming<UsageAck>>) -> Result<Option<UsageAck>, Status> {
    match stream {
        Some(stream) => stream.message().await,
        None => std::future::pending().await,
    }
}

fn acknowledged(world: &World, ack: &UsageAck) {
    world.status.shipping.store(true, Ordering::Relaxed);
    if ack.quarantined > 0 {
        tracing::warn!(batch_id = %ack.batch_id, quarantined = ack.quarantined, "usage records were put aside: this clock or theirs is wrong");
    }
    world.queue.borrow_mut().acknowledge(&ack.batch_id);
}

fn pump(world: &World, sender: &mpsc::Sender<Vec<u8>>) {
    let mut queue = world.queue.borrow_mut();
    while queue.in_flight() < BATCHES_IN_FLIGHT && sender.capacity() > 0 {
        let Some(batch) = queue.next_batch(RECORDS_A_BATCH) else {
            return;
        };
        if sender.try_send(batch.message).is_err() {
            return; // closed: the caller sees the broken connection and sends all of it again
        }
    }
}
