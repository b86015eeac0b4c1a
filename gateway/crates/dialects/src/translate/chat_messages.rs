//! The conversation of a chat completion's request, as one of messages has it.

use super::error::{Path, TranslationError};
use super::node::Node;
use super::writer::Writer;

#[derive(Default)]
struct Message<'a> {
    role: &'a str,
    content: Option<Node<'a>>,
    tool_calls: Option<Node<'a>>,
    tool_call_id: Option<Node<'a>>,
    refusal: Option<Node<'a>>,
    thinking_blocks: Option<Node<'a>>,
}

impl<'a> Message<'a> {
    fn read(node: Node<'a>, path: &Path<'_>) -> Result<Self, TranslationError> {
        let mut message = Self::default();
        for (key, value) in node.object(path)? {
            if value.is_null() {
                continue;
            }
            match key {
                "role" => message.role = value.inner().unwrap_or_default(),
                "content" => message.content = Some(value),
                "tool_calls" => message.tool_calls = Some(value).filter(|calls| !calls.is_neutral()),
                "tool_call_id" => message.tool_call_id = Some(value.string(&path.key(key))?),
                "refusal" => message.refusal = Some(value.string(&path.key(key))?),
                "thinking_blocks" => message.thinking_blocks = Some(value),
                // The text of `thinking_blocks`, without the signature that makes it acceptable.
                "reasoning_content" if message.role != "user" => {}
                _ if value.is_neutral() => {}
                _ => return Err(path.key(key).no_counterpart()),
            }
        }
        Ok(message)
    }

    fn is_system(&self) -> bool {
        matches!(self.role, "system" | "developer")
    }
}

/// System messages before the conversation become `system`; later ones stay where they are. Tool results in a row become
/// one user turn.
pub(super) fn messages(out: &mut Writer, list: Node<'_>) -> Result<(), TranslationError> {
    let path = Path::root("messages");
    let mut before = 0;
    for (index, node) in list.list(&path)?.enumerate() {
        let path = path.index(index);
        let message = Message::read(node, &path)?;
        if !message.is_system() {
            break;
        }
        if before == 0 {
            out.key("system").open(b'[');
        }
        system_blocks(out, &message, &path)?;
        before += 1;
    }
    if before > 0 {
        out.close(b']');
    }
    out.key("messages").open(b'[');
    let mut in_results = false;
    for (index, node) in list.items().enumerate().skip(before) {
        let path = path.index(index);
        let message = Message::read(node, &path)?;
        let result = message.role == "tool";
        if in_results && !result {
            out.close(b']').close(b'}');
        }
        if result && !in_results {
            out.open(b'{').key("role").text("user").key("content").open(b'[');
        }
        in_results = result;
        write_message(out, &message, &path)?;
    }
    if in_results {
        out.close(b']').close(b'}');
    }
    out.close(b']');
    Ok(())
}

fn system_blocks(out: &mut Writer, message: &Message<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    let path = path.key("content");
    let content = message.content.ok_or_else(|| path.missing())?;
    if content.is_string() {
        text_block(out, content);
        return Ok(());
    }
    for (index, part) in content.list(&path)?.enumerate() {
        content_part(out, part, &path.index(index), Allowed::Text)?;
    }
    Ok(())
}

fn text_block(out: &mut Writer, text: Node<'_>) {
    out.open(b'{').key("type").text("text").member("text", text.0).close(b'}');
}

fn write_message(out: &mut Writer, message: &Message<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    match message.role {
        "user" => turn(out, "user", message, path),
        "assistant" => turn(out, "assistant", message, path),
        "system" | "developer" => turn(out, "system", message, path),
        "tool" => tool_result(out, message, path),
        _ => Err(path.key("role").no_counterpart()),
    }
}

fn turn(out: &mut Writer, role: &str, message: &Message<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    if message.tool_call_id.is_some() {
        return Err(path.key("tool_call_id").no_counterpart());
    }
    out.open(b'{').key("role").text(role).key("content");
    let extras = message.tool_calls.is_some() || message.refusal.is_some() || message.thinking_blocks.is_some();
    match message.content {
        Some(content) if content.is_string() && !extras => out.raw(content.0),
        None if !extras => return Err(path.key("content").missing()),
        content => {
            out.open(b'[');
            if let Some(blocks) = message.thinking_blocks {
                thinking(out, blocks, &path.key("thinking_blocks"))?;
            }
            if let Some(content) = content.filter(|content| !content.is_neutral()) {
                parts(out, content, &path.key("content"), if role == "user" { Allowed::All } else { Allowed::Text })?;
            }
            if let Some(refusal) = message.refusal {
                text_block(out, refusal);
            }
            if let Some(calls) = message.tool_calls {
                tool_uses(out, calls, &path.key("tool_calls"))?;
            }
            out.close(b']')
        }
    };
    out.close(b'}');
    Ok(())
}

fn parts(out: &mut Writer, content: Node<'_>, path: &Path<'_>, allowed: Allowed) -> Result<(), TranslationError> {
    if content.is_string() {
        text_block(out, content);
        return Ok(());
    }
    for (index, part) in content.list(path)?.enumerate() {
        content_part(out, part, &path.index(index), allowed)?;
    }
    Ok(())
}

