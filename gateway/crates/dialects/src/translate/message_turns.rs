//! The conversation of a request of messages, as a chat completion has it.

use super::error::{Path, TranslationError};
use super::node::Node;
use super::writer::Writer;

pub(super) fn system_message(out: &mut Writer, system: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    out.open(b'{').key("role").text("system").key("content");
    text_content(out, system, path)?;
    out.close(b'}');
    Ok(())
}

/// A string, or text blocks as one string or as parts.
fn text_content(out: &mut Writer, content: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    if content.is_string() {
        out.raw(content.0);
        return Ok(());
    }
    let mut texts = Vec::new();
    for (index, block) in content.list(path)?.enumerate() {
        let path = path.index(index);
        if block.get("type").map(|value| value.0) != Some("\"text\"") {
            return Err(path.key("type").no_counterpart());
        }
        texts.push(text_of(block, &path)?);
    }
    match &texts[..] {
        [one] => {
            out.raw(one.0);
        }
        many => {
            out.open(b'[');
            many.iter().for_each(|text| text_part(out, *text));
            out.close(b']');
        }
    }
    Ok(())
}

fn text_part(out: &mut Writer, text: Node<'_>) {
    out.open(b'{').key("type").text("text").member("text", text.0).close(b'}');
}

/// The text of a text block, its other members being hints or empty.
fn text_of<'a>(block: Node<'a>, path: &Path<'_>) -> Result<Node<'a>, TranslationError> {
    only(block, &["text"], path)?;
    block.get("text").ok_or_else(|| path.key("text").missing())?.string(&path.key("text"))
}

/// Members other than these (and `type`, and the hint `cache_control`) must be empty or neutral.
pub(super) fn only(block: Node<'_>, known: &[&str], path: &Path<'_>) -> Result<(), TranslationError> {
    for (key, value) in block.object(path)? {
        if !(matches!(key, "type" | "cache_control") || known.contains(&key) || value.is_neutral()) {
            return Err(path.key(key).no_counterpart());
        }
    }
    Ok(())
}

pub(super) fn turn(out: &mut Writer, message: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    let (mut role, mut content) = ("", None);
    for (key, value) in message.object(path)? {
        match key {
            "role" => role = value.inner().unwrap_or_default(),
            "content" => content = Some(value),
            _ => return Err(path.key(key).no_counterpart()),
        }
    }
    let inner = path.key("content");
    let content = content.ok_or_else(|| inner.missing())?;
    match role {
        "system" => system_message(out, content, &inner),
        "user" | "assistant" if content.is_string() => {
            out.open(b'{').key("role").text(role).member("content", content.0).close(b'}');
            Ok(())
        }
        "user" => user_turn(out, content, &inner),
        "assistant" => assistant_turn(out, content, &inner),
        _ => Err(path.key("role").no_counterpart()),
    }
}

/// Tool results become messages of their own, before the user's other content.
fn user_turn(out: &mut Writer, content: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    let mut has_content = false;
    for (index, block) in content.list(path)?.enumerate() {
        if block.get("type").and_then(Node::inner) == Some("tool_result") {
            tool_message(out, block, &path.index(index))?;
        } else {
            has_content = true;
        }
    }
    if !has_content {
        return Ok(());
    }
    out.open(b'{').key("role").text("user").key("content").open(b'[');
    for (index, block) in content.items().enumerate() {
        let path = path.index(index);
        match block.get("type").and_then(Node::inner) {
            Some("tool_result") => {}
            Some("text") => text_part(out, text_of(block, &path)?),
            Some("image") => image_part(out, block, &path)?,
            Some("document") => document_part(out, block, &path)?,
            Some(_) => return Err(path.key("type").no_counterpart()),
            None => return Err(path.key("type").missing()),
        }
    }
    out.close(b']').close(b'}');
    Ok(())
}

