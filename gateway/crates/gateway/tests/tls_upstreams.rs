//! TLS towards endpoints, and gRPC over it on both sides: against a private authority, in whatever each speaks. Who is not who it should be gets
//! nothing.
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
    Authority, Caller, Control, Gateway, GrpcCaller, GrpcStep, GrpcUpstream, Setup, SocketUpstream, TestKey, TlsFront, Upstream, json_answer, post,
    tls_tail, wait_for,
};
use tungstenite::Message;

/// A gateway that trusts one private authority, and an endpoint behind a front that shows a certificate.
struct House {
    control: Control,
    key: TestKey,
    gateway: Gateway,
    grpc: SocketAddr,
    setup: Setup,
}

impl House {
    fn new(trusted: &Authority, url: &str, change: impl FnOnce(&mut Endpoint), setting: impl FnOnce(Setup) -> Setup) -> Self {
        let (control, key) = (Control::start(), TestKey::new("keykeykey1", TENANT));
        control.put_key(key.record.clone());
        let mut here = endpoint("e1", url);
        change(&mut here);
        control.put_routing(table(vec![here], vec![model("m", "e1")]));
        let grpc = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let setup = setup(&control);
        let ca = setup.data_dir().join("upstream-ca.pem");
        std::fs::write(&ca, trusted.pem()).unwrap();
        let setup = setting(setup.with("TENON_GATEWAY_UPSTREAM_CA_FILE", ca.display()).with("TENON_GATEWAY_GRPC_LISTEN", grpc));
        let gateway = setup.start();
        Self { control, key, gateway, grpc, setup }
    }

    fn infer(&self, to: SocketAddr) -> tenon_testkit::GrpcSeen {
        let bearer = format!("Bearer {}", self.key.text);
        GrpcCaller::connect(to).call("ModelInfer", &[("authorization", &bearer)], &[vec![10, 1, b'm']], None)
    }

    fn open(&self) -> Result<Caller, (u16, String)> {
        Caller::open(self.gateway.address, "/v1/realtime?model=m", &[("authorization", &format!("Bearer {}", self.key.text))])
    }

    fn settled(&self, id: &str) -> Outcome {
        wait_for("the record", || self.control.usage_of(id).is_some());
        self.control.usage_of(id).unwrap().outcome()
    }
}

type Asked = Arc<Mutex<Vec<(Uri, HeaderMap)>>>;

/// An engine that speaks HTTP/2 and nothing else.
fn http2_engine() -> (SocketAddr, Asked) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
    let noting = asked.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let noting = noting.clone();
                let service = hyper::service::service_fn(move |request| complete(noting.clone(), request));
                tokio::spawn(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (address, asked)
}

async fn complete(asked: Asked, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    asked.lock().unwrap().push((parts.uri, parts.headers));
    let body = body.collect().await.unwrap().to_bytes();
    let streamed = body.windows(8).any(|part| part == b"\"stream\"");
    let (kind, said) = match streamed {
        true => ("text/event-stream", [&frame("a"), USAGE_FRAME, DONE].concat()),
        false => ("application/json", ANSWER.as_bytes().to_vec()),
    };
    Ok(Response::builder().header("content-type", kind).body(Full::new(said.into())).unwrap())
}

