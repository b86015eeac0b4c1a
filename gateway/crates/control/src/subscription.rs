//! Receives the ordered stream of updates and applies it to the snapshot.

use crate::backoff::Backoff;
use crate::channel::{Client, describe};
use crate::snapshot_writer::SnapshotWriter;
use crate::status::ControlStatus;
use crate::unknown_keys::UnknownKeys;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tenon_contract::{SubscribeRequest, Update, update::Change};
use tenon_snapshot::{KeyId, Rejection, unix_ms};
use tonic::Code;

/// Heartbeats come every 5 s. Without one for this long, the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);

pub(crate) struct Subscription {
    pub writer: Rc<SnapshotWriter>,
    pub unknown_keys: Rc<RefCell<UnknownKeys>>,
    pub status: Arc<ControlStatus>,
    pub gateway_id: String,
}

impl Subscription {
    pub async fn run(self, client: Client) {
        let mut backoff = Backoff::default();
        loop {
            if let Err(reason) = self.follow(client.clone(), &mut backoff).await {
                let was_connected = self.status.connected.swap(false, Ordering::Relaxed);
                // Logged when the connection is lost or the reason changes, not with every attempt.
                if self.status.set_connection_error(&reason) || was_connected {
                    tracing::warn!("no updates from the control plane: {reason}");
                }
            }
            backoff.pause().await;
        }
    }

    async fn follow(&self, mut client: Client, backoff: &mut Backoff) -> Result<(), String> {
        let held = self.writer.current();
        let request =
            SubscribeRequest { gateway_id: self.gateway_id.clone(), known_revision: held.revision, snapshot_origin: held.origin.to_string() };
        drop(held);
        let subscribed = tokio::time::timeout(SILENCE_MAX, client.subscribe(request)).await;
        let mut updates = subscribed.map_err(|_| "no response in time")?.map_err(|status| describe(&status))?.into_inner();
        loop {
            let update = tokio::time::timeout(SILENCE_MAX, updates.message()).await;
            let update = update.map_err(|_| "no heartbeat in time")?.map_err(|status| self.count_unreadable(&status))?;
            let update = update.ok_or("the server ended the stream")?;
            self.writer.freshness.record_contact();
            if !self.status.connected.swap(true, Ordering::Relaxed) {
                backoff.reset();
                self.status.clear_connection_error();
                tracing::info!(revision = update.revision, "connected to the control plane");
            }
            self.apply(update);
        }
    }

    fn apply(&self, update: Update) {
        match &update.change {
            Some(Change::Key(key)) => {
                if let Ok(id) = KeyId::try_from(key.key_id.as_bytes()) {
                    self.unknown_keys.borrow_mut().remove(&id);
                }
            }
            Some(Change::Snapshot(_)) => self.unknown_keys.borrow_mut().clear(),
            _ => {}
        }
        let committed_at = update.committed_at_unix_ms;
        self.writer.apply(update);
        if committed_at != 0 {
            self.status.delays.observe(committed_at, unix_ms());
        }
    }

    fn count_unreadable(&self, status: &tonic::Status) -> String {
        if is_unreadable(status) {
            self.status.sync_stats.count_rejected(Rejection::Unreadable, 1);
        }
        describe(status)
    }
}

/// Recognised by the text of this side's own library: a connection that breaks off has the same code.
fn is_unreadable(status: &tonic::Status) -> bool {
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
    fn an_unreadable_message_is_distinguished_from_a_broken_connection() {
        let error = Update::decode(&b"\x0a\xff"[..]).unwrap_err();
        assert!(is_unreadable(&tonic::Status::internal(error.to_string())), "{error}");
        assert!(is_unreadable(&tonic::Status::out_of_range("decoded message length too large")));
        assert!(!is_unreadable(&tonic::Status::internal("Unexpected EOF decoding stream.")));
        assert!(!is_unreadable(&tonic::Status::unavailable("")));
    }
}
