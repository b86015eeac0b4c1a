//! An endpoint's error in the caller's dialect: the message and the class stay, the structure changes.

use super::direction::Direction;
use super::node::Node;
use super::writer::Writer;
use crate::dialect::Dialect;
use crate::error::error_type;

pub(super) fn translate(direction: Direction, status: u16, body: &[u8], request_id: &str) -> Vec<u8> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let error = Node::parse(text).and_then(|root| root.get("error"));
    let mut out = Writer::with_capacity(body.len() + 128);
    write(&mut out, direction, status, error, Some(request_id));
    out.0
}

/// Also used for error frames in streams, which have no status; they pass 500.
pub(super) fn write(out: &mut Writer, direction: Direction, status: u16, error: Option<Node<'_>>, request_id: Option<&str>) {
    // Some engines send `{"error":"…"}`.
    let message = error.and_then(|error| if error.is_string() { Some(error) } else { error.get("message").filter(|text| text.is_string()) });
    let message = message.map_or("\"The model's endpoint refused the request.\"", |text| text.0);
    let endpoint_type = error.and_then(|error| error.get("type")).filter(|value| value.is_string());
    out.open(b'{');
    match direction {
        Direction::ChatToMessages => {
            out.key("error").open(b'{').member("message", message).key("type").text(error_type(Dialect::OpenAi, status));
            out.member("param", "null").member("code", endpoint_type.map_or("null", |value| value.0));
            if let Some(id) = request_id {
                out.key("request_id").text(id);
            }
            out.close(b'}');
        }
        Direction::MessagesToChat => {
            let code = error.and_then(|error| error.get("code")).filter(|code| code.is_string()).or(endpoint_type);
            let param = error.and_then(|error| error.get("param")).filter(|param| param.is_string());
            out.key("type").text("error").key("error").open(b'{').key("type").text(error_type(Dialect::Anthropic, status));
            out.member("message", message).member("param", param.map_or("null", |param| param.0));
            out.member("code", code.map_or("null", |code| code.0)).close(b'}');
            if let Some(id) = request_id {
                out.key("request_id").text(id);
            }
        }
    }
    out.close(b'}');
}
