//! For tests and benchmarks only: what stands around a gateway.
//!
//! Owns: a control plane (a second implementation of the port), an upstream that does what a script says, a TCP proxy that spoils what
//! passes, a plain HTTP client, keys, and a gateway process under test.
//! Promises: real sockets on loopback, no sleeps where something can be waited for; it may panic, because a test that cannot go on must say so.
//! Needs: the wire types; none of the crates under test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod client;
mod control;
mod faults;
mod gateway;
mod grpc;
mod keys;
mod leasing;
mod light;
mod provider;
mod sockets;
mod tls;
mod upstream;

pub use client::{Answer, Client, get, post};
pub use control::{Control, TOKEN};
pub use faults::{Fault, FaultProxy, Unaccepting};
pub use gateway::{GATEWAY_ID, Gateway, Setup};
pub use grpc::{GrpcAnswer, GrpcAsked, GrpcCaller, GrpcSeen, GrpcStep, GrpcUpstream};
pub use keys::{SEALING_KEY, TestKey, seal};
pub use leasing::KeptLease;
pub use provider::{Provider, federate, in_seconds};
pub use sockets::{Caller, Conversation, SocketUpstream};
pub use tls::{Authority, Pair, TlsFront, tls_tail};
pub use upstream::{Asked, Step, Upstream, json_answer, sse_head};

use std::time::{Duration, Instant};

/// Waits until `ready`, or fails the test with `what`.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
