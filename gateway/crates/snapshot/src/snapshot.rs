//! The snapshot that readers see: immutable, and replaced as a whole.

use crate::issuers::{Issuer, TrustedIssuers};
use crate::key::{Key, KeyId};
use crate::routing::Routing;
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use std::sync::Arc;
use tenon_contract as wire;
use tenon_limits::TenantRules;

/// Key ids come from our own records, so a fast hash is safe: callers can look up, but never insert.
pub(crate) type Shard = HashMap<KeyId, Arc<Key>, foldhash::fast::RandomState>;
pub(crate) type Tenants = HashMap<Box<str>, Arc<Routing>, foldhash::fast::RandomState>;
pub(crate) type Governances = HashMap<Box<str>, Arc<wire::Governance>, foldhash::fast::RandomState>;

pub(crate) type Rules = HashMap<Box<str>, Arc<TenantRules>, foldhash::fast::RandomState>;

/// Keys are kept in shards, so that one changed key copies one shard and not the whole map.
pub(crate) const SHARDS: usize = 64;

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub origin: Arc<str>,
    pub revision: u64,
    pub(crate) keys: Box<[Arc<Shard>]>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) governance: Arc<Governances>,
    /// `governance`, compiled. Keys and models hold what applies to them; this is for those that come later.
    pub(crate) rules: Arc<Rules>,
    pub(crate) trusted_issuers: Arc<TrustedIssuers>,
}

pub type SharedSnapshot = Arc<ArcSwap<Snapshot>>;

impl Default for Snapshot {
    fn default() -> Self {
        let keys = (0..SHARDS).map(|_| Arc::default()).collect();
        Self {
            origin: "".into(),
            revision: 0,
            keys,
            tenants: Arc::default(),
            governance: Arc::default(),
            rules: Arc::default(),
            trusted_issuers: Arc::default(),
        }
    }
}

impl Snapshot {
    /// Whether there is anything to serve from.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.origin.is_empty()
    }

    #[must_use]
    pub fn key(&self, id: &KeyId) -> Option<&Arc<Key>> {
        self.keys[shard_of(id)].get(id)
    }

    #[must_use]
    pub fn routing(&self, tenant_id: &str) -> Option<&Arc<Routing>> {
        self.tenants.get(tenant_id)
    }

    pub fn routings(&self) -> impl Iterator<Item = &Arc<Routing>> {
        self.tenants.values()
    }

    /// Whether no routing table differs between the two.
    #[must_use]
    pub fn has_routing_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tenants, &other.tenants)
    }

    pub(crate) fn rules(&self, tenant_id: &str) -> Option<&TenantRules> {
        self.rules.get(tenant_id).map(|rules| &**rules)
    }

    pub fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.iter().flat_map(|shard| shard.values())
    }

    /// Limits, budgets and prices of a tenant; `None` = it has none.
    #[must_use]
    pub fn governance(&self, tenant_id: &str) -> Option<&Arc<wire::Governance>> {
        self.governance.get(tenant_id)
    }

    pub fn governances(&self) -> impl Iterator<Item = &Arc<wire::Governance>> {
        self.governance.values()
    }

    /// The issuers that are trusted, and their federated credentials.
    #[must_use]
    pub fn trusted_issuers(&self) -> &Arc<TrustedIssuers> {
        &self.trusted_issuers
    }

    #[must_use]
    pub fn issuer(&self, issuer_id: &str) -> Option<&Arc<Issuer>> {
        self.trusted_issuers.issuer(issuer_id)
    }
}

pub(crate) fn shard_of(id: &KeyId) -> usize {
    id.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte))) % SHARDS
}
