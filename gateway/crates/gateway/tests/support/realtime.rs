//! A stack for realtime sessions: an endpoint, a gateway and callers.

use super::{TENANT, endpoint, model, setup, table};
use std::time::Duration;
use tenon_contract::{Endpoint, Governance, Limit, UsageRecord};
use tenon_testkit::{Control, Gateway, ServerSocket, Setup, TestKey, WebSocketCaller, WebSocketUpstream, wait_for};
use tungstenite::Message;

pub const CREATE: &str = r#"{"type":"response.create"}"#;

pub struct RealtimeStack {
    pub control: Control,
    pub upstream: WebSocketUpstream,
    pub key: TestKey,
    pub gateway: Gateway,
    pub setup: Setup,
}

fn send(socket: &mut ServerSocket, text: &str) {
    socket.send(Message::text(text)).unwrap();
}

fn respond(socket: &mut ServerSocket, hang: bool) {
    send(socket, r#"{"type":"response.created","response":{"id":"r","usage":null}}"#);
    send(socket, r#"{"type":"response.output_audio.delta","delta":"AAAA"}"#);
    if !hang {
        send(
            socket,
            r#"{"type":"response.done","response":{"id":"r","status":"completed","usage":{"input_tokens":20,"output_tokens":10,"input_token_details":{"audio_tokens":15,"cached_tokens":4},"output_token_details":{"audio_tokens":8}}}}"#,
        );
    }
}

/// Like a real server: answers `response.create`, and acts on other events by their type.
fn answer(text: &str, socket: &mut ServerSocket) {
    let event: serde_json::Value = serde_json::from_str(text).unwrap();
    match event["type"].as_str().unwrap() {
        "response.create" if event["response"]["busy"] == true => {
            send(socket, r#"{"type":"error","error":{"code":"conversation_already_has_active_response","message":"theirs"}}"#);
        }
        "response.create" => respond(socket, event["response"]["hang"] == true),
        // Its own voice detection noticed that the caller stopped.
        "speak" => respond(socket, false),
        "dictate" => send(
            socket,
            r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"tokens","input_tokens":40,"output_tokens":5}}"#,
        ),
        "close" => {
            let code = u16::try_from(event["code"].as_u64().unwrap()).unwrap();
            let _ = socket.close(Some(tungstenite::protocol::CloseFrame { code: code.into(), reason: "theirs".into() }));
        }
        "cut" => drop(socket.get_mut().shutdown(std::net::Shutdown::Both)),
        "mute" => std::thread::sleep(Duration::from_secs(5)),
        _ => send(socket, &format!(r#"{{"type":"echo","text":{}}}"#, serde_json::Value::from(text))),
    }
}

impl RealtimeStack {
    pub fn new() -> Self {
        Self::with(|_| {}, |setup| setup)
    }

    pub fn with(change: impl FnOnce(&mut Endpoint), setting: impl FnOnce(Setup) -> Setup) -> Self {
        let control = Control::start();
        let upstream = WebSocketUpstream::start(answer);
        let key = TestKey::new("keykeykey1", TENANT);
        control.put_key(key.record.clone());
        let mut here = endpoint("e1", &upstream.url());
        change(&mut here);
        let mut renamed = model("m", "e1");
        renamed.routes[0].upstream_model = "gpt-realtime".into();
        control.put_routing(table(vec![here], vec![renamed, model("w", "e1"), model("other", "e1")]));
        let setup = setting(setup(&control));
        let gateway = setup.start();
        Self { control, upstream, key, gateway, setup }
    }

    pub fn open(&self) -> WebSocketCaller {
        WebSocketCaller::open(self.gateway.address, "/v1/realtime?model=m", &[("authorization", &format!("Bearer {}", self.key.text))]).unwrap()
    }

    pub fn refused(&self, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let (status, body) = WebSocketCaller::open(self.gateway.address, target, headers).err().expect("refused");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status, body["error"]["code"].as_str().unwrap().to_owned())
    }

    pub fn govern(&self, limits: Vec<Limit>) {
        let revision = self.control.put_governance(Governance { tenant_id: TENANT.into(), limits, ..Governance::default() });
        self.gateway.wait_revision(revision);
        wait_for("the shares arrive", || self.gateway.metric("tenon_gateway_limits_without_share") == 0.0);
    }

    pub fn record(&self, id: &str) -> UsageRecord {
        wait_for("the record", || self.control.usage_of(id).is_some());
        self.control.usage_of(id).unwrap()
    }
}

/// The code of the error event that ends a session, and the code of its close frame.
pub fn ended(caller: &mut WebSocketCaller) -> (String, u16) {
    let code = loop {
        let event = caller.receive();
        if event["type"] == "error" {
            break event["error"]["code"].as_str().unwrap().to_owned();
        }
    };
    (code, caller.closed())
}
