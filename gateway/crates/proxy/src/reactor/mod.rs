//! What one thread holds for its calls and connections, and the sweep that ends them.

pub mod slots;
pub mod in_flight;
pub mod caller_connection;
pub mod tls_listener;
pub mod worker;
pub mod sweep;
