//! One reactor: what its thread holds. Only [`SharedState`] is shared with other threads.

use crate::reactor::caller_connection::CallerConnection;
use crate::reactor::clock::Clock;
use crate::reactor::credentials::Credentials;
use crate::reactor::in_flight::InFlightCall;
use crate::reactor::metering::Metering;
use crate::reactor::observers::Observers;
use crate::reactor::shared::SharedState;
use crate::reactor::slots::Slots;
use crate::reactor::upstreams::Upstreams;
use std::cell::Cell;
use std::sync::Arc;

pub struct Reactor {
    pub shared: Arc<SharedState>,
    pub clock: Clock,
    pub credentials: Credentials,
    pub upstreams: Upstreams,
    pub metering: Metering,
    pub observers: Observers,
    pub calls: Slots<InFlightCall>,
    pub connections: Slots<CallerConnection>,
    /// Answers that are read to their end after their caller left.
    pub drains: Cell<usize>,
    /// Connections over the limit that are being refused.
    pub refusals: Cell<usize>,
}

impl Reactor {
    pub fn new(shared: Arc<SharedState>, index: usize) -> Self {
        Self {
            clock: Clock::new(shared.clone()),
            credentials: Credentials::new(shared.clone()),
            upstreams: Upstreams::new(&shared),
            metering: Metering::new(&shared),
            observers: Observers::new(shared.clone(), index),
            calls: Slots::default(),
            connections: Slots::default(),
            drains: Cell::new(0),
            refusals: Cell::new(0),
            shared,
        }
    }
}
