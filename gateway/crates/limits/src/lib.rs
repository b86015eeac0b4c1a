//! What may be used: requests, tokens and calls at a time, and money.
//!
//! Owns: the state of limits and hard budgets in this process ([`Registry`]), which of them apply to a key and a model ([`TenantRules`]),
//! the proof that a call has taken what it needs ([`Grant`]), prices, and what is said to the control plane about it ([`Book`]).
//! Promises: in no 60 s is more admitted than this process's share of a limit, so the fleet stays within the limit while shares do; what is
//! spent of a budget lies within leases, at any interleaving of threads, whoever dies; a running call is counted until its grant is dropped.
//! A key and a model without rules cost one look at an `Option`.
//! Needs: the wire types. No I/O and no clock: the time is passed in, as microseconds of [`Registry::micros`], which is monotonic.

mod admission;
mod book;
mod budget;
mod grant;
mod lease;
mod limit;
mod price;
mod registry;
mod rules;
mod signal;
mod standing;
mod sync;
mod window;

/// Parts of leases that one call may use: each stands in its record.
pub const PIECES_MAX: usize = 16;

pub use admission::{Applies, Ask, Denied, Output, TEMPLATE_ALLOWANCE};
pub use book::Book;
pub use budget::{Budget, Piece};
pub use grant::{End, Grant};
pub use lease::Lease;
pub use limit::{Exceeded, Kind, Limit};
pub use price::{Most, Price, Tokens};
pub use registry::{Registry, Stats};
pub use rules::{ModelRules, Owner, Rules, TenantRules};
pub use tenon_contract::Subject;
pub use window::{Place, SLOT_US, SLOTS, Window};
