//! Keeps the last known good copy on disk near what is served.

use crate::channel::Backoff;
use crate::thread::World;
use std::rc::Rc;
use std::time::Duration;
use tenon_snapshot::LastKnownGood;

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without changes the file is still written, so that it tells when the control plane was last heard.
const HEARD_EVERY_MS: i64 = 60_000;

pub(crate) async fn save_for_ever(world: Rc<World>, disk: LastKnownGood) {
    let mut saved_heard = world.freshness.heard_unix_ms();
    let mut backoff = Backoff::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let heard = world.freshness.heard_unix_ms();
        if world.dirty.take() || heard - saved_heard > HEARD_EVERY_MS {
            saved_heard = heard;
            match save(&world, &disk).await {
                true => backoff.succeeded(),
                false => backoff.pause().await, // a full disk is not told of five times a second
            }
        }
    }
}

/// Encoded here, where the records are; written on a thread that may wait for the disk. Whether the disk took it.
pub(crate) async fn save(world: &World, disk: &LastKnownGood) -> bool {
    let snapshot = world.store.borrow().current();
    if !snapshot.is_known() {
        return true;
    }
    let file = disk.encode(&snapshot, world.freshness.heard_unix_ms());
    let disk = disk.clone();
    let written = tokio::task::spawn_blocking(move || disk.write(&file)).await;
    if let Ok(Err(error)) = written {
        tracing::error!("the last known good copy could not be written: {error}");
        world.dirty.set(true);
        return false;
    }
    true
}
