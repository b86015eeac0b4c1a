//! A request as it arrived: its id, its time, its trace and its peer.

use crate::base::headers;
use crate::base::peer::Peer;
use crate::base::problem::Problem;
use crate::call::request_info::RequestInfo;
use crate::observe::access_log::Entry;
use crate::observe::trace_context::TraceContext;
use crate::pipeline::routes::Route;
use crate::reactor::clock::Clock;
use crate::reactor::observers::Observers;
use http::HeaderMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tenon_usage::RecordId;

pub struct Arrival {
    pub id: RecordId,
    pub at: Instant,
    pub unix_us: i64,
    pub trace: TraceContext,
    pub peer: Peer,
}

impl Arrival {
    pub fn now(headers: &HeaderMap, peer: Peer) -> Self {
        let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        Self { id: RecordId::mint(unix_us / 1000), at: Instant::now(), unix_us, trace: TraceContext::of(headers), peer }
    }

    /// It becomes a call. Whether its trace is sampled is decided here.
    pub fn into_request(self, observers: &Observers, route: &'static Route, streamed: bool) -> RequestInfo {
        let trace = match observers.spans() {
            Some(spans) => self.trace.sampled(spans),
            None => self.trace,
        };
        RequestInfo {
            id: self.id,
            id_header: headers::request_id(self.id),
            trace,
            started: self.at,
            started_unix_us: self.unix_us,
            operation: route.operation,
            dialect: route.dialect,
            span_name: route.span,
            streamed,
        }
    }
}

/// Logs a request that ended before it became a call. A call logs itself when it is over.
pub fn log_refusal(observers: &Observers, clock: &Clock, arrival: &Arrival, problem: &Problem) {
    let entry = Entry {
        id: arrival.id,
        trace: &arrival.trace,
        outcome: "refused",
        status: problem.status,
        code: Some(problem.code),
        endpoint_id: None,
        attempts: 0,
        took: arrival.at.elapsed(),
        detail: None,
        is_failure: problem.status >= 500,
    };
    observers.log(&entry, clock.now());
}
