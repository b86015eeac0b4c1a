//! TLS to endpoints, and gRPC over TLS on both sides, with a private authority and every protocol. An impostor gets neither a request
//! nor a credential.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use support::{ANSWER, BODY, CHAT, DONE, STREAM_BODY, TENANT, USAGE_FRAME, endpoint, frame, model, setup, table};
use tenon_contract::{Endpoint, Outcome, Protocol};
use tenon_testkit::{
    Authority, Control, Gateway, GrpcCaller, GrpcStep, GrpcUpstream, Setup, TestKey, TlsFront, Upstream, WebSocketCaller, WebSocketUpstream,
    json_answer, post, tls_tail, wait_for,
};
use tungstenite::Message;

/// A gateway that trusts one private authority, and an endpoint behind a front that shows a certificate.
struct Stack {
    control: Control,
    key: TestKey,
    gateway: Gateway,
    grpc: SocketAddr,
    setup: Setup,
}

impl Stack {
    fn new(trusted: &Authority, url: &str, change: impl FnOnce(&mut Endpoint), setting: impl FnOnce(Setup) -> Setup) -> Self {
        let (control, key) = (Control::start(), TestKey::new("keykeykey1", TENANT));
        control.put_key(key.record.clone());
        let mut here = endpoint("e1", url);
        change(&mut here);
        control.put_routing(table(vec![here], vec![model("m", "e1")]));
        let grpc = tenon_testkit::reserved_address();
        let setup = setup(&control);
        let ca = setup.data_dir().join("upstream-ca.pem");
        std::fs::write(&ca, trusted.pem()).unwrap();
        let setup = setting(setup.with("TENON_GATEWAY_UPSTREAM_CA_FILE", ca.display()).with("TENON_GATEWAY_GRPC_LISTEN", grpc));
        let gateway = setup.start();
        Self { control, key, gateway, grpc, setup }
    }

    fn infer(&self, to: SocketAddr) -> tenon_testkit::GrpcAnswer {
        let bearer = format!("Bearer {}", self.key.text);
        GrpcCaller::connect(to).call("ModelInfer", &[("authorization", &bearer)], &[vec![10, 1, b'm']], None)
    }

    fn open(&self) -> Result<WebSocketCaller, (u16, String)> {
        WebSocketCaller::open(self.gateway.address, "/v1/realtime?model=m", &[("authorization", &format!("Bearer {}", self.key.text))])
    }

    fn settled(&self, id: &str) -> Outcome {
        wait_for("the record", || self.control.usage_of(id).is_some());
        self.control.usage_of(id).unwrap().outcome()
    }
}

type Received = Arc<Mutex<Vec<(Uri, HeaderMap)>>>;

/// An engine that supports only HTTP/2.
fn http2_engine() -> (SocketAddr, Received) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, received) = (listener.local_addr().unwrap(), Received::default());
    let recorder = received.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let recorder = recorder.clone();
                let service = hyper::service::service_fn(move |request| complete(recorder.clone(), request));
                tokio::spawn(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (address, received)
}

async fn complete(received: Received, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    received.lock().unwrap().push((parts.uri, parts.headers));
    let body = body.collect().await.unwrap().to_bytes();
    let streamed = body.windows(8).any(|part| part == b"\"stream\"");
    let (content_type, body) = match streamed {
        true => ("text/event-stream", [&frame("a"), USAGE_FRAME, DONE].concat()),
        false => ("application/json", ANSWER.as_bytes().to_vec()),
    };
    Ok(Response::builder().header("content-type", content_type).body(Full::new(body.into())).unwrap())
}

