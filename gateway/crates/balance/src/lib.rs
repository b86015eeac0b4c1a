//! Which endpoint takes a call.
//!
//! Owns: the state of endpoints at run time (running calls, health, latency, the engines' own figures), the strategies,
//! the fair queue of waiting calls, the retry budget.
//!
//! Promises:
//! - Decisions use atomics that all threads share. There is no I/O and no clock, except for measuring how fast a queue
//!   moves.
//! - A healthy endpoint costs a few loads. A mutex is taken only if something is unhealthy or full.
//! - An excluded endpoint is never picked, and one is always picked while any is left.
//!
//! Needs: nothing. `snapshot` compiles routing tables into [`Group`]s; `proxy` reports the outcome of calls and polls
//! the engines.

mod engine;
mod failure_window;
mod fair_queue;
mod hash;
mod latency;
mod outcome;
mod retry_budget;

mod capacity;
mod health;

mod endpoint;
mod endpoint_registry;

mod member;
mod strategy;

mod group;
mod route_states;

pub use capacity::{Capacity, Grant, QUEUE_LEN_MAX, Queued, Who};
pub use endpoint::{Begun, EndpointState};
pub use endpoint_registry::{CapacityKey, Registry};
pub use engine::{Figures, STALE_AFTER_MS};
pub use fair_queue::{BANDS, Charge, FairQueue, FlowId, Place, Turn};
pub use group::{Group, Pick};
pub use hash::{HEAD_BYTES, of_heads, of_text};
pub use health::{Standing, State};
pub use member::{Ask, MEMBERS_MAX, Member, bits};
pub use outcome::Verdict;
pub use retry_budget::Budget;
pub use route_states::Look;
pub use strategy::{BOUND, Strategy};
