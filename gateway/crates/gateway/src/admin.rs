//! The admin listener: is it alive, is it ready, what does it count. Not for callers.

use crate::exposition::exposition;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tenon_control::Status;
use tenon_proxy::{Shared, WhenLogFull};
use tenon_snapshot::unix_ms;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const CONNECTIONS_MAX: usize = 64;

pub struct Admin {
    world: Arc<World>,
    listener: TcpListener,
}

/// What the pages tell about.
pub struct World {
    pub shared: Shared,
    pub control: Arc<Status>,
    pub started_unix_ms: i64,
    /// Every variable in force, as JSON.
    pub config: String,
}

impl Admin {
    pub fn new(shared: &Shared, control: Arc<Status>, config: String, listener: TcpListener) -> Self {
        Self { world: Arc::new(World { shared: shared.clone(), control, started_unix_ms: unix_ms(), config }), listener }
    }
}

pub async fn serve_admin(admin: Admin) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = admin.listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let world = admin.world.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&world, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn answer(world: &World, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        _ if request.method() != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        "/livez" => (StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => world.readiness(),
        "/config" => (StatusCode::OK, world.config.clone()),
        "/metrics" => (StatusCode::OK, exposition(world)),
        path => match path.strip_prefix("/explain/") {
            Some(id) => match world.shared.completed_calls.explain(id) {
                Some(told) => (StatusCode::OK, format!("{told:#}\n")),
                None => (StatusCode::NOT_FOUND, "no such call among the last ones that ended here\n".to_owned()),
            },
            None => (StatusCode::NOT_FOUND, "/livez, /readyz, /metrics, /config, /explain/{request id}\n".to_owned()),
        },
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

impl World {
    fn trouble(&self) -> String {
        let trouble = self.control.trouble();
        if trouble.is_empty() { trouble } else { format!(" ({trouble})") }
    }

    /// `ready`, `stale` (serving from what was last known) or not ready.
    fn readiness(&self) -> (StatusCode, String) {
        let known = self.shared.snapshots.load().is_known();
        let full = self.shared.log.stats.is_full.load(Relaxed);
        match (known, self.control.connected.load(Relaxed)) {
            (true, _) if full && self.shared.limits.when_log_full == WhenLogFull::Refuse => {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready: the usage log has no room, so calls are refused\n".to_owned())
            }
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: nothing is known from the control plane{}\n", self.trouble())),
            (true, true) if self.control.heard.is_refusing.load(Relaxed) => {
                (StatusCode::OK, "stale: the control plane told a snapshot older than what is served, so the served one stays\n".to_owned())
            }
            (true, true) => (StatusCode::OK, "ready\n".to_owned()),
            (true, false) => (StatusCode::OK, format!("stale: serving from the last known good snapshot{}\n", self.trouble())),
        }
    }
}
