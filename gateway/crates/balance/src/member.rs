//! One route of a model, and the call that needs a route.

use crate::endpoint::EndpointState;
use std::sync::Arc;

/// The routes of one model that are considered. Sets of routes are the bits of a `u64`.
pub const MEMBERS_MAX: usize = 64;

/// One route.
#[derive(Debug)]
pub struct Member {
    pub state: Arc<EndpointState>,
    pub weight: u32,
    pub tier: u32,
    /// 0 = any number.
    pub running_max: u32,
    pub input_cost: u64,
    pub output_cost: u64,
}

/// What is known of the call that needs a route.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteQuery {
    pub now_ms: u64,
    pub random: u64,
    /// Hash of the session or of the prompt's head, where the strategy needs one.
    pub affinity: Option<u64>,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// The indices of the bits that are set.
pub fn bits(mut set: u64) -> impl Iterator<Item = usize> + Clone {
    std::iter::from_fn(move || {
        let next = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(next)
    })
}
