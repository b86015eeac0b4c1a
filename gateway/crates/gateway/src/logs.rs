//! JSON lines on standard error. They never have keys, bodies or personal data.

use std::io::stderr;
use tracing_subscriber::EnvFilter;

pub fn start() {
    let filter = EnvFilter::try_from_env("TENON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_target(true).with_env_filter(filter).with_writer(stderr).init();
}
