//! TLS towards callers: who we are, who they are, and certificates that change while connections live.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, StreamOwned};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::{BODY, CHAT, STREAM_BODY, Stack, TENANT};
use tenon_testkit::{Authority, Pair, Step, TestKey, sse_head, wait_for};

fn put(dir: &Path, pair: &Pair) {
    std::fs::write(dir.join("cert.pem"), &pair.0).unwrap();
    std::fs::write(dir.join("key.pem"), &pair.1).unwrap();
}

fn stack(authority: &Authority, clients: Option<&Authority>) -> Stack {
    Stack::with(|setup| {
        put(setup.data_dir(), &authority.issue("localhost"));
        let path = |name: &str| setup.data_dir().join(name).display().to_string();
        let (certificate, key, ca) = (path("cert.pem"), path("key.pem"), path("clients.pem"));
        let setup = setup.with("TENON_GATEWAY_TLS_CERT_FILE", certificate).with("TENON_GATEWAY_TLS_KEY_FILE", key);
        let setup = setup.with("TENON_GATEWAY_TLS_HANDSHAKE_MS", 500);
        match clients {
            None => setup,
            Some(clients) => {
                std::fs::write(&ca, clients.pem()).unwrap();
                setup.with("TENON_GATEWAY_TLS_CLIENT_CA_FILE", ca)
            }
        }
    })
}

type Secret = StreamOwned<ClientConnection, TcpStream>;

fn connect(stack: &Stack, trusted: &Authority, own: Option<&Pair>) -> Secret {
    let config = trusted.client(own, &["h2", "http/1.1"]);
    let stream = TcpStream::connect(stack.gateway.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap(), stream)
}

fn send_request(stream: &mut Secret, key: &str, body: &str) {
    let raw = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(raw.as_bytes()).unwrap();
}

/// Reads until the text ends so.
fn read_until(stream: &mut Secret, end: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&text).contains(end) {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => text.extend_from_slice(&buffer[..read]),
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).unwrap()
}

fn status(stream: &mut Secret, key: &str) -> String {
    send_request(stream, key, BODY);
    read_until(stream, "}}")[9..12].to_owned()
}

#[test]
fn calls_go_over_tls_and_a_new_certificate_takes_over_without_a_break() {
    let (first, second) = (Authority::new(), Authority::new());
    let stack = stack(&first, None);
    let mut kept = connect(&stack, &first, None);
    assert_eq!(status(&mut kept, &stack.key.text), "200");
    assert_eq!(kept.conn.alpn_protocol(), Some(&b"http/1.1"[..]), "HTTP/2 is not offered here");
    // A long stream, begun under the old certificate.
    stack.upstream.respond(|_| {
        let steps = vec![Step::Send(sse_head()), Step::Send(support::frame("a")), Step::Wait(Duration::from_secs(4))];
        [steps, vec![Step::Send([support::USAGE_FRAME, support::DONE].concat()), Step::Close]].concat()
    });
    let mut long = connect(&stack, &first, None);
    send_request(&mut long, &stack.key.text, STREAM_BODY);
    read_until(&mut long, "\"a\"");
    // Half a change: the new certificate with the old key does not fit, and the old pair stays.
    let pair = second.issue("localhost");
    std::fs::write(stack.setup.data_dir().join("cert.pem"), &pair.0).unwrap();
    stack.gateway.signal("HUP");
    wait_for("the bad pair is counted", || stack.gateway.metric("tenon_gateway_tls_reload_failures_total") >= 1.0);
    connect(&stack, &first, None).flush().unwrap();
    put(stack.setup.data_dir(), &pair);
    wait_for("the new pair is seen without a signal", || stack.gateway.metric("tenon_gateway_tls_reloads_total") >= 1.0);
    read_until(&mut long, "[DONE]\n\n");
    stack.upstream.respond(|_| vec![Step::Send(tenon_testkit::json_answer(200, support::ANSWER))]);
    assert_eq!(status(&mut connect(&stack, &second, None), &stack.key.text), "200");
    assert_eq!(status(&mut kept, &stack.key.text), "200", "what is open stays open");
}

#[test]
fn a_callers_certificate_is_optional_and_keys_can_be_bound_to_it() {
    let (server, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let stack = stack(&server, Some(&clients));
    let own = clients.issue("caller");
    let leaf = CertificateDer::from_pem_slice(own.0.as_bytes()).unwrap();
    let bound = TestKey::new("boundbound", TENANT).with(|record| record.certificate_sha256 = Sha256::digest(&leaf).to_vec());
    stack.put_key(&bound);
    assert_eq!(status(&mut connect(&stack, &server, None), &stack.key.text), "200", "none is needed");
    assert_eq!(status(&mut connect(&stack, &server, Some(&own)), &bound.text), "200");
    assert_eq!(status(&mut connect(&stack, &server, None), &bound.text), "403", "a stolen key alone is worth nothing");
    let other = clients.issue("another");
    assert_eq!(status(&mut connect(&stack, &server, Some(&other)), &bound.text), "403");
    let mut stranger = connect(&stack, &server, Some(&strangers.issue("stranger")));
    let refused = stranger.flush().is_err() || stranger.read(&mut [0; 16]).is_err();
    assert!(refused, "a certificate without a known authority is refused");
}

#[test]
fn who_does_not_shake_hands_is_let_go() {
    let authority = Authority::new();
    let stack = stack(&authority, None);
    let mut silent = TcpStream::connect(stack.gateway.address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let left = silent.read(&mut [0; 16]);
    assert!(!matches!(&left, Err(error) if error.kind() == ErrorKind::WouldBlock) && left.unwrap_or(0) == 0, "it is not held indefinitely");
    let mut plain = TcpStream::connect(stack.gateway.address).unwrap();
    plain.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "no plain HTTP on a TLS port");
    wait_for("they are counted", || stack.gateway.metric("tenon_gateway_tls_handshake_failures_total") >= 2.0);
    wait_for("and gone", || stack.gateway.metric("tenon_gateway_connections") == 0.0);
}
