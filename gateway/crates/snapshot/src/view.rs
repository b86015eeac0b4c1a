//! What readers see: one immutable view, replaced as a whole.

use crate::key::{Key, KeyId};
use crate::routing::Routing;
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use std::sync::Arc;

/// Key ids come from our own records, so a fast hash is safe: a caller can look up, never insert.
pub(crate) type Shard = HashMap<KeyId, Arc<Key>, foldhash::fast::RandomState>;
pub(crate) type Tenants = HashMap<Box<str>, Arc<Routing>, foldhash::fast::RandomState>;

/// Keys lie in shards so that one changed key copies one shard, not the whole map.
pub(crate) const SHARDS: usize = 64;

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub origin: Arc<str>,
    pub revision: u64,
    pub(crate) keys: Box<[Arc<Shard>]>,
    pub(crate) tenants: Arc<Tenants>,
}

pub type Shared = Arc<ArcSwap<Snapshot>>;

impl Default for Snapshot {
    fn default() -> Self {
        let keys = (0..SHARDS).map(|_| Arc::default()).collect();
        Self { origin: "".into(), revision: 0, keys, tenants: Arc::default() }
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

    pub fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.iter().flat_map(|shard| shard.values())
    }

    pub fn tables(&self) -> impl Iterator<Item = &Arc<Routing>> {
        self.tenants.values()
    }
}

pub(crate) fn shard_of(id: &KeyId) -> usize {
    id.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte))) % SHARDS
}
