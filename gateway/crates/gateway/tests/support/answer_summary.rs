//! Summarises an answer in a few words that can be compared: its status and code, and how it ended (well, with an error, or silently). An
//! answer that does not have the format of the caller's SDK is marked.

use tenon_testkit::Answer;

/// The answer in a few words.
pub fn summary(dialect: &str, streamed: bool, answer: &Answer) -> String {
    let id = answer.request_id();
    if id.len() != 36 {
        return format!("{} without x-request-id", answer.status);
    }
    if answer.status >= 400 {
        return refusal(dialect, answer);
    }
    if answer.header("content-type").is_some_and(|content_type| content_type.starts_with("text/event-stream")) {
        return stream_end(dialect, answer);
    }
    if streamed {
        format!("{} but no stream", answer.status)
    } else {
        format!("{}{}", answer.status, if answer.complete { "" } else { ", broken off" })
    }
}

/// An error answer: in the dialect's format, with a code, a message and the request's id.
fn refusal(dialect: &str, answer: &Answer) -> String {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(&answer.body) else {
        return format!("{} {}", answer.status, if answer.body.is_empty() { "with an empty body" } else { "that is not JSON" });
    };
    let error = &body["error"];
    if error["message"] == "theirs" {
        return format!("{} passed on", answer.status);
    }
    let sentence = error["message"].as_str().is_some_and(|text| text.len() > 10) && error["type"].is_string();
    let shaped = sentence
        && match dialect {
            "anthropic" => body["type"] == "error" && body["request_id"] == answer.request_id(),
            _ => error.get("param").is_some() && error["request_id"] == answer.request_id(),
        };
    let retry = answer.header("x-should-retry") == Some("false");
    let retry_is_right = retry != (answer.status >= 500 || answer.status == 408 || answer.status == 429) || error["code"] == "insufficient_quota";
    let wrong = if !shaped {
        ", WRONG SHAPE"
    } else if !retry_is_right {
        ", WRONG x-should-retry"
    } else {
        ""
    };
    format!("{} {}{wrong}", answer.status, error["code"].as_str().unwrap_or("without a code"))
}

/// How a stream ended: with the dialect's end marker or an error frame, never silently.
fn stream_end(dialect: &str, answer: &Answer) -> String {
    let text = answer.text();
    let ends_well = text.contains("data: [DONE]")
        || text.contains("data:[DONE]")
        || text.contains("event: message_stop")
        || text.contains("event: response.completed");
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let json = last.lines().find_map(|line| line.strip_prefix("data: ")).and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    let code = json.as_ref().and_then(|json| {
        let codes = [&json["error"]["code"], &json["response"]["error"]["code"], &json["code"]];
        codes.into_iter().find_map(|code| code.as_str().map(str::to_owned))
    });
    let named = dialect != "anthropic" || last.starts_with("event: error\n");
    match (ends_well, code) {
        (true, None) if answer.complete => "200 stream".into(),
        (false, Some(code)) if answer.complete && named => format!("200 stream, then error {code}"),
        (looks_complete, code) => {
            format!("200 stream that ends wrongly (looks complete: {looks_complete}, code {code:?}, complete: {}, last: {last})", answer.complete)
        }
    }
}

/// How a session ended: with the endpoint's close, or with an error event and then ours.
pub fn session_end(frames: &[u8]) -> String {
    let text = String::from_utf8_lossy(frames);
    let error = text.rfind(r#"{"type":"error""#).map(|at| &text[at..]);
    let code = error.and_then(|error| error.split(r#""code":""#).nth(1)?.split('"').next());
    let close = frames.windows(4).rev().find(|frame| frame[0] == 0x88 && frame[1] >= 2).map(|frame| u16::from_be_bytes([frame[2], frame[3]]));
    match (code, close) {
        (None, Some(1000)) => "101 session".into(),
        (Some(code), Some(1001 | 1008 | 1011)) => format!("101 session, then error {code}"),
        other => format!("101 session that ends wrongly: {other:?}"),
    }
}
