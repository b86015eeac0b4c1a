//! The Open Inference Protocol over gRPC: admitted, relayed, metered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::atomic::Ordering;
use support::inference::{House, answered, field, infer};
use support::{TENANT, endpoint, model, table};
use tenon_contract::{Operation, Outcome, Protocol, UsageSource};
use tenon_testkit::{GrpcCaller, TestKey, wait_for};

#[test]
fn an_inference_is_relayed_renamed_and_metered() {
    let house = House::new();
    let seen = house.call("ModelInfer", &[infer("m")]);
    assert_eq!((seen.status(), &seen.messages[..]), (Some(0), &[answered(11, 7).into()][..]), "the answer is untouched");
    let asked = house.upstream.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.message, infer("their-name-for-it"), "only the name changed");
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(asked.path, "/inference.GRPCInferenceService/ModelInfer");
    assert_eq!(header("authorization").as_deref(), Some("Bearer upstream-secret"));
    assert_eq!(header("x-request-id"), Some(seen.request_id()));
    let record = house.record(&seen);
    assert_eq!((record.operation(), record.outcome(), record.usage_source()), (Operation::Infer, Outcome::Completed, UsageSource::Engine));
    assert_eq!((record.input_tokens, record.output_tokens, record.streamed, record.upstream_model.as_str()), (11, 7, false, "their-name-for-it"));
}

#[test]
fn a_stream_is_one_call_whose_counts_add_up() {
    let house = House::new();
    let seen = house.call("ModelStreamInfer", &[infer("m"), infer("m"), infer("m")]);
    assert_eq!((seen.status(), seen.messages.len()), (Some(0), 3));
    let record = house.record(&seen);
    assert_eq!((record.outcome(), record.streamed, record.input_tokens, record.output_tokens), (Outcome::Completed, true, 11, 9));
    assert!(house.upstream.asked.lock().unwrap().iter().all(|asked| asked.message == infer("their-name-for-it")));
    // A later message cannot take another road.
    let seen = house.call("ModelStreamInfer", &[infer("m"), infer("hold")]);
    assert_eq!((seen.status(), seen.code()), (Some(7), "model_fixed".into()));
    assert!(house.upstream.asked.lock().unwrap().iter().all(|asked| asked.message == infer("their-name-for-it")));
    assert_eq!(house.record(&seen).outcome(), Outcome::Cut);
}

#[test]
fn what_needs_no_endpoint_is_answered_here() {
    let house = House::new();
    let live = house.with_key("nonsense", "ServerLive", &[vec![]]);
    assert_eq!((live.status(), &live.messages[0][..]), (Some(0), &[8, 1][..]));
    assert_eq!(house.call("ServerReady", &[vec![]]).messages[0][..], [8, 1]);
    assert!(house.call("ServerMetadata", &[vec![]]).messages[0].starts_with(b"\x0a\x0dtenon-gateway"));
    assert_eq!(house.call("ModelReady", &[field(1, b"m")]).messages[0][..], [8, 1]);
    assert_eq!(house.call("ModelReady", &[field(1, b"nosuch")]).status(), Some(5));
    assert_eq!(house.with_key("nonsense", "ServerReady", &[vec![]]).status(), Some(16));
    assert_eq!(house.asked(), 0);
    assert_eq!(house.call("ModelMetadata", &[field(1, b"m")]).status(), Some(0));
    assert_eq!(house.upstream.asked.lock().unwrap()[0].message, field(1, b"their-name-for-it"));
    for method in ["ModelConfig", "RepositoryIndex", "SystemSharedMemoryRegister", "Nonsense"] {
        assert_eq!(house.call(method, &[vec![]]).status(), Some(12), "{method}");
    }
}

