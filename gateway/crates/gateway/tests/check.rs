//! Before a start: what is wrong, in plain sentences, and what a restart would change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::process::Command;
use support::House;

fn run(command: &mut Command, argument: &str) -> (i32, String) {
    let output = command.arg(argument).stderr(std::process::Stdio::piped()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_is_wrong_is_said_all_at_once_and_nothing_is_started() {
    let house = House::new();
    house.gateway.wait_revision(house.control.revision());
    let (code, text) = run(&mut house.setup.command(), "check");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("well") && text.contains("saved snapshot"), "{text}");
    let nothing = house.setup.data_dir().join("nothing").display().to_string();
    let mut broken = house.setup.command();
    broken.env("TENON_GATEWAY_TLS_CERT_FILE", &nothing).env("TENON_GATEWAY_TLS_KEY_FILE", &nothing);
    broken.env("TENON_GATEWAY_SEALING_KEY_FILE", house.setup.data_dir().join("token"));
    broken.env("TENON_GATEWAY_DATA_DIR", house.setup.data_dir().join("token/below"));
    let (code, text) = run(&mut broken, "check");
    assert_eq!(code, 2, "{text}");
    for name in ["TENON_GATEWAY_TLS_CERT_FILE", "TENON_GATEWAY_SEALING_KEY_FILE", "TENON_GATEWAY_DATA_DIR"] {
        assert!(text.lines().any(|line| line.starts_with("wrong") && line.contains(name)), "{name} in {text}");
    }
    let (code, text) = run(house.setup.command().env("TENON_GATEWAY_THREADS", "many"), "check");
    assert!(code == 2 && text.contains("TENON_GATEWAY_THREADS"), "{text}");
    assert_eq!(house.chat(support::BODY).status, 200, "the one that runs was not touched");
}

#[test]
fn a_restart_tells_what_it_would_change() {
    let house = House::new();
    assert_eq!(run(&mut house.setup.command(), "diff"), (0, "nothing would change\n".into()));
    let (code, text) = run(house.setup.command().env("TENON_GATEWAY_DRAIN_MS", "77"), "diff");
    assert_eq!((code, text.as_str()), (0, "TENON_GATEWAY_DRAIN_MS: 30000 -> 77\n"));
    let (code, text) = run(house.setup.command().env("TENON_GATEWAY_ADMIN_LISTEN", "127.0.0.1:1"), "diff");
    assert!(code == 1 && text.contains("no gateway answers"), "{text}");
}
