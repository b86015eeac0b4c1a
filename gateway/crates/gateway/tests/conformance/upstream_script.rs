//! The answers of good engines, and the faults of bad ones. The endpoint's address names the fault: `http://host/<fault>/v1`.

use std::time::Duration;
use tenon_testkit::{ReceivedRequest, Step, json_answer, sse_head};

const CHAT: &str = r#"{"id":"c1","object":"chat.completion","created":1,"model":"u","choices":[{"index":0,"message":{"role":"assistant","content":"yo"},"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#;
const COMPLETION: &str = r#"{"id":"c1","object":"text_completion","created":1,"model":"u","choices":[{"index":0,"text":"yo","finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#;
const EMBEDDING: &str =
    r#"{"object":"list","model":"u","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":11,"total_tokens":11}}"#;
const RESPONSE: &str = r#"{"id":"r1","object":"response","created_at":1,"status":"completed","model":"u","output":[{"type":"message","id":"m1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"yo","annotations":[]}]}],"usage":{"input_tokens":11,"input_tokens_details":{"cached_tokens":0},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":18}}"#;
const MESSAGE: &str = r#"{"id":"m1","type":"message","role":"assistant","model":"u","content":[{"type":"text","text":"yo"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":7}}"#;
const COUNT: &str = r#"{"input_tokens":11}"#;
const RERANK: &str = r#"{"model":"u","usage":{"prompt_tokens":11,"total_tokens":11},"results":[{"index":0,"relevance_score":0.9}]}"#;
const TRANSCRIPTION: &str = r#"{"text":"yo","usage":{"type":"tokens","input_tokens":11,"output_tokens":7,"total_tokens":18}}"#;
const IMAGE: &str = r#"{"created":1,"data":[{"b64_json":"aGk="}],"usage":{"input_tokens":11,"output_tokens":7,"total_tokens":18}}"#;

fn whole(path: &str) -> Vec<u8> {
    let body = match path {
        "/v1/completions" => COMPLETION,
        "/v1/embeddings" => EMBEDDING,
        "/v1/responses" => RESPONSE,
        "/v1/messages" => MESSAGE,
        "/v1/messages/count_tokens" => COUNT,
        "/v1/rerank" => RERANK,
        "/v1/audio/transcriptions" | "/v1/audio/translations" => TRANSCRIPTION,
        "/v1/images/generations" | "/v1/images/edits" | "/v1/images/variations" => IMAGE,
        "/v1/audio/speech" => return b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 8\r\n\r\nID3.....".to_vec(),
        _ => CHAT,
    };
    json_answer(200, body)
}

/// A text frame of a server (RFC 6455 §5.2).
fn text_frame(json: &str) -> Vec<u8> {
    assert!((126..65_536).contains(&json.len()));
    [&[0x81, 126][..], &u16::try_from(json.len()).unwrap().to_be_bytes(), json.as_bytes()].concat()
}

