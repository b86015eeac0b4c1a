//! Spans of sampled calls, sent to an OpenTelemetry collector (OTLP over HTTP, protobuf) from a thread of their own.
//!
//! Owns: what a span says and how its attributes are called, the bounded queue, the sending.
//! Promises: a reactor only moves a span into the queue, it never waits and wakes nobody; what finds the queue full or the collector away is
//! dropped and counted, never kept at the cost of calls; a span holds ids, numbers and configured names, never keys, bodies or callers' text.
//! Needs: nothing of the other crates.

mod collector;
mod exporter;
pub mod names;
pub mod otlp;
mod span;

pub use collector::{EndpointError, Trust};
pub use exporter::{Counts, Exporter, Spans, StartError};
pub use span::Span;
