//! Spans and log lines: their content, when there are none, and what is never in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use prost::Message;
use std::collections::BTreeMap;
use support::{BODY, CHAT, DONE, STREAM_BODY, Stack, USAGE_FRAME, endpoint, frame, model, table, whole_stream};
use tenon_telemetry::otlp::{ExportTraceServiceRequest, Span, SpanKind, StatusCode, Value};
use tenon_testkit::{Answer, Client, Step, Upstream, json_answer, sse_head, wait_for};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const CANARY: &str = "Canary Passenger 4711";

struct Observed {
    stack: Stack,
    collector: Upstream,
}

impl Observed {
    fn new(ratio: &str) -> Self {
        let collector = Upstream::start(|_| vec![Step::Send(json_answer(200, ""))]);
        let stack = Stack::with(|setup| {
            let setup = setup.with("TENON_OTLP_ENDPOINT", format!("http://{}", collector.address));
            setup.with("TENON_TRACE_SAMPLE_RATIO", ratio).with("TENON_LOG", "info")
        });
        Self { stack, collector }
    }

    fn call(&self, flags: &str, body: &str) -> Answer {
        let parent = format!("00-{TRACE}-{PARENT}-{flags}");
        Client::post(self.stack.gateway.address, CHAT, &[("x-api-key", &self.stack.key.text), ("traceparent", &parent)], body).finish()
    }

    /// Stops the gateway, which sends what it has, and reads all that ever arrived.
    fn spans(&mut self) -> Vec<Span> {
        self.stack.gateway.terminate();
        assert!(self.stack.gateway.wait_end().success());
        let requests = self.collector.requests.lock().unwrap();
        requests.iter().flat_map(|request| read(&request.body)).collect()
    }

    fn lines(&self, request_id: &str) -> Vec<serde_json::Value> {
        self.stack.setup.log().into_iter().filter(|line| line["request_id"] == request_id).collect()
    }
}

fn read(body: &[u8]) -> Vec<Span> {
    let message = ExportTraceServiceRequest::decode(body).unwrap();
    let of = |resource: tenon_telemetry::otlp::ResourceSpans| {
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        let service = attributes.iter().find(|a| a.key == "service.name").unwrap().value.clone().unwrap().value;
        assert_eq!(service, Some(Value::Text("tenon-gateway".into())));
        resource.scope_spans.into_iter().flat_map(|scope| scope.spans)
    };
    message.resource_spans.into_iter().flat_map(of).collect()
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
    };
    span.attributes.iter().map(|a| (&*a.key, text(a.value.as_ref().unwrap().value.as_ref().unwrap()))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_sampled_call_is_one_span_between_caller_and_upstream() {
    let mut observed = Observed::new("0");
    let answer = observed.call("01", BODY);
    assert_eq!(answer.status, 200);
    let spans = observed.spans();
    let [span] = &spans[..] else { panic!("{} spans", spans.len()) };
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    let passed_on = format!("00-{TRACE}-{}-01", hex(&span.span_id));
    assert_eq!(observed.stack.upstream.last().header("traceparent"), Some(&*passed_on));
    assert_eq!((&*span.name, span.kind(), span.status.is_none()), ("chat m", SpanKind::Server, true));
    assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano > span.start_time_unix_nano);
    let expected = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "m"),
        ("gen_ai.usage.input_tokens", "11"),
        ("gen_ai.usage.output_tokens", "7"),
        ("http.response.status_code", "200"),
        ("tenon.outcome", "completed"),
        ("tenon.request_id", &answer.request_id()),
    ];
    assert_eq!(attributes(span), expected.map(|(name, value)| (name, value.to_owned())).into());
    let request = observed.collector.last();
    assert_eq!((&*request.line, request.header("content-type")), ("POST /v1/traces HTTP/1.1", Some("application/x-protobuf")));
    assert!(observed.lines(&answer.request_id()).is_empty(), "a good call has no line");
}

