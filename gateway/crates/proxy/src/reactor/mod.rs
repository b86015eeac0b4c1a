//! What one thread holds for its calls and connections, and the sweep that ends them.

pub mod slots;
pub mod in_flight;
pub mod caller_connection;
pub mod tls_listener;
pub mod shared;
pub mod clock;
pub mod credentials;
pub mod upstreams;
pub mod metering;
pub mod observers;
pub mod state;
pub mod sweep;
