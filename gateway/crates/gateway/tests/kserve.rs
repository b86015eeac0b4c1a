//! The Open Inference Protocol over gRPC: admitted, relayed, metered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::atomic::Ordering;
use support::open_inference::{InferenceStack, answered, field, infer};
use support::{TENANT, endpoint, model, table};
use tenon_contract::{Operation, Outcome, Protocol, UsageSource};
use tenon_testkit::{GrpcCaller, TestKey, wait_for};

#[test]
fn an_inference_is_relayed_renamed_and_metered() {
    let stack = InferenceStack::new();
    let seen = stack.call("ModelInfer", &[infer("m")]);
    assert_eq!((seen.status(), &seen.messages[..]), (Some(0), &[answered(11, 7).into()][..]), "the answer is untouched");
    let request = stack.upstream.requests.lock().unwrap()[0].clone();
    assert_eq!(request.message, infer("their-name-for-it"), "only the name changed");
    let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(request.path, "/inference.GRPCInferenceService/ModelInfer");
    assert_eq!(header("authorization").as_deref(), Some("Bearer upstream-secret"));
    assert_eq!(header("x-request-id"), Some(seen.request_id()));
    let record = stack.record(&seen);
    assert_eq!((record.operation(), record.outcome(), record.usage_source()), (Operation::Infer, Outcome::Completed, UsageSource::Engine));
    assert_eq!((record.input_tokens, record.output_tokens, record.streamed, record.upstream_model.as_str()), (11, 7, false, "their-name-for-it"));
}

#[test]
fn a_stream_is_one_call_whose_counts_add_up() {
    let stack = InferenceStack::new();
    let seen = stack.call("ModelStreamInfer", &[infer("m"), infer("m"), infer("m")]);
    assert_eq!((seen.status(), seen.messages.len()), (Some(0), 3));
    let record = stack.record(&seen);
    assert_eq!((record.outcome(), record.streamed, record.input_tokens, record.output_tokens), (Outcome::Completed, true, 11, 9));
    assert!(stack.upstream.requests.lock().unwrap().iter().all(|request| request.message == infer("their-name-for-it")));
    // A later message cannot name another model.
    let seen = stack.call("ModelStreamInfer", &[infer("m"), infer("hold")]);
    assert_eq!((seen.status(), seen.code()), (Some(7), "model_fixed".into()));
    assert!(stack.upstream.requests.lock().unwrap().iter().all(|request| request.message == infer("their-name-for-it")));
    assert_eq!(stack.record(&seen).outcome(), Outcome::Cut);
}

#[test]
fn methods_without_an_endpoint_are_answered_by_the_gateway() {
    let stack = InferenceStack::new();
    let live = stack.with_key("nonsense", "ServerLive", &[vec![]]);
    assert_eq!((live.status(), &live.messages[0][..]), (Some(0), &[8, 1][..]));
    assert_eq!(stack.call("ServerReady", &[vec![]]).messages[0][..], [8, 1]);
    assert!(stack.call("ServerMetadata", &[vec![]]).messages[0].starts_with(b"\x0a\x0dtenon-gateway"));
    assert_eq!(stack.call("ModelReady", &[field(1, b"m")]).messages[0][..], [8, 1]);
    assert_eq!(stack.call("ModelReady", &[field(1, b"nosuch")]).status(), Some(5));
    assert_eq!(stack.with_key("nonsense", "ServerReady", &[vec![]]).status(), Some(16));
    assert_eq!(stack.received(), 0);
    assert_eq!(stack.call("ModelMetadata", &[field(1, b"m")]).status(), Some(0));
    assert_eq!(stack.upstream.requests.lock().unwrap()[0].message, field(1, b"their-name-for-it"));
    for method in ["ModelConfig", "RepositoryIndex", "SystemSharedMemoryRegister", "Nonsense"] {
        assert_eq!(stack.call(method, &[vec![]]).status(), Some(12), "{method}");
    }
}

/// The methods that name a model.
const METHODS: [&str; 4] = ["ModelInfer", "ModelStreamInfer", "ModelMetadata", "ModelReady"];

fn good(method: &str) -> Vec<u8> {
    if method.ends_with("Infer") { infer("m") } else { field(1, b"m") }
}

/// Every method refuses this message with this status and code, and the endpoint gets none of them.
fn refuses(stack: &InferenceStack, key: &str, message: impl Fn(Vec<u8>) -> Vec<u8>, status: u8, code: &str) {
    for method in METHODS {
        let answer = stack.with_key(key, method, &[message(good(method))]);
        assert_eq!((answer.status(), &*answer.code()), (Some(status), code), "{method}");
    }
    assert_eq!(stack.received(), 0, "none of them reached the endpoint");
}

/// A key of the tenant with these changes, known to the gateway.
fn key(stack: &InferenceStack, id: &str, change: fn(&mut tenon_contract::KeyRecord)) -> String {
    let key = TestKey::new(id, TENANT).with(change);
    stack.gateway.wait_revision(stack.control.put_key(key.record.clone()));
    key.text
}

#[test]
fn a_call_without_a_key_is_unauthenticated() {
    let stack = InferenceStack::new();
    for method in METHODS {
        let answer = GrpcCaller::connect(stack.grpc).call(method, &[], &[good(method)], None);
        assert_eq!((answer.status(), &*answer.code()), (Some(16), "missing_api_key"), "{method}");
    }
}

#[test]
fn an_unknown_key_is_unauthenticated() {
    refuses(&InferenceStack::new(), "nonsense", |message| message, 16, "invalid_api_key");
}

#[test]
fn a_revoked_key_is_unauthenticated() {
    let stack = InferenceStack::new();
    let revoked = key(&stack, "revokedke1", |record| record.revoked = true);
    refuses(&stack, &revoked, |message| message, 16, "key_revoked");
}

