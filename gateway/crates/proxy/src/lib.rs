//! A request's road: accept → authenticate → admit → route → call → meter.
//!
//! Owns: the reactors (one thread, one runtime, one listening socket each), connections to callers and to upstreams, deadlines.
//! Promises: an upstream is called only with an [`tenon_policy::Admitted`] and after the open usage record is stored; each call settles exactly
//! once, whoever leaves first, before the end of its answer is given away; frames pass untouched; a stream that broke never looks complete.
//! Needs: `policy` for decisions, `snapshot` to decide on, `limits` and `balance` for what may be used and where, `dialects` to read bodies,
//! `usage` to meter, `control` to ask about unknown keys, `telemetry` to leave spans with.

pub mod addresses;
mod admit;
mod answer;
mod ask;
mod authenticate;
mod call;
mod connection;
mod doors;
mod explain;
mod failover;
mod in_place;
mod journal;
mod kserve;
mod limits;
mod listing;
mod live;
pub mod metrics;
mod outgoing;
pub mod peer;
mod pool;
mod problem;
mod realtime;
mod receive;
mod relay;
pub mod request_log;
mod road;
mod sender;
mod server;
mod sweep;
pub mod tls;
pub mod tls_listener;
mod trace;
mod trail;
mod translated;
mod upstream;
pub mod watcher;
mod worker;

pub use doors::doors_json;
pub use limits::{Limits, WhenLogFull};
pub use receive::BodyMemory;
pub use server::{ServerError, Servers, listen};
pub use trail::Trails;
pub use worker::Shared;