fn socket_frames() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let created = format!(r#"{{"type":"response.created","response":{{"id":"r","usage":null,"pad":"{}"}}}}"#, "x".repeat(100));
    let usage = r#"{"total_tokens":18,"input_tokens":11,"output_tokens":7,"input_token_details":{"audio_tokens":5},"output_token_details":{}}"#;
    let done = format!(r#"{{"type":"response.done","response":{{"id":"r","status":"completed","usage":{usage}}}}}"#);
    (vec![text_frame(&created)], vec![text_frame(&done), vec![0x88, 2, 3, 0xe8]])
}

fn socket_head(request: &ReceivedRequest) -> Vec<u8> {
    let accept = tungstenite::handshake::derive_accept_key(request.header("sec-websocket-key").unwrap_or_default().as_bytes());
    format!("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n").into_bytes()
}

fn data(json: &str) -> Vec<u8> {
    format!("data: {json}\n\n").into_bytes()
}

fn event(name: &str, json: &str) -> Vec<u8> {
    format!("event: {name}\ndata: {json}\n\n").into_bytes()
}

/// The frames of a good stream: those with text, and those that end it.
pub fn frames(path: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    match path {
        "/v1/messages" => messages_frames(),
        "/v1/responses" => responses_frames(),
        "/v1/realtime" => socket_frames(),
        "/v1/completions" => (
            vec![data(r#"{"id":"c1","object":"text_completion","created":1,"model":"u","choices":[{"index":0,"text":"a","finish_reason":null}]}"#)],
            vec![
                data(r#"{"id":"c1","object":"text_completion","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#),
                data("[DONE]"),
            ],
        ),
        _ => (
            vec![data(
                r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"u","choices":[{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}]}"#,
            )],
            vec![
                data(
                    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"u","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
                ),
                data(
                    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"u","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#,
                ),
                data("[DONE]"),
            ],
        ),
    }
}

fn messages_frames() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let start = r#"{"type":"message_start","message":{"id":"m1","type":"message","role":"assistant","model":"u","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}}}"#;
    let text = vec![
        event("message_start", start),
        event("content_block_start", r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#),
        event("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#),
    ];
    let end = vec![
        event("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
        event("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":7}}"#),
        event("message_stop", r#"{"type":"message_stop"}"#),
    ];
    (text, end)
}

fn responses_frames() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let created = r#"{"type":"response.created","sequence_number":0,"response":{"id":"r1","object":"response","status":"in_progress","usage":null}}"#;
    let delta = r#"{"type":"response.output_text.delta","sequence_number":1,"item_id":"m1","output_index":0,"content_index":0,"delta":"a"}"#;
    let completed = format!(r#"{{"type":"response.completed","sequence_number":2,"response":{RESPONSE}}}"#);
    (vec![event("response.created", created), event("response.output_text.delta", delta)], vec![event("response.completed", &completed)])
}

/// The fault and the path in an endpoint's address: `/<fault>/v1/…`.
fn fault_and_path(request: &ReceivedRequest) -> (String, String) {
    let target = request.line.split(' ').nth(1).unwrap_or_default();
    let (fault, path) = target[1..].split_once('/').unwrap_or(("", ""));
    (fault.to_owned(), format!("/{}", path.split('?').next().unwrap_or_default()))
}

fn is_streamed(request: &ReceivedRequest) -> bool {
    request.header("upgrade").is_some() || serde_json::from_slice::<serde_json::Value>(&request.body).is_ok_and(|body| body["stream"] == true)
}

/// The script of the one upstream.
pub fn script(request: &ReceivedRequest) -> Vec<Step> {
    let (fault, path) = fault_and_path(request);
    let streamed = is_streamed(request);
    let refusal = |status: u16| vec![Step::Send(json_answer(status, r#"{"type":"error","error":{"type":"theirs","message":"theirs"}}"#))];
    if request.body.windows(10).any(|w| w == b".anthropic") != path.starts_with("/v1/messages") {
        return refusal(404); // an engine knows only its own dialect's routes
    }
    match &*fault {
        "400" | "401" | "429" | "500" | "503" => refusal(fault.parse().unwrap()),
        "redirect" => vec![Step::Send(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_vec())],
        "not-http" => vec![Step::Send(b"SSH-2.0-nothing\r\n\r\n".to_vec()), Step::Close],
        "encoded" => {
            vec![Step::Send(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b".to_vec(),
            )]
        }
        "cut-head" => vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-".to_vec()), Step::Close],
        "silent" | "silent-total" => vec![Step::UntilGone],
        "stall-first" => vec![Step::Send(if streamed { head(request) } else { whole_head() }), Step::UntilGone],
        "cut" => [begin(request, &path, streamed), vec![Step::Wait(Duration::from_millis(20)), Step::Close]].concat(),
        "stall" | "hold" | "leave" | "occupy" => [begin(request, &path, streamed), vec![Step::UntilGone]].concat(),
        _ if streamed => {
            let (text, end) = frames(&path);
            vec![Step::Send(head(request)), Step::Send(text.concat()), Step::Send(end.concat()), Step::Close]
        }
        _ => vec![Step::Send(whole(&path))],
    }
}

/// The head of a stream or a session.
fn head(request: &ReceivedRequest) -> Vec<u8> {
    if request.header("upgrade").is_some() { socket_head(request) } else { sse_head() }
}

fn whole_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n".to_vec()
}

/// The beginning of a good answer.
fn begin(request: &ReceivedRequest, path: &str, streamed: bool) -> Vec<Step> {
    if streamed {
        vec![Step::Send(head(request)), Step::Send(frames(path).0.concat())]
    } else {
        vec![Step::Send([whole_head(), b"{\"id\":".to_vec()].concat())]
    }
}
