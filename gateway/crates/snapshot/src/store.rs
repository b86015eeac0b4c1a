//! The one writer of the snapshot, on the control thread. Readers hold [`SharedSnapshot`].
//!
//! The rule of revisions: a record replaces another only if it is newer; at the same revision a tombstone wins. A
//! response of `ResolveKey` counts only if it was read at or after the last full snapshot of the same origin. That
//! snapshot may have left out the tombstone which would refuse it.

use crate::key::Key;
use crate::markings::Markings;
use crate::routing::{Compiler, Routing};
use crate::sealing::SealingKey;
use crate::snapshot::{Rules, SharedSnapshot, Snapshot, shard_of};
use crate::sync_stats::{Rejection, SyncStats};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tenon_contract::{self as wire, Governance, Issuer, KeyRecord, RoutingTable, update::Change};
use tenon_limits::{LimitRegistry, TenantRules};

/// The effect of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Changed,
    /// Older than what is held, or the same: nothing changed.
    Ignored,
    /// It is not valid: it is logged and skipped.
    Rejected,
}

pub struct Store {
    shared: SharedSnapshot,
    compiler: Compiler,
    /// Counters and leases, which outlive the tables.
    registry: Arc<LimitRegistry>,
    /// Revision of the last full snapshot.
    floor: u64,
    /// Grows with each full snapshot: a response requested before it does not count after it.
    epoch: u64,
    stats: Arc<SyncStats>,
}

impl Store {
    #[must_use]
    pub fn new(shared: SharedSnapshot, sealing: Arc<SealingKey>) -> Self {
        let (markings, pools) = (Markings::default(), std::collections::HashMap::new());
        let compiler = Compiler { sealing, markings, pools, registry: Arc::default() };
        Self { shared, compiler, registry: Arc::default(), floor: 0, epoch: 0, stats: Arc::default() }
    }

    /// Limits and budgets are counted in `registry`.
    #[must_use]
    pub fn with_limits(self, registry: Arc<LimitRegistry>) -> Self {
        Self { registry, ..self }
    }

