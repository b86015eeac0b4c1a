//! What a thread knows of callers' credentials.

use crate::reactor::shared::SharedState;
use std::cell::RefCell;
use std::sync::Arc;
use tenon_control::Asker;
use tenon_policy::{Forgeries, VerifiedTokens};
use tenon_snapshot::{Network, Shared as Snapshots};

pub struct Credentials {
    shared: Arc<SharedState>,
    pub verified_tokens: RefCell<VerifiedTokens>,
    pub forgeries: RefCell<Forgeries>,
}

impl Credentials {
    pub fn new(shared: Arc<SharedState>) -> Self {
        let forgeries = RefCell::new(Forgeries::new(shared.limits.forged_tokens_per_second));
        Self { shared, verified_tokens: RefCell::default(), forgeries }
    }

    pub fn snapshots(&self) -> &Snapshots {
        &self.shared.snapshots
    }

    /// For keys that are not in the snapshot.
    pub fn resolver(&self) -> &Asker {
        &self.shared.asker
    }

    /// Whose `X-Forwarded-For` is believed.
    pub fn trusted_proxies(&self) -> &[Network] {
        &self.shared.trusted_proxies
    }
}
