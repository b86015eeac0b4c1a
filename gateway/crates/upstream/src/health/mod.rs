//! Checks endpoints on a thread of its own: whether they are healthy, and how busy their engines are.

mod engine_metrics;
mod check;
mod probe;
mod checker;

pub use checker::{CheckIntervals, start};
