//! The request log: a sample of calls, without any text of callers; off by default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::os::unix::fs::PermissionsExt;
use support::{BODY, Stack};
use tenon_testkit::wait_for;

#[test]
fn a_sampled_call_leaves_a_line_without_its_words() {
    let stack = Stack::with(|setup| {
        let file = setup.data_dir().join("requests.jsonl").display().to_string();
        let setup = setup.with("TENON_GATEWAY_REQUEST_LOG_RATIO", 1).with("TENON_GATEWAY_REQUEST_LOG_FILE", file);
        setup.with("TENON_GATEWAY_REQUEST_LOG_BODIES", "redacted")
    });
    let id = stack.chat(&BODY.replace("hi", "a word nobody may read")).request_id();
    let file = stack.setup.data_dir().join("requests.jsonl");
    wait_for("the line", || std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    let text = std::fs::read_to_string(&file).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["request_id"], &line["outcome"], &line["request"]["model"]), (&id.into(), &"completed".into(), &"m".into()));
    assert_eq!(line["request"]["messages"][0]["content"]["length"], 22);
    assert!(!text.contains("nobody may read") && !text.contains(&stack.key.text) && !text.contains("upstream-secret"), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(stack.gateway.metric("tenon_gateway_request_log_written_total"), 1.0);
}
