//! Run-time state that outlives a routing table: endpoints, capacities and retry retry_allowances, by name.

use crate::capacity::{Capacity, QUEUE_LEN_MAX};
use crate::endpoint::EndpointState;
use crate::retry_allowance::RetryAllowance;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// Identifies a server and the credential used with it: a hash over both.
pub type CapacityKey = [u8; 32];

/// The control thread requests the state of what a new table names, and the tables keep it alive.
#[derive(Debug)]
pub struct EndpointRegistry {
    epoch: Instant,
    /// Calls that may wait for one server.
    queue_len_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    endpoints: WeakMap<Box<str>, EndpointState>,
    capacities: WeakMap<CapacityKey, Capacity>,
    retry_allowances: WeakMap<(Box<str>, Box<str>), RetryAllowance>,
}

#[derive(Debug)]
struct WeakMap<K, V> {
    map: HashMap<K, Weak<V>>,
    /// Entries whose state is gone are removed when the map has doubled.
    sweep_at: usize,
}

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), sweep_at: 64 }
    }
}

impl<K: Hash + Eq, V> WeakMap<K, V> {
    fn get_or_insert(&mut self, key: K, fits: impl Fn(&V) -> bool, create: impl FnOnce() -> V) -> Arc<V> {
        if let Some(held) = self.map.get(&key).and_then(Weak::upgrade).filter(|held| fits(held)) {
            return held;
        }
        let created = Arc::new(create());
        self.map.insert(key, Arc::downgrade(&created));
        if self.map.len() > self.sweep_at {
            self.map.retain(|_, held| held.strong_count() > 0);
            self.sweep_at = (self.map.len() * 2).max(64);
        }
        created
    }
}

impl Default for EndpointRegistry {
    fn default() -> Self {
        Self::with_queues(QUEUE_LEN_MAX)
    }
}

impl EndpointRegistry {
    /// `queue_len_max` calls may wait for each server; 0 = none.
    #[must_use]
    pub fn with_queues(queue_len_max: usize) -> Self {
        Self { epoch: Instant::now(), queue_len_max, held: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of the clock that all of this uses. Never zero, because zero means "never" in some words.
    #[must_use]
    pub fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX) + 1
    }

    /// The endpoint's state: a new one if the endpoint is unknown or now means another server.
    #[must_use]
    pub fn endpoint(&self, id: &str, server: CapacityKey) -> Arc<EndpointState> {
        let mut held = self.lock();
        let capacity = held.capacities.get_or_insert(server, |_| true, || Capacity::with_queue(self.queue_len_max));
        let same = |state: &EndpointState| Arc::ptr_eq(&state.capacity, &capacity);
        held.endpoints.get_or_insert(id.into(), same, || EndpointState::new(id, capacity.clone()))
    }

    #[must_use]
    pub fn retry_allowance(&self, tenant_id: &str, model: &str) -> Arc<RetryAllowance> {
        self.lock().retry_allowances.get_or_insert((tenant_id.into(), model.into()), |_| true, RetryAllowance::default)
    }

    /// All endpoints that a table names, by id.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Arc<EndpointState>> {
        let mut all: Vec<_> = self.lock().endpoints.map.values().filter_map(Weak::upgrade).collect();
        all.sort_unstable_by(|one, two| one.id.cmp(&two.id));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lives_as_long_as_a_table_names_it() {
        let registry = EndpointRegistry::default();
        let one = registry.endpoint("one", [1; 32]);
        let twin = registry.endpoint("twin", [1; 32]);
        assert!(Arc::ptr_eq(&one, &registry.endpoint("one", [1; 32])));
        assert!(Arc::ptr_eq(&one.capacity, &twin.capacity), "one server has one count of calls");
        let moved = registry.endpoint("one", [2; 32]);
        assert!(!Arc::ptr_eq(&one, &moved), "another server is another endpoint");
        drop((one, moved));
        assert_eq!(registry.endpoints().iter().map(|e| &*e.id).collect::<Vec<_>>(), ["twin"]);
        for i in 0..1_000 {
            drop(registry.endpoint(&i.to_string(), [3; 32]));
        }
        assert!(registry.lock().endpoints.map.len() < 130);
    }
}
