//! Keeps the last known good copy on disk close to the snapshot that is served.

use crate::backoff::Backoff;
use crate::snapshot_writer::SnapshotWriter;
use std::rc::Rc;
use std::time::Duration;
use tenon_snapshot::LastKnownGood;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Without changes the file is still written, so that it records the last contact with the control plane.
const SAVE_INTERVAL_MS_MAX: i64 = 60_000;

pub(crate) async fn run_saving(writer: Rc<SnapshotWriter>, disk: LastKnownGood) {
    let mut saved_unix_ms = writer.freshness.last_contact_unix_ms();
    let mut backoff = Backoff::default();
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let last_contact_unix_ms = writer.freshness.last_contact_unix_ms();
        if writer.take_dirty() || last_contact_unix_ms - saved_unix_ms > SAVE_INTERVAL_MS_MAX {
            saved_unix_ms = last_contact_unix_ms;
            match save(&writer, &disk).await {
                true => backoff.reset(),
                false => backoff.pause().await, // so that a full disk is not logged five times a second
            }
        }
    }
}

/// Encodes here, where the records are, and writes on a thread that may wait for the disk. Returns whether the file was
/// written.
pub(crate) async fn save(writer: &SnapshotWriter, disk: &LastKnownGood) -> bool {
    let snapshot = writer.current();
    if !snapshot.is_known() {
        return true;
    }
    let file = disk.encode(&snapshot, writer.freshness.last_contact_unix_ms());
    let disk = disk.clone();
    let written = tokio::task::spawn_blocking(move || disk.write(&file)).await;
    if let Ok(Err(error)) = written {
        tracing::error!("the last known good copy could not be written: {error}");
        writer.set_dirty();
        return false;
    }
    true
}