#[test]
fn what_is_not_sampled_sends_nothing() {
    let mut observed = Observed::new("0");
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(observed.call("00", BODY).status, 200);
    assert_eq!(observed.stack.upstream.last().header("traceparent"), Some(&*unsampled), "it goes on as it came");
    assert_eq!(observed.stack.chat(BODY).status, 200);
    assert_eq!(observed.stack.upstream.last().header("traceparent"), None);
    assert!(observed.spans().is_empty());
    assert_eq!(observed.collector.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn the_ratio_begins_traces_but_the_caller_comes_first() {
    let mut observed = Observed::new("1");
    let answer = observed.stack.chat(BODY);
    let trace_id = observed.stack.usage(&answer).trace_id;
    let passed_on = observed.stack.upstream.last().header("traceparent").unwrap().to_owned();
    observed.call("00", BODY);
    let spans = observed.spans();
    assert_eq!(spans.len(), 1, "a caller that opted out has no span");
    assert_eq!(hex(&spans[0].trace_id), trace_id, "usage knows the trace");
    assert_eq!(passed_on, format!("00-{trace_id}-{}-01", hex(&spans[0].span_id)));
    assert!(spans[0].parent_span_id.is_empty());
}

#[test]
fn spans_arrive_while_it_runs_and_are_counted() {
    let observed = Observed::new("0");
    observed.call("01", BODY);
    wait_for("the span arrives", || observed.collector.count() == 1);
    wait_for("the span is counted", || observed.stack.gateway.metric("tenon_gateway_spans_exported_total") == 1.0);
    observed.collector.respond(|_| vec![Step::Send(json_answer(503, ""))]);
    observed.call("01", BODY);
    wait_for("the lost span is counted", || observed.stack.gateway.metric("tenon_gateway_spans_dropped_total{reason=\"send_failed\"}") == 1.0);
    assert_eq!(observed.stack.gateway.metric("tenon_gateway_spans_dropped_total{reason=\"queue_full\"}"), 0.0);
    let lines = observed.stack.setup.log().into_iter().filter(|line| line["message"].as_str().is_some_and(|m| m.contains("not exported"))).count();
    assert_eq!(lines, 1);
}

#[test]
fn streams_and_failures_have_their_outcome() {
    let mut observed = Observed::new("0");
    observed.stack.upstream.respond(|_| whole_stream());
    observed.call("01", STREAM_BODY);
    observed.stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::Close]);
    observed.call("01", STREAM_BODY);
    observed.stack.upstream.respond(|_| vec![Step::Send(json_answer(500, "{}"))]);
    observed.call("01", BODY);
    observed.call("01", &BODY.replace("\"m\"", "\"nothing\""));
    let spans = observed.spans();
    let labels: Vec<_> = spans
        .iter()
        .map(|span| {
            let of = attributes(span);
            let get = |name: &str| of.get(name).cloned().unwrap_or_default();
            let failed = span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
            (get("tenon.outcome"), get("error.type"), get("http.response.status_code"), get("gen_ai.request.model"), failed)
        })
        .collect();
    let row = |outcome: &str, error: &str, status: &str, model: &str| (outcome.into(), error.into(), status.into(), model.into(), !error.is_empty());
    let mut expected = [
        row("completed", "", "200", "m"),
        row("cut", "upstream_cut", "200", "m"),
        row("upstream_error", "upstream_error", "502", "m"),
        row("refused", "model_not_found", "404", ""),
    ];
    let mut labels: [_; 4] = labels.try_into().unwrap();
    labels.sort();
    expected.sort();
    assert_eq!(labels, expected, "each of the two threads has its order");
}