    /// The number of calls that may wait for each server. Call it before anything is applied.
    #[must_use]
    pub fn with_queue_len_max(mut self, queue_len_max: usize) -> Self {
        self.compiler.registry = Arc::new(tenon_balance::EndpointRegistry::with_queues(queue_len_max));
        self
    }

    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.shared.load_full()
    }

    /// The state of endpoints at run time, to which the tables of this store refer.
    #[must_use]
    pub fn endpoint_registry(&self) -> Arc<tenon_balance::EndpointRegistry> {
        self.compiler.registry.clone()
    }

    /// Which updates were received, and which of them were rejected.
    #[must_use]
    pub fn sync_stats(&self) -> Arc<SyncStats> {
        self.stats.clone()
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Applies one message of the stream.
    pub fn apply(&mut self, update: wire::Update) -> Applied {
        self.stats.revision.fetch_max(update.revision, Relaxed);
        match update.change {
            Some(Change::Snapshot(full)) => self.apply_snapshot(full, update.revision),
            // The stream is ordered: a change older than the last full snapshot is part of it, or was undone by it.
            Some(_) if update.revision < self.floor => Applied::Ignored,
            Some(Change::Key(record)) => self.apply_key(record, update.revision),
            Some(Change::Routing(table)) => self.apply_routing(table, update.revision),
            Some(Change::Governance(governance)) => self.apply_governance(governance, update.revision),
            Some(Change::Issuer(issuer)) => self.apply_issuer(issuer, update.revision),
            Some(Change::Heartbeat(_)) => self.advance(update.revision),
            None => {
                tracing::error!(revision = update.revision, "a change of a type that this version does not know was left out");
                self.stats.count_rejected(Rejection::Unknown, 1);
                self.advance(update.revision)
            }
        }
    }

    /// Applies the response to a request that was sent in `epoch`.
    pub fn apply_resolved(&mut self, response: wire::ResolveKeyResponse, epoch: u64) -> Applied {
        match response.key {
            Some(record) if response.exists && response.revision >= self.floor && epoch == self.epoch => self.apply_key(record, 0),
            _ => Applied::Ignored,
        }
    }

    fn apply_snapshot(&mut self, full: wire::Snapshot, revision: u64) -> Applied {
        let old = self.current();
        if *old.origin == full.origin && revision < old.revision {
            tracing::error!(held = old.revision, received = revision, "a snapshot older than the one in force was refused");
            self.stats.count_rejected(Rejection::Older, 1);
            self.stats.is_refusing.store(true, Relaxed);
            return Applied::Rejected;
        }
        let mut new = Snapshot { origin: full.origin.as_str().into(), revision, ..Snapshot::default() };
        let rules = full.governance.iter().map(|g| (g.tenant_id.as_str().into(), Arc::new(TenantRules::compile(g, &self.registry))));
        new.rules = Arc::new(rules.collect());
        if new.origin == old.origin {
            // Keys and tombstones newer than this snapshot (resolved meanwhile) are kept.
            for key in old.keys().filter(|key| key.record.revision > revision) {
                let key = key_with_rules(key, &new.rules);
                insert(&mut new, key);
            }
        }
        for record in full.keys {
            if let Some(key) = self.compile_key(record, &new) {
                insert_if_newer(&mut new, key);
            }
        }
        let tables = full.routing.into_iter().map(|table| {
            let rules = new.rules(&table.tenant_id);
            let table = Arc::new(Routing::compile(table, &mut self.compiler).with_rules(rules));
            self.stats.count_rejected(Rejection::Endpoint, table.unusable());
            (table.table.tenant_id.as_str().into(), table)
        });
        let tables = tables.collect();
        new.tenants = Arc::new(tables);
        new.governance = Arc::new(full.governance.into_iter().map(|g| (g.tenant_id.as_str().into(), Arc::new(g))).collect());
        let trusted_issuers = Arc::make_mut(&mut new.trusted_issuers);
        for issuer in full.issuers {
            trusted_issuers.insert_if_newer(issuer);
        }
        self.stats.count_rejected(Rejection::Issuer, new.trusted_issuers.unreadable());
        self.stats.is_refusing.store(false, Relaxed);
        self.floor = revision;
        self.epoch += 1;
        self.shared.store(Arc::new(new));
        drop(old);
        self.registry.forget_unused();
        Applied::Changed
    }

    fn apply_key(&mut self, record: KeyRecord, revision: u64) -> Applied {
        let mut new = Snapshot::clone(&self.current());
        let Some(key) = self.compile_key(record, &new) else {
            return Applied::Rejected;
        };
        let changed = insert_if_newer(&mut new, key);
        new.revision = new.revision.max(revision);
        self.shared.store(Arc::new(new));
        if changed { Applied::Changed } else { Applied::Ignored }
    }

    fn apply_routing(&mut self, table: RoutingTable, revision: u64) -> Applied {
        let mut new = Snapshot::clone(&self.current());
        new.revision = new.revision.max(revision);
        let held = new.tenants.get(table.tenant_id.as_str()).map_or(0, |held| held.table.revision);
        if held > table.revision {
            self.shared.store(Arc::new(new));
            return Applied::Ignored;
        }
        let rules = new.rules(&table.tenant_id);
        let table = Routing::compile(table, &mut self.compiler).with_rules(rules);
        self.stats.count_rejected(Rejection::Endpoint, table.unusable());
        Arc::make_mut(&mut new.tenants).insert(table.table.tenant_id.as_str().into(), Arc::new(table));
        self.shared.store(Arc::new(new));
        Applied::Changed
    }

    fn apply_governance(&mut self, governance: Governance, revision: u64) -> Applied {
        let mut new = Snapshot::clone(&self.current());
        new.revision = new.revision.max(revision);
        let newer = new.governance.get(governance.tenant_id.as_str()).is_none_or(|held| held.revision < governance.revision);
        if newer {
            self.apply_rules(&mut new, &governance);
            Arc::make_mut(&mut new.governance).insert(governance.tenant_id.as_str().into(), Arc::new(governance));
        }
        self.shared.store(Arc::new(new));
        self.registry.forget_unused();
        if newer { Applied::Changed } else { Applied::Ignored }
    }

    /// Gives every key and model of the tenant the rules that apply to it now, so that a request need not look them up.
    fn apply_rules(&mut self, new: &mut Snapshot, governance: &Governance) {
        let tenant_id = governance.tenant_id.as_str();
        let rules = Arc::new(TenantRules::compile(governance, &self.registry));
        Arc::make_mut(&mut new.rules).insert(tenant_id.into(), rules.clone());
        let keys: Vec<_> = new.keys().filter(|key| key.record.tenant_id == tenant_id).map(|key| key_with_rules(key, &new.rules)).collect();
        keys.into_iter().for_each(|key| insert(new, key));
        if let Some(held) = new.tenants.get(tenant_id) {
            let table = Routing::compile(held.table.clone(), &mut self.compiler).with_rules(Some(&rules));
            Arc::make_mut(&mut new.tenants).insert(tenant_id.into(), Arc::new(table));
        }
    }

    fn apply_issuer(&mut self, issuer: Issuer, revision: u64) -> Applied {
        let mut new = Snapshot::clone(&self.current());
        new.revision = new.revision.max(revision);
        let newer = new.issuer(&issuer.issuer_id).is_none_or(|held| held.record.revision < issuer.revision);
        if newer {
            let issuer_id = issuer.issuer_id.clone();
            Arc::make_mut(&mut new.trusted_issuers).insert_if_newer(issuer);
            self.stats.count_rejected(Rejection::Issuer, usize::from(new.issuer(&issuer_id).is_some_and(|issuer| issuer.is_unreadable())));
        }
        self.shared.store(Arc::new(new));
        if newer { Applied::Changed } else { Applied::Ignored }
    }

    fn advance(&mut self, revision: u64) -> Applied {
        let held = self.current();
        if revision > held.revision {
            self.shared.store(Arc::new(Snapshot { revision, ..Snapshot::clone(&held) }));
        }
        Applied::Ignored
    }

    /// An invalid record becomes a tombstone: it must not leave an older, more generous one in force.
    fn compile_key(&mut self, record: KeyRecord, snapshot: &Snapshot) -> Option<Arc<Key>> {
        let tombstone = KeyRecord { key_id: record.key_id.clone(), revision: record.revision, revoked: true, ..KeyRecord::default() };
        let compiled = Key::compile(record, &mut self.compiler.markings).or_else(|reason| {
            tracing::error!(key_id = %tombstone.key_id, "a key record is invalid, so the key counts as revoked: {reason}");
            self.stats.count_rejected(Rejection::Key, 1);
            Key::compile(tombstone, &mut self.compiler.markings)
        });
        compiled.ok().map(|key| {
            let rules = snapshot.rules(&key.record.tenant_id);
            Arc::new(key.with_rules(rules))
        })
    }
}

fn key_with_rules(key: &Key, rules: &Rules) -> Arc<Key> {
    let tenant = rules.get(key.record.tenant_id.as_str());
    Arc::new(key.clone().with_rules(tenant.map(|rules| &**rules)))
}

/// Inserts the key if it is newer than the one that is held.
fn insert_if_newer(snapshot: &mut Snapshot, key: Arc<Key>) -> bool {
    let newer = snapshot.key(&key.id).is_none_or(|held| {
        let (held, received) = (&held.record, &key.record);
        received.revision > held.revision || (received.revision == held.revision && received.revoked && !held.revoked)
    });
    if newer {
        insert(snapshot, key);
    }
    newer
}

fn insert(snapshot: &mut Snapshot, key: Arc<Key>) {
    if snapshot.trusted_issuers.is_index_outdated(&key) {
        Arc::make_mut(&mut snapshot.trusted_issuers).index_subject(&key);
    }
    Arc::make_mut(&mut snapshot.keys[shard_of(&key.id)]).insert(key.id, key);
}
