//! Whatever arrives first (table, key or routing): a key and a model hold the rules that apply now, and counters
//! outlive every table.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use tenon_contract::{Governance, KeyRecord, Limit, Model, RoutingTable, Snapshot, Subject, Update, update::Change};
use tenon_limits::{AdmissionRequest, ApplicableRules, LimitRegistry, Output};
use tenon_snapshot::{SealingKey, SharedSnapshot, Store};

const ID: &[u8; 10] = b"abcdefghij";

fn change(revision: u64, change: Change) -> Update {
    Update { revision, change: Some(change), ..Default::default() }
}

fn key(revision: u64) -> Change {
    Change::Key(KeyRecord { key_id: "abcdefghij".into(), secret_sha256: vec![1; 32], revision, tenant_id: "t".into(), ..Default::default() })
}

fn routing(revision: u64) -> Change {
    let models = vec![Model { name: "m".into(), ..Model::default() }];
    Change::Routing(RoutingTable { tenant_id: "t".into(), revision, models, ..Default::default() })
}

fn governance(revision: u64, requests_per_minute: u64) -> Governance {
    let limit = |id: &str, subject: Subject, subject_id: &str| Limit {
        limit_id: id.into(),
        subject: subject as i32,
        subject_id: subject_id.into(),
        requests_per_minute,
        ..Limit::default()
    };
    let limits = vec![limit("of-tenant", Subject::Tenant, "t"), limit("of-model", Subject::Model, "m")];
    Governance { tenant_id: "t".into(), revision, limits, ..Governance::default() }
}

fn store() -> (SharedSnapshot, Store, Arc<LimitRegistry>) {
    let (shared, registry) = (SharedSnapshot::default(), Arc::<LimitRegistry>::default());
    let sealing = Arc::new(SealingKey::new(&[1; 32]).unwrap());
    (shared.clone(), Store::new(shared, sealing).with_limits(registry.clone()), registry)
}

fn applies(shared: &SharedSnapshot) -> ApplicableRules {
    let snapshot = shared.load();
    let model = snapshot.routing("t").and_then(|routing| routing.model("m").cloned());
    ApplicableRules { key: snapshot.key(ID).and_then(|key| key.rules.clone()), model: model.and_then(|model| model.rules.clone()) }
}

#[test]
fn every_order_of_arrival_ends_with_the_same_rules() {
    let parts = [|| key(1), || routing(1), || Change::Governance(governance(1, 10))];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (shared, mut store, _) = store();
        for (revision, part) in order.into_iter().enumerate() {
            store.apply(change(revision as u64 + 1, parts[part]()));
        }
        let rules = applies(&shared);
        assert!(rules.key.is_some() && rules.model.is_some(), "{order:?}");
    }
}

#[test]
fn counters_survive_replaced_tables_and_whole_snapshots() {
    let (shared, mut store, registry) = store();
    store.apply(change(1, key(1)));
    store.apply(change(2, routing(1)));
    store.apply(change(3, Change::Governance(governance(1, 8))));
    let request = AdmissionRequest {
        now_us: 0,
        unix_ms: 0,
        body_bytes: 1,
        output: Output::None,
        choices: 1,
        images: 0,
        is_text: true,
        is_endless: false,
        has_waited: false,
    };
    let take = || applies(&shared).admit(&registry, &request).map(|mut reservation| reservation.open()).is_ok();
    assert!(take() && take() && !take(), "a quarter of eight");
    store.apply(change(4, Change::Governance(governance(2, 12))));
    assert!(take() && !take(), "a quarter of twelve, two of which are used");
    let full = Snapshot {
        origin: "o".into(),
        keys: vec![if let Change::Key(key) = key(1) { key } else { KeyRecord::default() }],
        routing: vec![if let Change::Routing(table) = routing(1) { table } else { RoutingTable::default() }],
        governance: vec![governance(3, 12)],
        ..Snapshot::default()
    };
    store.apply(change(5, Change::Snapshot(full)));
    assert!(!take(), "nothing was forgotten");
    store.apply(change(6, Change::Governance(Governance { tenant_id: "t".into(), revision: 4, ..Governance::default() })));
    assert!(applies(&shared).key.is_none() && applies(&shared).model.is_none() && !registry.is_needed());
}
