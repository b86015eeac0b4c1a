//! Connects to model endpoints, keeps the connections for the next call, and checks the endpoints' health.
//!
//! Owns: name resolution with its address rules (SSRF guard), TLS towards endpoints, connection pools, the health checker's thread.
//! Promises: a connection goes only to an address that was checked; the certificate is checked against the endpoint's name.
//! Needs: `snapshot` for endpoints and their addresses, `balance` for their health state, `dialects` for request bodies in pieces.

pub mod sockets;
pub mod pem;
pub mod trust_store;
pub mod addresses;
pub mod resolver;
pub mod executor;
pub mod connection;
pub mod connector;
pub mod request_body;
pub mod pool;
pub mod grpc_pool;
pub mod health;
