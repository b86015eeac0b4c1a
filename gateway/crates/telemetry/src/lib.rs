//! Sends spans of sampled calls to an OpenTelemetry collector (OTLP over HTTP, protobuf), from a thread of its own.
//!
//! Owns: the content of a span and the names of its attributes, the bounded queue, the sending.
//! Promises: a reactor only moves a span into the queue; it never waits and makes no system call. A span is
//! dropped and counted when the queue is full or the collector is away. It holds ids, numbers and configured names, never keys, bodies or
//! callers' text.
//! Needs: none of our crates.

pub mod names;
pub mod otlp;
mod span;
mod collector;
mod exporter;

pub use collector::{EndpointError, TlsConfigSource};
pub use exporter::{Counts, Exporter, Spans, StartError};
pub use span::Span;
