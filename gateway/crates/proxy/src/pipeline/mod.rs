//! The steps of a call, in their order, whatever protocol it came by.

pub mod routes;
pub mod arrival;
pub mod authenticate;
pub mod read_body;
pub mod admit;
pub mod upstream_request;
pub mod attempt;
pub mod failover;
pub mod relay;
pub mod response;
pub mod translated_response;
