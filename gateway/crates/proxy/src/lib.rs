//! Serves the callers of models: accepts a request, authenticates and admits it, calls an endpoint, passes the answer on and meters the call.
//!
//! Owns: the reactors (one thread, one runtime, one listening socket each), connections to callers, deadlines, the life of a call.
//! Promises: an endpoint is called only with an [`tenon_policy::Admitted`] and after the open usage record is stored. Each call settles exactly
//! once, whichever side leaves first, before the end of its answer is passed on. Frames pass untouched. A broken stream never looks complete.
//! Needs: `policy` and `snapshot` for decisions, `limits` and `balance` for what may be used and where. `upstream` connects to endpoints,
//! `dialects` reads bodies, `usage` meters, `control` resolves unknown keys, `telemetry` exports spans.
//!
//! The modules are in the order of layers: each uses only those above it.

mod base;
pub mod observe;
mod reactor;
mod call;
mod pipeline;
mod protocols;
mod server;

pub use base::limits::{BodyMemory, Limits, WhenLogFull};
pub use observe::call_trace::CompletedCalls;
pub use pipeline::routes::routes_json;
pub use reactor::shared::SharedState;
pub use reactor::tls_listener::{TlsFiles, TlsListener};
pub use server::{ServerError, Servers, listen};