#[test]
fn an_endpoint_that_speaks_only_http2_is_spoken_to_in_it() {
    let authority = Authority::new();
    let (engine, asked) = http2_engine();
    let front = TlsFront::start(engine, &authority.issue("localhost"), &["h2"]);
    let watched = |here: &mut Endpoint| here.health_path = "/health".into();
    let house = House::new(&authority, &format!("{}/v1", front.url()), watched, |setup| {
        setup.with("TENON_GATEWAY_HEALTH_INTERVAL_MS", 100).with("TENON_GATEWAY_THREADS", 1)
    });
    wait_for("its health is looked at", || asked.lock().unwrap().iter().any(|(uri, _)| uri.path() == "/health"));
    for body in [BODY, STREAM_BODY, BODY] {
        let answer = post(house.gateway.address, CHAT, &house.key.text, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(house.settled(&answer.request_id()), Outcome::Completed);
    }
    let asked = asked.lock().unwrap();
    let calls: Vec<_> = asked.iter().filter(|(uri, _)| uri.path() == CHAT).collect();
    assert_eq!(calls.len(), 3);
    let (uri, headers) = calls[0];
    assert_eq!(uri.to_string(), format!("{}{CHAT}", front.url()), "the host is told in HTTP/2's own way");
    assert!(!headers.contains_key("host"));
    assert_eq!(headers["authorization"], "Bearer upstream-secret");
    assert_eq!(front.agreed.lock().unwrap()[..], ["h2", "h2"], "one connection of the watch, one kept for the calls");
}

#[test]
fn an_endpoint_that_speaks_both_is_spoken_to_in_http1() {
    let authority = Authority::new();
    let upstream = Upstream::start(|_| vec![tenon_testkit::Step::Send(json_answer(200, ANSWER))]);
    let front = TlsFront::start(upstream.address, &authority.issue("localhost"), &["h2", "http/1.1"]);
    let house = House::new(&authority, &format!("{}/v1", front.url()), |_| {}, |setup| setup);
    assert_eq!(post(house.gateway.address, CHAT, &house.key.text, BODY).status, 200);
    assert_eq!(front.agreed.lock().unwrap()[..], ["http/1.1"]);
    assert_eq!(upstream.asked.lock().unwrap()[0].header("authorization"), Some("Bearer upstream-secret"));
}

#[test]
fn a_session_goes_over_tls() {
    let authority = Authority::new();
    let upstream = SocketUpstream::start(|text, socket| socket.send(Message::text(text)).unwrap());
    let front = TlsFront::start(upstream.address, &authority.issue("localhost"), &["http/1.1"]);
    let house = House::new(&authority, &format!("{}/v1", front.url()), |_| {}, |setup| setup);
    let mut caller = house.open().unwrap();
    caller.say(r#"{"type":"response.cancel"}"#);
    assert_eq!(caller.hear()["type"], "response.cancel");
    assert_eq!(front.agreed.lock().unwrap().len(), 1);
}

#[test]
fn grpc_goes_over_tls_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let upstream = GrpcUpstream::start(|asked| vec![GrpcStep::Say(asked.message.to_vec()), GrpcStep::End(0)]);
    let front = TlsFront::start(upstream.address, &theirs.issue("localhost"), &["h2"]);
    let house = House::new(
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
    let seen = house.infer(tls_tail(house.grpc, ours.client(None, &["h2"])));
    assert_eq!((seen.status(), seen.messages.len()), (Some(0), 1));
    assert_eq!(house.settled(&seen.request_id()), Outcome::Completed);
    assert_eq!(upstream.asked.lock().unwrap()[0].headers["authorization"], "Bearer upstream-secret");
    // Both of the caller's choices are offered by ordinary clients; the listener for gRPC agrees on HTTP/2.
    assert_eq!(house.infer(tls_tail(house.grpc, ours.client(None, &["http/1.1", "h2"]))).status(), Some(0));
    let mut http1 = std::net::TcpStream::connect(tls_tail(house.grpc, ours.client(None, &["http/1.1"]))).unwrap();
    let _ = http1.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(http1.read(&mut [0; 16]).unwrap_or(0), 0, "HTTP/1.1 is not spoken there");
}

/// An impostor is told nothing: neither a request nor a credential.
fn refused(shown: &Authority, trusted: &Authority, name: &str, why: &str) {
    let plain = Upstream::start(|_| vec![tenon_testkit::Step::Send(json_answer(200, ANSWER))]);
    let pair = shown.issue(name);
    let fronts = [&["http/1.1"][..], &["h2"]].map(|protocols| TlsFront::start(plain.address, &pair, protocols));
    for (front, grpc) in fronts.iter().zip([false, true]) {
        let protocol = if grpc { Protocol::KserveGrpc } else { Protocol::Openai };
        let house = House::new(trusted, &front.url(), |here| here.protocol = protocol as i32, |setup| setup);
        let begun = front.failed.load(std::sync::atomic::Ordering::SeqCst);
        if grpc {
            let seen = house.infer(house.grpc);
            assert_eq!((seen.status(), seen.code()), (Some(14), "upstream_unreachable".into()));
        } else {
            let answer = post(house.gateway.address, CHAT, &house.key.text, BODY);
            assert_eq!((answer.status, answer.code()), (502, "upstream_unreachable".into()), "{}", answer.text());
            let (status, body) = house.open().err().expect("refused");
            assert!(status == 502 && body.contains("upstream_unreachable"), "{status} {body}");
        }
        wait_for("it shook hands in vain", || front.failed.load(std::sync::atomic::Ordering::SeqCst) > begun);
        wait_for("the log says why", || house.setup.log().iter().any(|line| line.to_string().contains(why)));
        assert!(front.agreed.lock().unwrap().is_empty());
    }
    assert!(plain.asked.lock().unwrap().is_empty());
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
    let house = House::new(&first, &format!("{}/v1", old.url()), |_| {}, |setup| setup);
    let ca = house.setup.data_dir().join("upstream-ca.pem");
    let call = |front: &TlsFront| {
        let here = endpoint("e1", &format!("{}/v1", front.url()));
        house.gateway.wait_revision(house.control.put_routing(table(vec![here], vec![model("m", "e1")])));
        post(house.gateway.address, CHAT, &house.key.text, BODY).status
    };
    assert_eq!((call(&old), call(&new)), (200, 502));
    std::fs::write(&ca, "half a file").unwrap();
    house.gateway.signal("HUP");
    wait_for("the bad file is told", || house.gateway.metric("tenon_gateway_upstream_ca_reload_failures_total") >= 1.0);
    assert_eq!(call(&old), 200, "the authorities before stay in force");
    std::fs::write(&ca, second.pem()).unwrap();
    wait_for("the new file is seen without a signal", || house.gateway.metric("tenon_gateway_upstream_ca_reloads_total") >= 1.0);
    assert_eq!((call(&new), call(&old)), (200, 502), "no session of the old authority is taken up again");
}