#[test]
fn an_operation_outside_the_keys_scope_is_denied() {
    let stack = InferenceStack::new();
    let narrow = key(&stack, "narrowkey1", |record| record.allowed_operations = vec!["chat".into()]);
    refuses(&stack, &narrow, |message| message, 7, "operation_not_allowed");
}

#[test]
fn a_model_outside_the_keys_scope_is_denied() {
    let stack = InferenceStack::new();
    let other = key(&stack, "otherkey11", |record| record.allowed_models = vec!["other".into()]);
    refuses(&stack, &other, |message| message, 7, "model_not_allowed");
}

#[test]
fn an_unknown_model_is_not_found() {
    let stack = InferenceStack::new();
    refuses(&stack, &stack.key.text, |_| field(1, b"nosuch"), 5, "model_not_found");
}

#[test]
fn a_message_that_parsers_could_read_differently_is_invalid() {
    let stack = InferenceStack::new();
    refuses(&stack, &stack.key.text, |_| [field(1, b"m"), field(1, b"hold")].concat(), 3, "duplicate_key");
    refuses(&stack, &stack.key.text, |_| field(2, b"m"), 3, "missing_parameter");
    refuses(&stack, &stack.key.text, |_| vec![0x8a, 0, 1, b'm'], 3, "invalid_message");
}

#[test]
fn a_message_that_is_too_large_exhausts_a_resource() {
    let stack = InferenceStack::with(|_| {}, |setup| setup.with("TENON_GATEWAY_BODY_BYTES_MAX", 10_000));
    refuses(&stack, &stack.key.text, |message| [message, vec![0x3a, 0x90, 0x4e], vec![0; 10_000]].concat(), 8, "request_too_large");
}

#[test]
fn a_compressed_message_is_unimplemented() {
    let stack = InferenceStack::new();
    let headers = [("authorization", &*format!("Bearer {}", stack.key.text)), ("grpc-encoding", "gzip")];
    assert_eq!(GrpcCaller::connect(stack.grpc).call("ModelInfer", &headers, &[infer("m")], None).status(), Some(12));
}

#[test]
fn an_endpoints_failures_are_reported_and_recorded() {
    let stack = InferenceStack::with(|endpoint| endpoint.headers_timeout_ms = 200, |setup| setup);
    let outcome = |method: &str, model: &str| {
        let seen = stack.call(method, &[infer(model)]);
        (seen.status(), seen.code(), stack.record(&seen).outcome())
    };
    for method in ["ModelInfer", "ModelStreamInfer"] {
        assert_eq!(outcome(method, "refuse"), (Some(3), String::new(), Outcome::UpstreamError), "their status is passed on");
        assert_eq!(outcome(method, "credential"), (Some(14), "upstream_refused_gateway".into(), Outcome::UpstreamError));
        assert_eq!(outcome(method, "cut"), (Some(14), "upstream_cut".into(), Outcome::Cut));
    }
    let bearer = format!("Bearer {}", stack.key.text);
    let headers = [("authorization", bearer.as_str()), ("grpc-timeout", "300m")];
    let seen = GrpcCaller::connect(stack.grpc).call("ModelInfer", &headers, &[infer("hold")], None);
    assert_eq!((seen.status(), seen.code()), (Some(4), "upstream_total_timeout".into()), "the caller's own deadline");
    assert_eq!(stack.record(&seen).outcome(), Outcome::Timeout);
    let mut nowhere = endpoint("e1", "http://127.0.0.1:1");
    nowhere.protocol = Protocol::KserveGrpc as i32;
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![nowhere], vec![model("m", "e1")])));
    let seen = stack.call("ModelInfer", &[infer("m")]);
    assert_eq!((seen.status(), seen.code()), (Some(14), "upstream_unreachable".into()));
}

#[test]
fn a_caller_that_cancels_ends_the_endpoints_call() {
    let stack = InferenceStack::new();
    let bearer = format!("Bearer {}", stack.key.text);
    let mut caller = GrpcCaller::connect(stack.grpc);
    let seen = caller.call("ModelStreamInfer", &[("x-api-key", stack.key.text.as_str())], &[infer("hold")], Some(1));
    wait_for("the cancel", || stack.upstream.cancelled.load(Ordering::SeqCst) == 1);
    let record = stack.record(&seen);
    assert_eq!((record.outcome(), record.output_tokens), (Outcome::ClientGone, 3), "what came is billed");
    // The connection serves on.
    assert_eq!(caller.call("ModelInfer", &[("authorization", &bearer)], &[infer("m")], None).status(), Some(0));
}

#[test]
fn a_revoked_key_ends_its_streams_and_a_stop_waits_for_them() {
    let mut stack = InferenceStack::new();
    let text = stack.key.text.clone();
    let (grpc, control) = (stack.grpc, stack.control.clone());
    let (sender, first_message) = std::sync::mpsc::channel();
    let running = std::thread::spawn(move || {
        let headers = [("x-api-key", text.as_str())];
        GrpcCaller::connect(grpc).call_observed("ModelStreamInfer", &headers, &[infer("hold")], None, || sender.send(()).unwrap())
    });
    first_message.recv().unwrap();
    control.revoke("keykeykey1");
    let seen = running.join().unwrap();
    wait_for("the cancel", || stack.upstream.cancelled.load(Ordering::SeqCst) == 1);
    assert_eq!((seen.status(), seen.code(), seen.messages.len()), (Some(16), "key_revoked".into(), 1));
    assert_eq!(stack.record(&seen).outcome(), Outcome::Cut);
    stack.gateway.terminate();
    assert!(stack.gateway.wait_end().success());
}