#[test]
fn no_key_no_body_and_no_callers_text_leaves() {
    let mut observed = Observed::new("1");
    let key = observed.stack.key.text.clone();
    let body = format!(r#"{{"model":"m","user":"{CANARY}","messages":[{{"role":"user","content":"{CANARY}"}}]}}"#);
    let answered = format!(r#"{{"choices":[{{"message":{{"content":"{CANARY}"}}}}],"usage":{{"prompt_tokens":1,"completion_tokens":1}}}}"#);
    observed.stack.upstream.respond(move |_| vec![Step::Send(json_answer(200, &answered))]);
    assert_eq!(observed.call("01", &body).status, 200);
    assert_eq!(observed.call("01", &body.replace("\"m\"", &format!("\"{CANARY}\""))).status, 404);
    assert_eq!(observed.call("01", &format!("{{\"{CANARY}")).status, 400);
    observed.stack.upstream.respond(|_| vec![Step::Send(json_answer(400, CANARY)), Step::Close]);
    assert_eq!(observed.call("01", &body).status, 400);
    let damaged = format!("{}x", &key[..key.len() - 1]);
    assert_eq!(tenon_testkit::post(observed.stack.gateway.address, &format!("{CHAT}?q={}", CANARY.replace(' ', "+")), &damaged, &body).status, 401);
    assert_eq!(observed.spans().len(), 3);
    let requests = observed.collector.requests.lock().unwrap();
    let sent: Vec<u8> = requests.iter().flat_map(|request| [format!("{:?}", request.headers).as_bytes(), &request.body[..]].concat()).collect();
    let log = std::fs::read(observed.stack.setup.data_dir().join("log")).unwrap();
    let secret = key.rsplit('_').next().unwrap();
    for (what, bytes) in [("spans", &sent), ("log", &log)] {
        let text = String::from_utf8_lossy(bytes);
        assert!(text.contains("model_not_found"), "{what}");
        for leak in [CANARY, "Canary", &key, secret, &damaged, "upstream-secret", "\"messages\""] {
            assert!(!text.contains(leak), "{leak} in {what}");
        }
    }
}

#[test]
fn a_failed_or_unusual_call_has_one_line_with_its_ids() {
    let observed = Observed::new("0");
    let stack = &observed.stack;
    let line = |answer: &Answer| {
        wait_for("the line is written", || !observed.lines(&answer.request_id()).is_empty());
        let lines = observed.lines(&answer.request_id());
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!((&lines[0]["trace_id"], &lines[0]["status"]), (&TRACE.into(), &answer.status.into()));
        let text = |name: &str| lines[0][name].as_str().unwrap_or_default().to_owned();
        (text("level"), text("outcome"), text("code"), text("endpoint_id"))
    };
    let row = |texts: [&str; 4]| <(String, String, String, String)>::from(texts.map(str::to_owned));
    stack.upstream.respond(|_| vec![Step::Send(json_answer(500, "{}"))]);
    assert_eq!(line(&observed.call("00", BODY)), row(["WARN", "upstream_error", "upstream_error", "e1"]));
    assert_eq!(line(&observed.call("01", "{")), row(["INFO", "refused", "invalid_json", ""]));
    assert_eq!(line(&observed.call("01", &BODY.replace("\"m\"", "\"x\""))), row(["INFO", "refused", "model_not_found", ""]));
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::Close]);
    assert_eq!(line(&observed.call("01", STREAM_BODY)), row(["WARN", "cut", "upstream_cut", "e1"]));
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send([USAGE_FRAME, DONE].concat()), Step::Close]);
    let dead = tenon_testkit::unused_address();
    let mut both = model("m", "e1");
    both.routes.push(tenon_contract::Route { endpoint_id: "dead".into(), weight: 1_000_000, ..Default::default() });
    let endpoints = vec![endpoint("e1", &stack.upstream.url()), endpoint("dead", &format!("http://{dead}/v1"))];
    stack.gateway.wait_revision(stack.control.put_routing(table(endpoints, vec![both])));
    assert_eq!(line(&observed.call("01", STREAM_BODY)), row(["INFO", "completed", "upstream_unreachable", "dead"]));
}

#[test]
fn a_flood_of_refusals_does_not_fill_the_log() {
    let observed = Observed::new("0");
    let refused = 200;
    for _ in 0..refused {
        assert_eq!(observed.call("00", "{").status, 400);
    }
    let written = observed.stack.setup.log().iter().filter(|line| line["code"] == "invalid_json").count();
    let suppressed = observed.stack.gateway.metric("tenon_gateway_log_lines_suppressed_total");
    assert_eq!(written as f64 + suppressed, f64::from(refused));
    assert!(suppressed > 0.0);
    observed.stack.upstream.respond(|_| vec![Step::Send(json_answer(500, "{}"))]);
    let failed = observed.call("00", BODY);
    assert_eq!(observed.lines(&failed.request_id()).len(), 1, "a failure is not hidden by refusals");
}

#[test]
fn an_address_that_cannot_be_used_is_said_at_the_start() {
    let control = tenon_testkit::Control::start();
    for (name, value) in [("TENON_OTLP_ENDPOINT", "collector:4318"), ("TENON_TRACE_SAMPLE_RATIO", "2")] {
        let setup = support::setup(&control).with(name, value);
        assert_eq!(setup.command().status().unwrap().code(), Some(2), "{name}");
    }
}