/// Blocks of Anthropic's own, as our answers hold them. Only Anthropic can check them.
fn thinking(out: &mut Writer, blocks: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    for (index, block) in blocks.list(path)?.enumerate() {
        if !matches!(block.get("type").map(|value| value.0), Some("\"thinking\"" | "\"redacted_thinking\"")) {
            return Err(path.index(index).key("type").no_counterpart());
        }
        out.raw(block.0);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Text,
    All,
}

fn content_part(out: &mut Writer, part: Node<'_>, path: &Path<'_>, allowed: Allowed) -> Result<(), TranslationError> {
    let part_type = part.get("type").and_then(Node::inner);
    let payload = match part_type {
        Some("text") => "text",
        Some("refusal") => "refusal",
        Some("image_url") if allowed == Allowed::All => "image_url",
        Some("file") if allowed == Allowed::All => "file",
        Some(_) => return Err(path.key("type").no_counterpart()),
        None => return Err(path.key("type").missing()),
    };
    let mut content = None;
    for (key, value) in part.object(path)? {
        match key {
            "type" => {}
            _ if key == payload => content = Some(value),
            _ if value.is_neutral() => {}
            _ => return Err(path.key(key).no_counterpart()),
        }
    }
    let path = path.key(payload);
    let content = content.ok_or_else(|| path.missing())?;
    match payload {
        "image_url" => image(out, content, &path),
        "file" => file(out, content, &path),
        _ => {
            text_block(out, content.string(&path)?);
            Ok(())
        }
    }
}

fn image(out: &mut Writer, image: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    let mut url = None;
    for (key, value) in image.object(path)? {
        match key {
            "url" => url = value.text(),
            // Anthropic always uses high detail.
            "detail" if matches!(value.0, "\"auto\"" | "\"high\"" | "null") => {}
            _ => return Err(path.key(key).no_counterpart()),
        }
    }
    let path = path.key("url");
    let url = url.ok_or_else(|| path.missing())?;
    out.open(b'{').key("type").text("image").key("source").open(b'{');
    if let Some((media_type, data)) = data_url(&url) {
        if !matches!(media_type, "image/jpeg" | "image/png" | "image/gif" | "image/webp") {
            return Err(path.untranslatable("must be a JPEG, PNG, GIF or WebP for this model's endpoint."));
        }
        out.key("type").text("base64").key("media_type").text(media_type).key("data").text(data);
    } else if url.starts_with("https://") || url.starts_with("http://") {
        out.key("type").text("url").key("url").text(&url);
    } else {
        return Err(path.wrong_type("must be an http(s) URL or a base64 data URL."));
    }
    out.close(b'}').close(b'}');
    Ok(())
}

fn data_url(url: &str) -> Option<(&str, &str)> {
    url.strip_prefix("data:")?.split_once(";base64,")
}

fn file(out: &mut Writer, file: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    let (mut data, mut name) = (None, None);
    for (key, value) in file.object(path)? {
        match key {
            "file_data" => data = value.text(),
            "filename" => name = Some(value),
            _ if value.is_neutral() => {}
            _ => return Err(path.key(key).no_counterpart()),
        }
    }
    let path = path.key("file_data");
    let data = data.ok_or_else(|| path.missing())?;
    let Some(("application/pdf", data)) = data_url(&data) else {
        return Err(path.untranslatable("must be a PDF as a base64 data URL for this model's endpoint."));
    };
    out.open(b'{').key("type").text("document").key("source").open(b'{');
    out.key("type").text("base64").key("media_type").text("application/pdf").key("data").text(data).close(b'}');
    if let Some(name) = name {
        out.member("title", name.0);
    }
    out.close(b'}');
    Ok(())
}

fn tool_uses(out: &mut Writer, calls: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    for (index, call) in calls.list(path)?.enumerate() {
        let path = path.index(index);
        let (mut id, mut function) = (None, None);
        for (key, value) in call.object(&path)? {
            match key {
                "id" => id = Some(value),
                "function" => function = Some(value),
                "type" if value.0 == "\"function\"" => {}
                // Left over from a stream.
                "index" => {}
                _ if value.is_null() => {}
                _ => return Err(path.key(key).no_counterpart()),
            }
        }
        let id = id.ok_or_else(|| path.key("id").missing())?;
        let path = path.key("function");
        let function = function.ok_or_else(|| path.missing())?;
        let name = function.get("name").ok_or_else(|| path.key("name").missing())?;
        let arguments = function.get("arguments").and_then(Node::text).unwrap_or_default();
        let input = arguments_object(&arguments).ok_or_else(|| path.key("arguments").wrong_type("must be a JSON object, written as a string."))?;
        out.open(b'{').key("type").text("tool_use").member("id", id.0).member("name", name.0).member("input", input).close(b'}');
    }
    Ok(())
}

/// Models write an empty string for a tool without parameters.
pub(super) fn arguments_object(arguments: &str) -> Option<&str> {
    if arguments.trim().is_empty() {
        return Some("{}");
    }
    Node::parse(arguments).filter(|node| node.is_object()).map(|node| node.0)
}

fn tool_result(out: &mut Writer, message: &Message<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    let id = message.tool_call_id.ok_or_else(|| path.key("tool_call_id").missing())?;
    let path = path.key("content");
    let content = message.content.ok_or_else(|| path.missing())?;
    out.open(b'{').key("type").text("tool_result").member("tool_use_id", id.0).key("content");
    if content.is_string() {
        out.raw(content.0);
    } else {
        out.open(b'[');
        parts(out, content, &path, Allowed::Text)?;
        out.close(b']');
    }
    out.close(b'}');
    Ok(())
}
