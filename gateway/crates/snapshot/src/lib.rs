//! The snapshot of everything that the control plane sent to this gateway.
//!
//! Owns: keys, issuers, routing tables and their revisions; the sealing key; the last known good copy on disk.
//!
//! Promises:
//! - Readers see one immutable [`Snapshot`] at a time, without locks.
//! - A record never goes back to an older revision, so a late response cannot revive a revoked key.
//! - The copy on disk is signed, private (0600) and replaced in one step.
//!
//! Needs: `contract` (the wire types), `jose` to compile issuers, `limits` to compile rules, `balance`, whose groups it
//! compiles. It does no network I/O and makes no decisions: those belong to `policy`.

mod freshness;
mod markings;
mod network;
mod sealing;
mod served_operations;
mod sync_stats;

mod scope;
mod target;

mod key;
mod probes;

mod endpoint;
mod issuers;

mod route_group;
mod routing;

mod snapshot;

mod last_known_good;
mod store;

pub use endpoint::{Endpoint, Timeouts};
pub use freshness::{Freshness, unix_ms};
pub use issuers::{Issuer, TrustedIssuers};
pub use key::{Key, KeyId, KeyRejected};
pub use last_known_good::{DiskError, LastKnownGood, Saved};
pub use markings::{MarkingSet, Markings};
pub use network::Network;
pub use probes::{ProbeAddress, ProbeTargets};
pub use routing::{Model, Route, Routing};
pub use scope::{Scope, ScopeRejected};
pub use sealing::{SealError, SealingKey};
pub use snapshot::{SharedSnapshot, Snapshot};
pub use store::{Applied, Store};
pub use sync_stats::{REJECTIONS, Rejection, SyncStats};
pub use target::{Origin, Target, UnusableTarget};
