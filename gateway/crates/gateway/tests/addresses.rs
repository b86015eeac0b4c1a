//! Where an endpoint's name may lead: the guard against requests forged through the gateway, at the moment of connecting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{BODY, House, endpoint, model, table};

fn chat(house: &House, name: &str) -> tenon_testkit::Answer {
    house.chat(&BODY.replace("\"m\"", &format!("\"{name}\"")))
}

#[test]
fn a_name_that_leads_into_a_private_network_is_not_followed_without_leave() {
    let house = House::new();
    let port = house.upstream.address.port();
    let by_name = format!("http://localhost:{port}/v1");
    let allowed = endpoint("allowed", &by_name);
    let mut refused = endpoint("refused", &by_name);
    refused.private_network_allowed = false;
    let mut literal = endpoint("literal", &house.upstream.url());
    literal.private_network_allowed = false;
    let models = vec![model("yes", "allowed"), model("no", "refused"), model("number", "literal")];
    house.gateway.wait_revision(house.control.put_routing(table(vec![allowed, refused, literal], models)));
    assert_eq!(chat(&house, "yes").status, 200);
    let asked = house.upstream.count();
    for name in ["no", "number"] {
        let answer = chat(&house, name);
        assert_eq!(
            (answer.status, answer.code()),
            (502, "upstream_unreachable".into()),
            "a kept connection of another endpoint does not serve either"
        );
    }
    assert_eq!(house.upstream.count(), asked, "nothing was sent");
    assert_eq!(chat(&house, "yes").status, 200);
}
