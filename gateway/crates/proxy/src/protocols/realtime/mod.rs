//! Realtime sessions: `GET /v1/realtime?model=…`, a WebSocket to the caller and one to the endpoint.
//!
//! A session is one call: admitted before its upgrade, metered from its opening to its end with the sum of the usage that the endpoint reports.
//! Limits of requests and tokens count each answer ([`turns`]). Events pass as they are, except that the model's name is replaced where a route
//! renames it.

mod handshake;
mod dial;
mod events;
mod turns;
mod session;
pub mod handler;
