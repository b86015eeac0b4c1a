//! The snapshot as the control thread writes it: the store, the last contact with the control plane, and whether the
//! disk is behind.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tenon_contract::{ResolveKeyResponse, Update};
use tenon_snapshot::{Applied, Freshness, Snapshot, Store};

pub(crate) struct SnapshotWriter {
    store: RefCell<Store>,
    pub freshness: Arc<Freshness>,
    /// Something changed that is not on disk.
    is_dirty: Cell<bool>,
}

impl SnapshotWriter {
    pub fn new(store: Store, freshness: Arc<Freshness>) -> Self {
        Self { store: RefCell::new(store), freshness, is_dirty: Cell::new(false) }
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.store.borrow().current()
    }

    /// Grows with each full snapshot. Pass the epoch of the request to [`Self::apply_resolved`].
    pub fn epoch(&self) -> u64 {
        self.store.borrow().epoch()
    }

    pub fn apply(&self, update: Update) {
        self.note(self.store.borrow_mut().apply(update));
    }

    pub fn apply_resolved(&self, response: ResolveKeyResponse, epoch: u64) {
        self.note(self.store.borrow_mut().apply_resolved(response, epoch));
    }

    pub fn set_dirty(&self) {
        self.is_dirty.set(true);
    }

    pub fn take_dirty(&self) -> bool {
        self.is_dirty.take()
    }

    fn note(&self, applied: Applied) {
        if applied == Applied::Changed {
            self.set_dirty();
        }
    }
}
