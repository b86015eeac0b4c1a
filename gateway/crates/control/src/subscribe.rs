//! The ordered stream of updates.

use crate::channel::{Backoff, Client, told as why};
use crate::thread::World;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tenon_contract::{SubscribeRequest, update::Change};
use tenon_snapshot::{KeyId, Rejection, unix_ms};
use tonic::{Code, Status};

/// Heartbeats come every 5 s; without any for this long, the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);

pub(crate) async fn subscribe_for_ever(world: Rc<World>, client: Client, gateway_id: String) {
    let mut backoff = Backoff::default();
    loop {
        if let Err(reason) = follow(&world, client.clone(), &gateway_id, &mut backoff).await {
            let was_connected = world.status.connected.swap(false, Ordering::Relaxed);
            // Told each time it is lost or another reason keeps it away, not with every attempt.
            if world.status.lost(&reason) || was_connected {
                tracing::warn!("no updates from the control plane: {reason}");
            }
        }
        backoff.pause().await;
    }
}

async fn follow(world: &World, mut client: Client, gateway_id: &str, backoff: &mut Backoff) -> Result<(), String> {
    let held = world.store.borrow().current();
    let request = SubscribeRequest { gateway_id: gateway_id.to_owned(), known_revision: held.revision, snapshot_origin: held.origin.to_string() };
    drop(held);
    let subscribed = tokio::time::timeout(SILENCE_MAX, client.subscribe(request)).await;
    let mut updates = subscribed.map_err(|_| "no answer in time")?.map_err(|status| why(&status))?.into_inner();
    loop {
        let update = tokio::time::timeout(SILENCE_MAX, updates.message()).await;
        let update = update.map_err(|_| "no heartbeat in time")?.map_err(|status| unheard(world, &status))?.ok_or("the stream was ended")?;
        world.freshness.heard();
        if !world.status.connected.swap(true, Ordering::Relaxed) {
            backoff.succeeded();
            world.status.found();
            tracing::info!(revision = update.revision, "connected to the control plane");
        }
        match &update.change {
            Some(Change::Key(key)) => {
                let id = KeyId::try_from(key.key_id.as_bytes()).ok();
                world.desk.negative.borrow_mut().forget(id.as_ref());
            }
            Some(Change::Snapshot(_)) => world.desk.negative.borrow_mut().forget(None),
            _ => {}
        }
        let committed_at = update.committed_at_unix_ms;
        world.apply(update);
        if committed_at != 0 {
            world.status.delays.observe(committed_at, unix_ms());
        }
    }
}

/// Counts what came and cannot be read.
fn unheard(world: &World, status: &Status) -> String {
    if is_unreadable(status) {
        world.status.heard.rejects(Rejection::Unreadable, 1);
    }
    why(status)
}

/// This side's own words for it; a connection that breaks off has the same code.
fn is_unreadable(status: &Status) -> bool {
    match status.code() {
        Code::OutOfRange => true,
        Code::Internal => status.message().starts_with("failed to decode Protobuf message"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_message_that_cannot_be_read_is_told_from_a_broken_connection() {
        let error = tenon_contract::Update::decode(&b"\x0a\xff"[..]).unwrap_err();
        assert!(is_unreadable(&Status::internal(error.to_string())), "{error}");
        assert!(is_unreadable(&Status::out_of_range("decoded message length too large")));
        assert!(!is_unreadable(&Status::internal("Unexpected EOF decoding stream.")));
        assert!(!is_unreadable(&Status::unavailable("")));
    }
}
