//! What calls used of leases on hard budgets, from the log to the wire, and which earlier processes have shipped everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{open_call, open_using, options, records, settled};
use tenon_usage::{LeaseUse, Log, Outcome, UsageSource};

const USES: [LeaseUse<'static>; 2] = [LeaseUse { lease_id: "lease-a", nano: 500 }, LeaseUse { lease_id: "lease-b", nano: 7 }];

fn uses(record: &tenon_contract::UsageRecord) -> Vec<(&str, i64)> {
    record.lease_uses.iter().map(|used| (used.lease_id.as_str(), used.nano)).collect()
}

#[test]
fn a_settled_call_ships_its_charges_and_one_left_open_what_was_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (done, ticket) = open_using(&lane, &USES).unwrap();
    let (left_open, left) = open_using(&lane, &USES).unwrap();
    let (plain, without) = open_call(&lane).unwrap();
    lane.settle_charged(ticket, &settled(), &[123, 0]);
    lane.settle(without, &settled());
    let batch = records(&shipper.next_batch(10).unwrap());
    let find = |id: tenon_usage::RecordId, batch: &[tenon_contract::UsageRecord]| batch.iter().find(|r| r.record_id == id.0).cloned().unwrap();
    let record = find(done, &batch);
    assert_eq!((uses(&record), record.price_id.as_str()), (vec![("lease-a", 123), ("lease-b", 0)], "price-1"));
    assert_eq!((record.audio_tokens, record.images, record.input_tokens), (8, 9, 1));
    assert_eq!(record.process_id, &*log.process_id().text());
    let record = find(plain, &batch);
    assert_eq!((uses(&record), record.price_id.as_str(), record.usage_source()), (vec![], "", UsageSource::Engine));
    // As after kill -9: nothing is settled, nothing closed.
    let earlier = log.process_id();
    let _running = left;
    drop((shipper, lane));
    log.stop();
    drop(log);
    let (log, mut shipper) = support::restart(dir.path());
    assert!(shipper.take_shipped_processes().is_empty(), "its records are not acknowledged");
    let batch = shipper.next_batch(10).unwrap();
    let record = find(left_open, &records(&batch));
    assert_eq!(
        (uses(&record), record.outcome(), record.usage_source()),
        (vec![("lease-a", 500), ("lease-b", 7)], Outcome::Unknown, UsageSource::Reserved)
    );
    assert_eq!(record.process_id, &*earlier.text());
    shipper.acknowledge(&batch.id);
    assert_eq!(shipper.take_shipped_processes(), [earlier]);
    assert!(shipper.take_shipped_processes().is_empty(), "reported once");
    assert_ne!(log.process_id(), earlier);
    // This process died too before it was reported, so the next one reports both.
    let second = log.process_id();
    drop(shipper);
    log.stop();
    drop(log);
    let (log, mut shipper) = support::restart(dir.path());
    while let Some(batch) = shipper.next_batch(10) {
        shipper.acknowledge(&batch.id);
    }
    let mut reported = shipper.take_shipped_processes();
    reported.sort_by_key(|id| id.0);
    let mut both = [earlier, second];
    both.sort_by_key(|id| id.0);
    assert_eq!(reported, both);
    reported.iter().for_each(|id| shipper.forget_process(&id.text()));
    let third = log.process_id();
    drop(shipper);
    log.stop();
    drop(log);
    let (_log, mut shipper) = support::restart(dir.path());
    while let Some(batch) = shipper.next_batch(10) {
        shipper.acknowledge(&batch.id);
    }
    assert_eq!(shipper.take_shipped_processes(), [third]);
}

#[test]
fn as_many_leases_as_a_call_may_use_fit_into_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let long = "l".repeat(64);
    let uses: Vec<_> = (0..16).map(|n| LeaseUse { lease_id: &long, nano: i64::MAX - n }).collect();
    for _ in 0..200 {
        let Ok((_, ticket)) = open_using(&lane, &uses) else {
            // The next segment is not created yet.
            std::thread::sleep(std::time::Duration::from_millis(1));
            continue;
        };
        lane.settle_charged(ticket, &settled(), &[i64::MAX; 16]);
        while let Some(batch) = shipper.next_batch(100) {
            for record in records(&batch) {
                assert_eq!(record.lease_uses.len(), 16);
                assert!(record.lease_uses.iter().all(|used| used.nano == i64::MAX && used.lease_id == long));
            }
            shipper.acknowledge(&batch.id);
        }
    }
}
