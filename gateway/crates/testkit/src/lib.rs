//! The peers of a gateway under test: control plane, upstreams and callers. For tests and benchmarks only.
//!
//! Owns: a control plane (a second implementation of the contract), scripted upstreams, a TCP proxy that injects faults, a plain HTTP client,
//! keys, and a gateway process under test.
//! Promises: real sockets on loopback; tests wait for conditions, not for time. It may panic, because a test that cannot go on must fail.
//! Needs: the wire types; none of the crates under test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod wait;
mod ports;
mod client;
mod keys;
mod identity_provider;
mod leases;
mod record_ids;
mod control;
mod gateway;
mod upstream;
mod grpc;
mod websockets;
mod fault_proxy;
mod tls;

pub use client::{Answer, Client, get, post};
pub use control::{Control, TOKEN};
pub use fault_proxy::{Fault, FaultProxy, Unaccepting};
pub use gateway::{GATEWAY_ID, Gateway, Setup};
pub use grpc::{GrpcAnswer, GrpcCaller, GrpcRequest, GrpcScript, GrpcStep, GrpcUpstream};
pub use identity_provider::{IdentityProvider, federate, in_seconds};
pub use keys::{SEALING_KEY, TestKey, seal};
pub use leases::LeaseRecord;
pub use ports::{reserved_address, unused_address};
pub use tls::{Authority, Pair, TlsFront, tls_tail};
pub use upstream::{ReceivedRequest, Step, Upstream, json_answer, sse_head};
pub use wait::wait_for;
pub use websockets::{ServerSocket, WebSocketCaller, WebSocketUpstream};
