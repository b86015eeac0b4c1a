//! Which endpoint takes a call.
//!
//! Owns: the state of endpoints at run time (running calls, health, latency, the engines' own figures), the strategies,
//! the fair queue of waiting calls, the retry allowance.
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
mod retry_allowance;

mod capacity;
mod health;

mod endpoint;
mod endpoint_registry;

mod member;
mod strategy;

mod group;
mod route_states;

pub use capacity::{Capacity, QUEUE_LEN_MAX, QueueRequest, QueueResult, QueuedCall};
pub use endpoint::{EndpointState, StartResult};
pub use endpoint_registry::{CapacityKey, EndpointRegistry};
pub use engine::{EngineLoad, STALE_AFTER_MS};
pub use fair_queue::{BANDS, FairQueue, FlowId, QueuePosition, TokenCharge, Turn};
pub use group::{Group, Pick};
pub use hash::{HEAD_BYTES, hash_prompt, hash_text};
pub use health::{Availability, HealthState};
pub use member::{MEMBERS_MAX, Member, RouteQuery, bits};
pub use outcome::AttemptOutcome;
pub use retry_allowance::RetryAllowance;
pub use route_states::RouteState;
pub use strategy::{BOUND, Strategy};
