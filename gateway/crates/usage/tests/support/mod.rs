//! Helpers: one call, one lane, one shipper.
#![allow(dead_code, clippy::disallowed_methods)]

use prost::Message;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tenon_usage::{
    Disk, Lane, LeaseUse, Log, LogFull, LogOptions, OpenRecord, Operation, Outcome, RecordId, SettleRecord, Shipper, Ticket, UsageSource,
};

pub fn options(root: &Path) -> LogOptions {
    LogOptions {
        root: root.join("wal"),
        gateway_id: "gw-1".into(),
        lanes: 1,
        segment_bytes: 16 << 10,
        bytes_max: 256 << 10,
        sync_every: Duration::from_millis(5),
        mark_after: Duration::ZERO,
        disk: Disk::default(),
    }
}

pub fn open_call(lane: &Lane) -> Result<(RecordId, Ticket), LogFull> {
    open_using(lane, &[])
}

pub fn open_using(lane: &Lane, uses: &[LeaseUse<'_>]) -> Result<(RecordId, Ticket), LogFull> {
    let parties = ["tenant", "project", "principal", "key", "session"].map(Into::into);
    let id = RecordId::mint(1);
    let opened = OpenRecord {
        id,
        trace_id: [0xab; 16],
        started_unix_us: 77,
        operation: Operation::Chat,
        streamed: true,
        attempt: 1,
        parties: &parties,
        endpoint_id: "endpoint",
        model: "model",
        upstream_model: "",
        price_id: if uses.is_empty() { "" } else { "price-1" },
        uses,
    };
    lane.open(&opened).map(|ticket| (id, ticket))
}

pub fn settled() -> SettleRecord {
    SettleRecord {
        outcome: Outcome::Completed,
        source: UsageSource::Engine,
        http_status: 200,
        input: 1,
        output: 2,
        cache_read: 3,
        cache_write: 4,
        reasoning: 5,
        audio: 8,
        images: 9,
        first_token_us: 6,
        duration_us: 7,
    }
}

/// Decoded with the generated type, which proves that the hand-written encoding follows the contract.
pub fn records(batch: &tenon_usage::Batch) -> Vec<tenon_contract::UsageRecord> {
    let message = tenon_contract::UsageBatch::decode(&batch.message[..]).unwrap();
    assert_eq!(message.batch_id, batch.id);
    message.records
}

pub fn ship(shipper: &mut Shipper) -> Vec<tenon_contract::UsageRecord> {
    let mut all = Vec::new();
    while let Some(batch) = shipper.next_batch(50) {
        shipper.acknowledge(&batch.id);
        all.extend(records(&batch));
    }
    all
}

pub fn files(log: &Arc<Log>) -> u64 {
    log.stats.segments.load(std::sync::atomic::Ordering::Relaxed)
}

/// The log's threads hold it too; the last of them releases the lock.
pub fn unlock(mut log: Arc<Log>) {
    while let Err(shared) = Arc::try_unwrap(log) {
        log = shared;
        std::thread::yield_now();
    }
}

/// Starts the log again, once the one before has released its directory.
pub fn restart(root: &Path) -> (Arc<Log>, Shipper) {
    let held = root.join("wal/0/lock");
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while std::fs::File::open(&held).unwrap().try_lock().is_err() {
        assert!(std::time::Instant::now() < deadline, "the directory is still held");
        std::thread::sleep(Duration::from_millis(2));
    }
    Log::start(options(root)).unwrap()
}

pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(std::time::Instant::now() < deadline, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