#[test]
fn every_refusal_has_its_status() {
    let house = House::with(|_| {}, |setup| setup.with("TENON_GATEWAY_BODY_BYTES_MAX", 10_000));
    let key = |id: &str, change: fn(&mut tenon_contract::KeyRecord)| {
        let key = TestKey::new(id, TENANT).with(change);
        house.gateway.wait_revision(house.control.put_key(key.record.clone()));
        key.text
    };
    let narrow = key("narrowkey1", |record| record.allowed_operations = vec!["chat".into()]);
    let other = key("otherkey11", |record| record.allowed_models = vec!["other".into()]);
    let revoked = key("revokedke1", |record| record.revoked = true);
    for method in ["ModelInfer", "ModelStreamInfer", "ModelMetadata", "ModelReady"] {
        let good = if method.ends_with("Infer") { infer("m") } else { field(1, b"m") };
        let told = |key: &str, message: Vec<u8>| {
            let seen = house.with_key(key, method, &[message]);
            (seen.status().unwrap(), seen.code())
        };
        let mine = house.key.text.as_str();
        assert_eq!(GrpcCaller::connect(house.grpc).call(method, &[], std::slice::from_ref(&good), None).code(), "missing_api_key");
        assert_eq!(told("nonsense", good.clone()), (16, "invalid_api_key".into()));
        assert_eq!(told(&revoked, good.clone()), (16, "key_revoked".into()));
        assert_eq!(told(&narrow, good.clone()), (7, "operation_not_allowed".into()));
        assert_eq!(told(&other, good.clone()), (7, "model_not_allowed".into()));
        assert_eq!(told(mine, field(1, b"nosuch")), (5, "model_not_found".into()));
        assert_eq!(told(mine, [field(1, b"m"), field(1, b"hold")].concat()), (3, "duplicate_key".into()));
        assert_eq!(told(mine, field(2, b"m")), (3, "missing_parameter".into()));
        assert_eq!(told(mine, vec![0x8a, 0, 1, b'm']), (3, "invalid_message".into()));
        assert_eq!(told(mine, [good.clone(), vec![0x3a, 0x90, 0x4e], vec![0; 10_000]].concat()), (8, "request_too_large".into()));
    }
    assert_eq!(house.asked(), 0, "the endpoint heard of none of it");
    let encoded = [("authorization", &*format!("Bearer {}", house.key.text)), ("grpc-encoding", "gzip")];
    assert_eq!(GrpcCaller::connect(house.grpc).call("ModelInfer", &encoded, &[infer("m")], None).status(), Some(12));
}

#[test]
fn an_endpoints_failures_are_told_and_recorded() {
    let house = House::with(|endpoint| endpoint.headers_timeout_ms = 200, |setup| setup);
    let told = |method: &str, model: &str| {
        let seen = house.call(method, &[infer(model)]);
        (seen.status(), seen.code(), house.record(&seen).outcome())
    };
    for method in ["ModelInfer", "ModelStreamInfer"] {
        assert_eq!(told(method, "refuse"), (Some(3), String::new(), Outcome::UpstreamError), "their status is passed on");
        assert_eq!(told(method, "credential"), (Some(14), "upstream_refused_gateway".into(), Outcome::UpstreamError));
        assert_eq!(told(method, "cut"), (Some(14), "upstream_cut".into(), Outcome::Cut));
    }
    let bearer = format!("Bearer {}", house.key.text);
    let headers = [("authorization", bearer.as_str()), ("grpc-timeout", "300m")];
    let seen = GrpcCaller::connect(house.grpc).call("ModelInfer", &headers, &[infer("hold")], None);
    assert_eq!((seen.status(), seen.code()), (Some(4), "upstream_total_timeout".into()), "the caller's own deadline");
    assert_eq!(house.record(&seen).outcome(), Outcome::Timeout);
    let mut nowhere = endpoint("e1", "http://127.0.0.1:1");
    nowhere.protocol = Protocol::KserveGrpc as i32;
    house.gateway.wait_revision(house.control.put_routing(table(vec![nowhere], vec![model("m", "e1")])));
    let seen = house.call("ModelInfer", &[infer("m")]);
    assert_eq!((seen.status(), seen.code()), (Some(14), "upstream_unreachable".into()));
}

#[test]
fn a_caller_who_leaves_cancels_the_endpoint() {
    let house = House::new();
    let bearer = format!("Bearer {}", house.key.text);
    let mut caller = GrpcCaller::connect(house.grpc);
    let seen = caller.call("ModelStreamInfer", &[("x-api-key", house.key.text.as_str())], &[infer("hold")], Some(1));
    wait_for("the cancel", || house.upstream.cancelled.load(Ordering::SeqCst) == 1);
    let record = house.record(&seen);
    assert_eq!((record.outcome(), record.output_tokens), (Outcome::ClientGone, 3), "what came is billed");
    // The connection serves on.
    assert_eq!(caller.call("ModelInfer", &[("authorization", &bearer)], &[infer("m")], None).status(), Some(0));
}

#[test]
fn a_revoked_key_ends_its_streams_and_a_stop_waits_for_them() {
    let mut house = House::new();
    let text = house.key.text.clone();
    let (grpc, control) = (house.grpc, house.control.clone());
    let running = std::thread::spawn(move || GrpcCaller::connect(grpc).call("ModelStreamInfer", &[("x-api-key", &text)], &[infer("hold")], None));
    wait_for("it runs", || house.asked() == 1);
    std::thread::sleep(std::time::Duration::from_millis(50));
    control.revoke("keykeykey1");
    let seen = running.join().unwrap();
    wait_for("the cancel", || house.upstream.cancelled.load(Ordering::SeqCst) == 1);
    assert_eq!((seen.status(), seen.code(), seen.messages.len()), (Some(16), "key_revoked".into(), 1));
    assert_eq!(house.record(&seen).outcome(), Outcome::Cut);
    house.gateway.terminate();
    assert!(house.gateway.wait_end().success());
}