/// OpenAI's protocol has no flag for a failed tool, so the text begins with "Error".
fn tool_message(out: &mut Writer, block: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    only(block, &["tool_use_id", "content", "is_error"], path)?;
    let id = block.get("tool_use_id").ok_or_else(|| path.key("tool_use_id").missing())?;
    let failed = block.get("is_error").is_some_and(|flag| flag.0 == "true");
    out.open(b'{').key("role").text("tool").member("tool_call_id", id.0).key("content");
    let path = path.key("content");
    match block.get("content") {
        Some(content) if failed && content.is_string() => {
            let inner = content.inner().unwrap_or_default();
            out.raw(&format!("\"Error: {inner}\""));
        }
        Some(content) if failed => {
            out.open(b'[').raw(r#"{"type":"text","text":"Error:"}"#);
            for (index, block) in content.list(&path)?.enumerate() {
                let path = path.index(index);
                if block.get("type").map(|value| value.0) != Some("\"text\"") {
                    return Err(path.key("type").no_counterpart());
                }
                text_part(out, text_of(block, &path)?);
            }
            out.close(b']');
        }
        Some(content) => text_content(out, content, &path)?,
        None => {
            out.text(if failed { "Error" } else { "" });
        }
    }
    out.close(b'}');
    Ok(())
}

fn image_part(out: &mut Writer, block: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    only(block, &["source"], path)?;
    let path = path.key("source");
    let source = block.get("source").ok_or_else(|| path.missing())?;
    let url = match source.get("type").and_then(Node::inner) {
        Some("base64") => base64_url(source, &path)?,
        Some("url") => source.get("url").and_then(Node::text).ok_or_else(|| path.key("url").missing())?.into_owned(),
        _ => return Err(path.key("type").no_counterpart()),
    };
    out.open(b'{').key("type").text("image_url").key("image_url").open(b'{').key("url").text(&url).close(b'}').close(b'}');
    Ok(())
}

fn base64_url(source: Node<'_>, path: &Path<'_>) -> Result<String, TranslationError> {
    let media_type = source.get("media_type").and_then(Node::text).ok_or_else(|| path.key("media_type").missing())?;
    let data = source.get("data").and_then(Node::text).ok_or_else(|| path.key("data").missing())?;
    Ok(format!("data:{media_type};base64,{data}"))
}

fn document_part(out: &mut Writer, block: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    only(block, &["source", "title"], path)?;
    let title = block.get("title");
    let path = path.key("source");
    let source = block.get("source").ok_or_else(|| path.missing())?;
    match source.get("type").and_then(Node::inner) {
        Some("base64") => {
            let url = base64_url(source, &path)?;
            out.open(b'{').key("type").text("file").key("file").open(b'{').key("file_data").text(&url);
            out.member("filename", title.map_or("\"document.pdf\"", |title| title.0)).close(b'}').close(b'}');
        }
        Some("text") => {
            if let Some(title) = title {
                text_part(out, title);
            }
            text_part(out, source.get("data").ok_or_else(|| path.key("data").missing())?);
        }
        _ => return Err(path.key("type").no_counterpart()),
    }
    Ok(())
}

fn assistant_turn(out: &mut Writer, content: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    let (mut text, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
    let (mut has_text, mut has_thought) = (false, false);
    for (index, block) in content.list(path)?.enumerate() {
        let path = path.index(index);
        match block.get("type").and_then(Node::inner) {
            Some("text") => {
                has_text = true;
                text.push_str(text_of(block, &path)?.inner().unwrap_or_default());
            }
            Some("thinking") => {
                has_thought = true;
                thought.push_str(block.get("thinking").and_then(Node::inner).ok_or_else(|| path.key("thinking").missing())?);
            }
            Some("tool_use") => {
                only(block, &["id", "name", "input", "caller"], &path)?;
                calls.push((index, block));
            }
            Some(_) => return Err(path.key("type").no_counterpart()),
            None => return Err(path.key("type").missing()),
        }
    }
    out.open(b'{').key("role").text("assistant");
    if has_thought {
        // The name that engines read; OpenAI itself never gives thoughts, so none come back to it.
        out.key("reasoning_content").raw(&format!("\"{thought}\""));
    }
    out.key("content").raw(&if has_text { format!("\"{text}\"") } else { "null".into() });
    if !calls.is_empty() {
        out.key("tool_calls").open(b'[');
        for (index, call) in calls {
            tool_call(out, call, &path.index(index))?;
        }
        out.close(b']');
    }
    out.close(b'}');
    Ok(())
}

fn tool_call(out: &mut Writer, call: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    let member = |name| call.get(name).ok_or_else(|| path.key(name).missing());
    out.open(b'{').member("id", member("id")?.0).key("type").text("function").key("function").open(b'{');
    out.member("name", member("name")?.0).key("arguments").text(member("input")?.0).close(b'}').close(b'}');
    Ok(())
}
