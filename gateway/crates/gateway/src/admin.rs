//! The admin listener: liveness, readiness, metrics, configuration, explanations. Not for callers.

use crate::admin_state::AdminState;
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
use std::time::Duration;
use tenon_control::ControlStatus;
use tenon_proxy::SharedState;
use tenon_snapshot::unix_ms;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const CONNECTIONS_MAX: usize = 64;

pub struct Admin {
    state: Arc<AdminState>,
    listener: TcpListener,
}

impl Admin {
    pub fn new(shared: &SharedState, control: Arc<ControlStatus>, config: String, listener: TcpListener) -> Self {
        Self { state: Arc::new(AdminState { shared: shared.clone(), control, started_unix_ms: unix_ms(), config }), listener }
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
        let state = admin.state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&state, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn answer(state: &AdminState, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        _ if request.method() != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        "/livez" => (StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => state.readiness(),
        "/config" => (StatusCode::OK, state.config.clone()),
        "/metrics" => (StatusCode::OK, exposition(state)),
        path => match path.strip_prefix("/explain/") {
            Some(id) => match state.shared.completed_calls.explain(id) {
                Some(explanation) => (StatusCode::OK, format!("{explanation:#}\n")),
                None => (StatusCode::NOT_FOUND, "this request id is not among the last calls that ended here\n".to_owned()),
            },
            None => (StatusCode::NOT_FOUND, "/livez, /readyz, /metrics, /config, /explain/{request id}\n".to_owned()),
        },
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
