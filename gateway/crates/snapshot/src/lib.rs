//! What the control plane told this gateway.
//!
//! Owns: keys, issuers, routing tables and their revisions; the sealing key; the last known good copy on disk.
//! Promises: readers see one immutable [`Snapshot`] at a time, without locks; a record never goes back to an older revision, so a late
//! answer cannot revive a revoked key; what is on disk is signed, private (0600) and replaced in one step.
//! Needs: the wire types (`contract`), `jose` to compile issuers, `balance`, whose groups it compiles. It does no network I/O and decides
//! nothing: that is `policy`.

mod balance;
mod disk;
mod freshness;
mod heard;
mod key;
mod marking;
mod network;
mod routing;
mod scope;
mod seal;
mod served;
mod store;
mod trust;
mod view;
mod watched;

pub use disk::{DiskError, LastKnownGood, Saved};
pub use freshness::{Freshness, unix_ms};
pub use heard::{Heard, REJECTIONS, Rejection};
pub use key::{Key, KeyId, KeyRejected};
pub use marking::{MarkingSet, Markings};
pub use network::Network;
pub use routing::{Endpoint, Model, Origin, Route, Routing, Target, Timeouts, Unusable};
pub use scope::{Scope, ScopeRejected};
pub use seal::{SealError, SealingKey};
pub use store::{Applied, Store};
pub use trust::{Issuer, Trust};
pub use view::{Shared, Snapshot};
pub use watched::{Address, Watched};
