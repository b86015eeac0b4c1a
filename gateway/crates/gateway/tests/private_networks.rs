//! The addresses that an endpoint's name may resolve to: the SSRF guard, checked when connecting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{BODY, Stack, endpoint, model, table};

fn chat(stack: &Stack, name: &str) -> tenon_testkit::Answer {
    stack.chat(&BODY.replace("\"m\"", &format!("\"{name}\"")))
}

#[test]
fn a_name_of_a_private_network_is_refused_unless_allowed() {
    let stack = Stack::new();
    let port = stack.upstream.address.port();
    let by_name = format!("http://localhost:{port}/v1");
    let allowed = endpoint("allowed", &by_name);
    let mut refused = endpoint("refused", &by_name);
    refused.private_network_allowed = false;
    let mut literal = endpoint("literal", &stack.upstream.url());
    literal.private_network_allowed = false;
    let models = vec![model("yes", "allowed"), model("no", "refused"), model("number", "literal")];
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![allowed, refused, literal], models)));
    assert_eq!(chat(&stack, "yes").status, 200);
    let received = stack.upstream.count();
    for name in ["no", "number"] {
        let answer = chat(&stack, name);
        assert_eq!(
            (answer.status, answer.code()),
            (502, "upstream_unreachable".into()),
            "a kept connection of another endpoint does not serve either"
        );
    }
    assert_eq!(stack.upstream.count(), received, "nothing was sent");
    assert_eq!(chat(&stack, "yes").status, 200);
}
