//! Limits on requests, tokens and concurrent calls, and hard budgets of money.
//!
//! Owns: the state of limits and hard budgets in this process ([`LimitRegistry`]) and which of them apply to a key and a model
//! ([`TenantRules`]). It owns the proof that a call has reserved what it needs ([`Reservation`]), prices, and what is exchanged
//! with the control plane about all this ([`LeaseExchange`]).
//!
//! Promises:
//! - No 60 s admit more than this process's share of a limit, so the fleet stays within the limit as long as the shares
//!   do.
//! - What is spent of a budget lies within leases, at any interleaving of threads and whichever process dies.
//! - A running call is counted until its reservation is dropped.
//! - A key and a model without rules cost one check of an `Option`.
//!
//! Needs: `contract` (the wire types). No I/O and no clock: callers pass the time as microseconds of
//! [`LimitRegistry::micros`], which is monotonic.

mod atomics;
mod notify;
mod price;

mod lease;
mod window;

mod budget;
mod limit;

mod limit_registry;

mod lease_exchange;
mod reservation;
mod rules;

mod admission;

mod rate_limit_headers;

pub use admission::{AdmissionRequest, ApplicableRules, Denied, Output, TEMPLATE_ALLOWANCE};
pub use budget::{Budget, LEASE_PARTS_MAX, LeasePart};
pub use lease::Lease;
pub use lease_exchange::LeaseExchange;
pub use limit::{Exceeded, Limit, LimitKind};
pub use limit_registry::{LimitRegistry, LimitStats};
pub use price::{Price, Tokens, UpperBound};
pub use reservation::{Consumption, Reservation};
pub use rules::{ModelRules, Owner, Rules, TenantRules};
pub use tenon_contract::Subject;
pub use window::{SLOT_US, SLOTS, SlotIndex, Window};
