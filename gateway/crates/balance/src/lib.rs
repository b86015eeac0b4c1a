//! Which endpoint takes a call.
//!
//! Owns: what is known of endpoints at run time (calls that run, health, latency, the engines' own figures), the strategies, the fair queue of
//! calls that wait, the budget of retries.
//! Promises: decisions on atomics that all threads share; no I/O and no clock of its own (but the queue's pace); a healthy endpoint costs a
//! few loads, a mutex is taken only where something is ill or full; never an endpoint that was excluded, and always one while any is left.
//! Needs: nothing. `snapshot` compiles routing tables into [`Group`]s, `proxy` feeds back what happened, its `watcher` what engines say.

mod budget;
mod capacity;
mod endpoint;
mod engine;
mod group;
mod hash;
mod latency;
mod look;
mod queue;
mod registry;
mod standing;
mod strategy;
mod verdict;
mod window;

pub use budget::Budget;
pub use capacity::{Capacity, Grant, QUEUE_LEN_MAX, Queued, Who};
pub use endpoint::{Begun, EndpointState};
pub use engine::{Figures, STALE_AFTER_MS};
pub use group::{Ask, Group, MEMBERS_MAX, Member, Pick, Strategy, bits};
pub use hash::{HEAD_BYTES, of_heads, of_text};
pub use look::Look;
pub use queue::{BANDS, Charge, FairQueue, FlowId, Place, Turn};
pub use registry::{CapacityKey, Registry};
pub use standing::{Standing, State};
pub use strategy::BOUND;
pub use verdict::Verdict;
