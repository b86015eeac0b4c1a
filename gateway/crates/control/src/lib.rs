//! The gateway's side of `contracts/gateway.proto`, on its own thread with its own runtime, away from the reactors.
//!
//! Owns: the connection to the control plane, the order in which updates reach the snapshot, questions about unknown keys, shipping, the talk
//! about shares of limits and leases on budgets.
//! Promises: reactors never wait for it, except for a key nobody knows yet; when the control plane is away it tries again for ever, with
//! growing pauses; what it applied is on disk within a second.
//! Needs: `snapshot` (it is the one writer), `usage` (the queue it empties), `limits` (what to ask for, what answers mean).

mod ask;
mod channel;
mod codec;
mod delay;
mod lease;
mod negative;
mod refusal;
mod save;
mod ship;
mod subscribe;
mod thread;
mod tls;

pub use ask::{Asker, Resolution};
pub use channel::{ControlError, Peer};
pub use delay::{DELAY_BUCKETS, Delays};
pub use thread::{Control, Parts, Status};
pub use tls::{TlsError, TlsFiles};
