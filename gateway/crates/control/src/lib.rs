//! The gateway's client of the control plane (`contracts/gateway.proto`), on its own thread and runtime, away from the
//! reactors.
//!
//! Owns: the connection to the control plane and the order in which updates reach the snapshot. Requests for unknown
//! keys, the shipping of usage, and the exchange of limit shares and budget leases run over it.
//!
//! Promises: reactors never wait for it, except for a key that this gateway does not know yet. While the control plane
//! is away it keeps retrying, with growing pauses. Every change that it applied is on disk within a second.
//!
//! Needs: `snapshot` (this crate is its one writer), `usage` (whose log it ships), `limits` (what to request and what
//! responses mean).

mod backoff;
mod certificate_refusal;
mod delays;
mod tls;
mod token_bucket;
mod unknown_keys;
mod usage_codec;

mod channel;
mod snapshot_writer;
mod status;

mod key_resolver;
mod lease_stream;
mod saving;
mod subscription;
mod usage_stream;

mod control_thread;

pub use channel::{ControlError, ControlPlane};
pub use control_thread::{Control, ControlParts};
pub use delays::{DELAY_BUCKETS, Delays};
pub use key_resolver::{KeyResolver, Resolution};
pub use status::ControlStatus;
pub use tls::{TlsError, TlsFiles};
