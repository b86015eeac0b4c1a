//! The protocols that callers speak.

pub mod models;
pub mod explain;
pub mod realtime;
pub mod http;
pub mod kserve;