#[test]
fn an_endpoint_that_speaks_only_http2_is_spoken_to_in_it() {
    let authority = Authority::new();
    let (engine, received) = http2_engine();
    let front = TlsFront::start(engine, &authority.issue("localhost"), &["h2"]);
    let watched = |here: &mut Endpoint| here.health_path = "/health".into();
    let stack = Stack::new(&authority, &format!("{}/v1", front.url()), watched, |setup| {
        setup.with("TENON_GATEWAY_HEALTH_INTERVAL_MS", 100).with("TENON_GATEWAY_THREADS", 1)
    });
    wait_for("its health is checked", || received.lock().unwrap().iter().any(|(uri, _)| uri.path() == "/health"));
    for body in [BODY, STREAM_BODY, BODY] {
        let answer = post(stack.gateway.address, CHAT, &stack.key.text, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(stack.settled(&answer.request_id()), Outcome::Completed);
    }
    let received = received.lock().unwrap();
    let calls: Vec<_> = received.iter().filter(|(uri, _)| uri.path() == CHAT).collect();
    assert_eq!(calls.len(), 3);
    let (uri, headers) = calls[0];
    assert_eq!(uri.to_string(), format!("{}{CHAT}", front.url()), "the host is in the pseudo-header");
    assert!(!headers.contains_key("host"));
    assert_eq!(headers["authorization"], "Bearer upstream-secret");
    assert_eq!(front.agreed.lock().unwrap()[..], ["h2", "h2"], "one connection of the watch, one kept for the calls");
}

#[test]
fn an_endpoint_that_speaks_both_is_spoken_to_in_http1() {
    let authority = Authority::new();
    let upstream = Upstream::start(|_| vec![tenon_testkit::Step::Send(json_answer(200, ANSWER))]);
    let front = TlsFront::start(upstream.address, &authority.issue("localhost"), &["h2", "http/1.1"]);
    let stack = Stack::new(&authority, &format!("{}/v1", front.url()), |_| {}, |setup| setup);
    assert_eq!(post(stack.gateway.address, CHAT, &stack.key.text, BODY).status, 200);
    assert_eq!(front.agreed.lock().unwrap()[..], ["http/1.1"]);
    assert_eq!(upstream.requests.lock().unwrap()[0].header("authorization"), Some("Bearer upstream-secret"));
}

#[test]
fn a_session_goes_over_tls() {
    let authority = Authority::new();
    let upstream = WebSocketUpstream::start(|text, socket| socket.send(Message::text(text)).unwrap());
    let front = TlsFront::start(upstream.address, &authority.issue("localhost"), &["http/1.1"]);
    let stack = Stack::new(&authority, &format!("{}/v1", front.url()), |_| {}, |setup| setup);
    let mut caller = stack.open().unwrap();
    caller.send(r#"{"type":"response.cancel"}"#);
    assert_eq!(caller.receive()["type"], "response.cancel");
    assert_eq!(front.agreed.lock().unwrap().len(), 1);
}

#[test]
fn grpc_goes_over_tls_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let upstream = GrpcUpstream::start(|received| vec![GrpcStep::Send(received.message.to_vec()), GrpcStep::End(0)]);
    let front = TlsFront::start(upstream.address, &theirs.issue("localhost"), &["h2"]);
    let stack = Stack::new(
        &theirs,
        &front.url(),
        |here| here.protocol = Protocol::KserveGrpc as i32,
        |setup| {
            let pair = ours.issue("localhost");
            let (certificate, key) = (setup.data_dir().join("cert.pem"), setup.data_dir().join("key.pem"));
            std::fs::write(&certificate, pair.0).unwrap();
            std::fs::write(&key, pair.1).unwrap();
            setup.with("TENON_GATEWAY_TLS_CERT_FILE", certificate.display()).with("TENON_GATEWAY_TLS_KEY_FILE", key.display())
        },
    );
    let seen = stack.infer(tls_tail(stack.grpc, ours.client(None, &["h2"])));
    assert_eq!((seen.status(), seen.messages.len()), (Some(0), 1));
    assert_eq!(stack.settled(&seen.request_id()), Outcome::Completed);
    assert_eq!(upstream.requests.lock().unwrap()[0].headers["authorization"], "Bearer upstream-secret");
    // Both of the caller's choices are offered by ordinary clients; the listener for gRPC agrees on HTTP/2.
    assert_eq!(stack.infer(tls_tail(stack.grpc, ours.client(None, &["http/1.1", "h2"]))).status(), Some(0));
    let mut http1 = std::net::TcpStream::connect(tls_tail(stack.grpc, ours.client(None, &["http/1.1"]))).unwrap();
    let _ = http1.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(http1.read(&mut [0; 16]).unwrap_or(0), 0, "HTTP/1.1 is not offered there");
}

/// An impostor gets neither a request nor a credential.
fn refused(shown: &Authority, trusted: &Authority, name: &str, why: &str) {
    let plain = Upstream::start(|_| vec![tenon_testkit::Step::Send(json_answer(200, ANSWER))]);
    let pair = shown.issue(name);
    let fronts = [&["http/1.1"][..], &["h2"]].map(|protocols| TlsFront::start(plain.address, &pair, protocols));
    for (front, grpc) in fronts.iter().zip([false, true]) {
        let protocol = if grpc { Protocol::KserveGrpc } else { Protocol::Openai };
        let stack = Stack::new(trusted, &front.url(), |here| here.protocol = protocol as i32, |setup| setup);
        let begun = front.failed.load(std::sync::atomic::Ordering::SeqCst);
        if grpc {
            let seen = stack.infer(stack.grpc);
            assert_eq!((seen.status(), seen.code()), (Some(14), "upstream_unreachable".into()));
        } else {
            let answer = post(stack.gateway.address, CHAT, &stack.key.text, BODY);
            assert_eq!((answer.status, answer.code()), (502, "upstream_unreachable".into()), "{}", answer.text());
            let (status, body) = stack.open().err().expect("refused");
            assert!(status == 502 && body.contains("upstream_unreachable"), "{status} {body}");
        }
        wait_for("it shook hands in vain", || front.failed.load(std::sync::atomic::Ordering::SeqCst) > begun);
        wait_for("the log has the reason", || stack.setup.log().iter().any(|line| line.to_string().contains(why)));
        assert!(front.agreed.lock().unwrap().is_empty());
    }
    assert!(plain.requests.lock().unwrap().is_empty());
}

#[test]
fn a_certificate_of_another_name_is_refused() {
    let authority = Authority::new();
    refused(&authority, &authority, "elsewhere.example", "not valid for name");
}

#[test]
fn an_authority_that_nobody_named_is_refused() {
    refused(&Authority::new(), &Authority::new(), "localhost", "invalid peer certificate");
}

#[test]
fn authorities_change_without_a_restart() {
    let (first, second) = (Authority::new(), Authority::new());
    let upstream = Upstream::start(|_| vec![tenon_testkit::Step::Send(json_answer(200, ANSWER)), tenon_testkit::Step::Close]);
    let old = TlsFront::start(upstream.address, &first.issue("localhost"), &["http/1.1"]);
    let new = TlsFront::start(upstream.address, &second.issue("localhost"), &["http/1.1"]);
    let stack = Stack::new(&first, &format!("{}/v1", old.url()), |_| {}, |setup| setup);
    let ca = stack.setup.data_dir().join("upstream-ca.pem");
    let call = |front: &TlsFront| {
        let here = endpoint("e1", &format!("{}/v1", front.url()));
        stack.gateway.wait_revision(stack.control.put_routing(table(vec![here], vec![model("m", "e1")])));
        post(stack.gateway.address, CHAT, &stack.key.text, BODY).status
    };
    assert_eq!((call(&old), call(&new)), (200, 502));
    std::fs::write(&ca, "half a file").unwrap();
    stack.gateway.signal("HUP");
    wait_for("the bad file is counted", || stack.gateway.metric("tenon_gateway_upstream_ca_reload_failures_total") >= 1.0);
    assert_eq!(call(&old), 200, "the authorities before stay in force");
    std::fs::write(&ca, second.pem()).unwrap();
    wait_for("the new file is seen without a signal", || stack.gateway.metric("tenon_gateway_upstream_ca_reloads_total") >= 1.0);
    assert_eq!((call(&new), call(&old)), (200, 502), "no session of the old authority is taken up again");
}
