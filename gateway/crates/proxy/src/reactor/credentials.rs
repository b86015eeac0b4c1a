//! What a thread knows of callers' credentials.

use crate::reactor::shared::SharedState;
use std::cell::RefCell;
use std::sync::Arc;
use tenon_control::KeyResolver;
use tenon_policy::{TokenFailures, VerifiedTokens};
use tenon_snapshot::{Network, SharedSnapshot};

pub struct Credentials {
    shared: Arc<SharedState>,
    pub verified_tokens: RefCell<VerifiedTokens>,
    pub token_failures: RefCell<TokenFailures>,
}

impl Credentials {
    pub fn new(shared: Arc<SharedState>) -> Self {
        let token_failures = RefCell::new(TokenFailures::new(shared.limits.forged_tokens_per_second));
        Self { shared, verified_tokens: RefCell::default(), token_failures }
    }

    pub fn snapshots(&self) -> &SharedSnapshot {
        &self.shared.snapshots
    }

    /// For keys that are not in the snapshot.
    pub fn resolver(&self) -> &KeyResolver {
        &self.shared.key_resolver
    }

    /// Whose `X-Forwarded-For` is believed.
    pub fn trusted_proxies(&self) -> &[Network] {
        &self.shared.trusted_proxies
    }
}
