//! Every metric is in docs/reference/metrics.md (`TENON_GENERATE=1` writes it), and the served revision is shown beside the received one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;
use support::{Stack, endpoint, model, table};
use tenon_testkit::{Authority, Step, Upstream, get, json_answer, wait_for};

const HEAD: &str = "# Metrics of the gateway

At `/metrics` of the admin listener. `gateway/crates/gateway/tests/metrics.rs` writes this page from a running gateway.
Labels are fixed lists or, for endpoints, at most 200. Metrics of TLS, of the request log and of spans exist when those
are configured.

**Rejected updates** (`tenon_gateway_snapshot_rejected_total`), by reason:

- `unreadable`: a message that cannot be read. `older`: a full snapshot older than the served one. The served snapshot
  stays, and `/readyz` answers `stale` with the reason.
- `unknown`: a change that this version does not know. It is skipped.
- `key`: the key counts as revoked.
- `endpoint`: the endpoint is not used. `tenon_gateway_endpoints_unusable` is the number of such endpoints now.
- `issuer`: its tokens are refused.

The log names each of them.

| metric | kind | labels | meaning |
|---|---|---|---|
";

/// The metrics page of a gateway with every optional feature on.
fn page() -> String {
    let stack = Stack::with(|setup| {
        let (certificate, key) = Authority::new().issue("localhost");
        let path = |name: &str| setup.data_dir().join(name);
        std::fs::write(path("cert.pem"), certificate).unwrap();
        std::fs::write(path("key.pem"), key).unwrap();
        let tls = [("TENON_GATEWAY_TLS_CERT_FILE", path("cert.pem")), ("TENON_GATEWAY_TLS_KEY_FILE", path("key.pem"))];
        let log = path("requests");
        let setup = tls.into_iter().fold(setup, |setup, (name, path)| setup.with(name, path.display()));
        let setup = setup.with("TENON_GATEWAY_REQUEST_LOG_RATIO", 1).with("TENON_GATEWAY_REQUEST_LOG_FILE", log.display());
        setup.with("TENON_OTLP_ENDPOINT", "http://127.0.0.1:9")
    });
    let engine = Upstream::start(|_| vec![Step::Send(json_answer(200, "vllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0.5\n"))]);
    let mut watched = endpoint("e1", &engine.url());
    watched.metrics_url = format!("http://{}/metrics", engine.address);
    stack.control.put_routing(table(vec![watched], vec![model("m", "e1")]));
    let page = || get(stack.gateway.admin, "/metrics", "").text();
    wait_for("the engine reports", || page().contains("tenon_gateway_engine_cache_usage_ratio{"));
    page()
}

/// The names of a metric's labels, except a histogram's `le`.
fn labels(page: &str, name: &str) -> String {
    let lines = page.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    let inside = lines.filter_map(|line| line.split_once('{')?.1.split_once('}'));
    let names = inside.flat_map(|(inside, _)| inside.split("\",").map(|part| part.split('=').next().unwrap_or_default().to_owned()));
    let names: BTreeSet<String> = names.filter(|name| name != "le").map(|name| format!("`{name}`")).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[test]
fn every_metric_is_in_the_reference() {
    let page = page();
    let mut rows: Vec<String> = vec![];
    for line in page.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) else {
            continue;
        };
        let kind = page.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        rows.push(format!("| `{name}` | {kind} | {} | {help} |\n", labels(&page, name)));
    }
    support::checked_page("metrics.md", &format!("{HEAD}{}", rows.concat()));
}

#[test]
fn an_endpoint_that_cannot_be_used_is_counted_and_the_rest_is_served() {
    let stack = Stack::new();
    let (good, bad) = (endpoint("e1", &stack.upstream.url()), endpoint("e2", "ftp://nowhere"));
    let revision = stack.control.put_routing(table(vec![good, bad], vec![model("m", "e1")]));
    stack.gateway.wait_revision(revision);
    assert_eq!(stack.gateway.metric("tenon_gateway_snapshot_rejected_total{reason=\"endpoint\"}"), 1.0);
    assert_eq!(stack.gateway.metric("tenon_gateway_endpoints_unusable"), 1.0);
    assert_eq!(stack.gateway.metric("tenon_gateway_revision_received"), stack.gateway.metric("tenon_gateway_revision"));
    assert_eq!(stack.chat(support::BODY).status, 200);
    let revision = stack.control.put_routing(table(vec![endpoint("e1", &stack.upstream.url())], vec![model("m", "e1")]));
    stack.gateway.wait_revision(revision);
    wait_for("it is gone", || stack.gateway.metric("tenon_gateway_endpoints_unusable") == 0.0);
}
