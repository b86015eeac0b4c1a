//! In whatever order records, snapshots and late responses arrive: once a tombstone was applied, the key stays revoked.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tenon_contract::{Endpoint, Issuer, KeyRecord, ResolveKeyResponse, RoutingTable, Snapshot, Update, update::Change};
use tenon_snapshot::{Applied, REJECTIONS, SealingKey, SharedSnapshot, Store};

const ID: &str = "abcdefghij";

fn store() -> (SharedSnapshot, Store) {
    let shared = SharedSnapshot::default();
    let sealing = Arc::new(SealingKey::new(&[1; 32]).unwrap());
    (shared.clone(), Store::new(shared, sealing))
}

fn record(revision: u64, revoked: bool) -> KeyRecord {
    KeyRecord { key_id: ID.into(), secret_sha256: vec![1; 32], revision, revoked, may_call_models: true, ..Default::default() }
}

fn key_update(revision: u64, revoked: bool) -> Update {
    Update { revision, change: Some(Change::Key(record(revision, revoked))), ..Default::default() }
}

fn full(origin: &str, revision: u64, keys: Vec<KeyRecord>) -> Update {
    Update { revision, change: Some(Change::Snapshot(Snapshot { origin: origin.into(), keys, ..Default::default() })), ..Default::default() }
}

fn response(revision: u64, key: KeyRecord) -> ResolveKeyResponse {
    ResolveKeyResponse { exists: true, key: Some(key), revision }
}

fn lives(shared: &SharedSnapshot) -> bool {
    shared.load().key(b"abcdefghij").is_some_and(|key| !key.record.revoked)
}

#[derive(Clone, Debug)]
enum Arrival {
    Record(u64),
    Response { read_at: u64, requested_now: bool },
    Full { at: u64, with_tombstones: bool },
}

fn arrival() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        (1_u64..20).prop_map(Arrival::Record),
        ((1_u64..20), any::<bool>()).prop_map(|(read_at, requested_now)| Arrival::Response { read_at, requested_now }),
        ((1_u64..20), any::<bool>()).prop_map(|(at, with_tombstones)| Arrival::Full { at, with_tombstones }),
    ]
}

proptest! {
    /// History: the key is changed at each revision below `death` and revoked there. Anything the control plane may say
    /// about it, in any order.
    #[test]
    fn no_order_of_arrival_revives_a_revoked_key(death in 2_u64..19, arrivals in prop::collection::vec(arrival(), 1..40)) {
        let (shared, mut store) = store();
        store.apply(full("o", 1, vec![record(1, false)]));
        let first_epoch = store.epoch();
        let at = |revision: u64| record(revision.min(death), revision >= death);
        let mut known_revoked = false;
        for arrival in arrivals {
            match arrival {
                Arrival::Record(revision) => {
                    store.apply(Update { revision, change: Some(Change::Key(at(revision))), ..Default::default() });
                    known_revoked |= revision >= death;
                }
                Arrival::Response { read_at, requested_now } => {
                    let epoch = if requested_now { store.epoch() } else { first_epoch };
                    if store.apply_resolved(response(read_at, at(read_at)), epoch) == Applied::Changed {
                        known_revoked |= read_at >= death;
                    }
                }
                Arrival::Full { at: revision, with_tombstones } => {
                    let keys = if revision >= death && !with_tombstones { vec![] } else { vec![at(revision)] };
                    if store.apply(full("o", revision, keys)) == Applied::Changed {
                        known_revoked |= revision >= death;
                    }
                }
            }
            prop_assert!(!(known_revoked && lives(&shared)));
        }
    }
}

#[test]
fn a_late_response_is_refused_after_the_tombstone() {
    let (shared, mut store) = store();
    store.apply(full("o", 1, vec![]));
    let epoch = store.epoch();
    store.apply(key_update(5, true));
    assert_eq!(store.apply_resolved(response(4, record(4, false)), epoch), Applied::Ignored);
    assert!(!lives(&shared));
}

#[test]
fn a_snapshot_that_leaves_the_tombstone_out_still_refuses_the_late_response() {
    let (shared, mut store) = store();
    store.apply(full("o", 1, vec![]));
    store.apply(full("o", 9, vec![]));
    assert_eq!(store.apply_resolved(response(4, record(4, false)), store.epoch()), Applied::Ignored);
    assert!(!lives(&shared));
}

#[test]
fn a_new_key_that_was_resolved_is_kept() {
    let (shared, mut store) = store();
    store.apply(full("o", 1, vec![]));
    assert_eq!(store.apply_resolved(response(4, record(4, false)), store.epoch()), Applied::Changed);
    store.apply(full("o", 3, vec![]));
    assert!(lives(&shared), "resolved at 4, so a snapshot of 3 does not know it yet");
}

#[test]
fn another_origin_replaces_everything_and_an_older_snapshot_nothing() {
    let (shared, mut store) = store();
    store.apply(full("o", 9, vec![record(3, false)]));
    assert_eq!(store.apply(full("o", 8, vec![])), Applied::Rejected);
    assert!(lives(&shared));
    store.apply(full("p", 2, vec![]));
    assert!(!lives(&shared) && shared.load().revision == 2);
}

#[test]
fn an_invalid_record_revokes_the_key_instead_of_leaving_the_old_one() {
    let (shared, mut store) = store();
    store.apply(full("o", 1, vec![record(1, false)]));
    store.apply(Update { revision: 2, change: Some(Change::Key(KeyRecord { secret_sha256: vec![], ..record(2, false) })), ..Default::default() });
    assert!(!lives(&shared));
}

fn rejected(store: &Store) -> Vec<(&'static str, u64)> {
    let stats = store.sync_stats();
    let counts = REJECTIONS.iter().zip(&stats.rejected).map(|(reason, count)| (*reason, count.load(Relaxed)));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn rejected_parts_are_counted_by_reason() {
    let (shared, mut store) = store();
    store.apply(full("o", 5, vec![record(1, false)]));
    assert!(rejected(&store).is_empty());
    store.apply(full("o", 4, vec![]));
    assert_eq!(rejected(&store), [("older", 1)]);
    assert!(store.sync_stats().is_refusing.load(Relaxed));
    store.apply(full("o", 6, vec![record(1, false)]));
    assert!(!store.sync_stats().is_refusing.load(Relaxed), "a valid one ends the refusal");
    let change = |revision, change| Update { revision, change, ..Default::default() };
    store.apply(change(7, None));
    let short = KeyRecord { secret_sha256: vec![1], ..record(8, false) };
    store.apply(change(8, Some(Change::Key(short))));
    assert!(!lives(&shared), "an invalid record leaves no older one in force");
    let endpoint = Endpoint { endpoint_id: "e".into(), base_url: "ftp://nowhere".into(), ..Default::default() };
    let table = RoutingTable { tenant_id: "t".into(), revision: 9, endpoints: vec![endpoint], ..Default::default() };
    store.apply(change(9, Some(Change::Routing(table))));
    let issuer = Issuer { issuer_id: "i".into(), revision: 10, algorithm: "none".into(), ..Default::default() };
    store.apply(change(10, Some(Change::Issuer(issuer))));
    assert_eq!(rejected(&store), [("older", 1), ("unknown", 1), ("key", 1), ("endpoint", 1), ("issuer", 1)]);
    assert_eq!((store.sync_stats().revision.load(Relaxed), shared.load().revision), (10, 10));
}
