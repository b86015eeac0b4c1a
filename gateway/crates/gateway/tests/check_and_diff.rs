//! `check` and `diff`: the problems of a configuration, and what a restart would change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::process::Command;
use support::Stack;

fn run(command: &mut Command, argument: &str) -> (i32, String) {
    let output = command.arg(argument).stderr(std::process::Stdio::piped()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

#[test]
fn all_problems_are_listed_and_nothing_is_started() {
    let stack = Stack::new();
    stack.gateway.wait_revision(stack.control.revision());
    let (code, text) = run(&mut stack.setup.command(), "check");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("can start") && text.contains("saved snapshot"), "{text}");
    let nothing = stack.setup.data_dir().join("nothing").display().to_string();
    let mut broken = stack.setup.command();
    broken.env("TENON_GATEWAY_TLS_CERT_FILE", &nothing).env("TENON_GATEWAY_TLS_KEY_FILE", &nothing);
    broken.env("TENON_GATEWAY_SEALING_KEY_FILE", stack.setup.data_dir().join("token"));
    broken.env("TENON_GATEWAY_DATA_DIR", stack.setup.data_dir().join("token/below"));
    let (code, text) = run(&mut broken, "check");
    assert_eq!(code, 2, "{text}");
    for name in ["TENON_GATEWAY_TLS_CERT_FILE", "TENON_GATEWAY_SEALING_KEY_FILE", "TENON_GATEWAY_DATA_DIR"] {
        assert!(text.lines().any(|line| line.starts_with("problem") && line.contains(name)), "{name} in {text}");
    }
    let (code, text) = run(stack.setup.command().env("TENON_GATEWAY_THREADS", "many"), "check");
    assert!(code == 2 && text.contains("TENON_GATEWAY_THREADS"), "{text}");
    assert_eq!(stack.chat(support::BODY).status, 200, "the one that runs was not touched");
}

#[test]
fn diff_lists_what_a_restart_would_change() {
    let stack = Stack::new();
    assert_eq!(run(&mut stack.setup.command(), "diff"), (0, "nothing would change\n".into()));
    let (code, text) = run(stack.setup.command().env("TENON_GATEWAY_DRAIN_MS", "77"), "diff");
    assert_eq!((code, text.as_str()), (0, "TENON_GATEWAY_DRAIN_MS: 30000 -> 77\n"));
    let (code, text) = run(stack.setup.command().env("TENON_GATEWAY_ADMIN_LISTEN", "127.0.0.1:1"), "diff");
    assert!(code == 1 && text.contains("no gateway answers"), "{text}");
}
