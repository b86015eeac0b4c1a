//! A request of messages as one of chat completions.

use super::Route;
use super::node::Node;
use super::refused::{Path, Refused};
use super::writer::Writer;

#[derive(Default)]
struct Message<'a> {
    model: Option<Node<'a>>,
    messages: Option<Node<'a>>,
    system: Option<Node<'a>>,
    max_tokens: Option<Node<'a>>,
    stream: bool,
    /// Copied under the same name.
    same: Vec<(&'a str, Node<'a>)>,
    stop: Option<Node<'a>>,
    tools: Option<Node<'a>>,
    tool_choice: Option<Node<'a>>,
    schema: Option<Node<'a>>,
    effort: Option<Node<'a>>,
    thinking: Option<&'static str>,
    user: Option<Node<'a>>,
    standard_only: bool,
}

pub(super) fn to_chat(text: &str, route: &Route<'_>) -> Result<Vec<u8>, Refused> {
    let root = Node::parse(text).ok_or_else(Refused::syntax)?;
    let mut message = Message::default();
    for (key, value) in root.members() {
        if !value.is_null() {
            message.take(key, value, &Path::root(key))?;
        }
    }
    message.write(text.len(), route)
}

impl<'a> Message<'a> {
    fn take(&mut self, key: &'a str, value: Node<'a>, path: &Path<'_>) -> Result<(), Refused> {
        match key {
            "model" => self.model = Some(value),
            "messages" => self.messages = Some(value),
            "system" => self.system = Some(value).filter(|system| !system.is_neutral()),
            "max_tokens" => self.max_tokens = Some(value),
            "stream" => self.stream = value.flag(path)?,
            "temperature" | "top_p" | "top_k" => self.same.push((key, value)),
            "stop_sequences" => self.stop = Some(value).filter(|stop| !stop.is_neutral()),
            "tools" => self.tools = Some(value).filter(|tools| !tools.is_neutral()),
            "tool_choice" => self.tool_choice = Some(value),
            "output_config" => self.output_config(value, path)?,
            "thinking" => self.thinking = thinking(value, path)?,
            "metadata" => {
                for (key, value) in value.object(path)? {
                    match key {
                        "user_id" => self.user = Some(value).filter(|user| !user.is_null()),
                        _ => return Err(path.key(key).no_counterpart()),
                    }
                }
            }
            "service_tier" if value.0 == "\"auto\"" => {}
            "service_tier" if value.0 == "\"standard_only\"" => self.standard_only = true,
            "speed" if value.0 == "\"standard\"" => {}
            // A hint: engines that speak OpenAI's protocol cache prefixes by themselves.
            "cache_control" => {}
            _ if value.is_neutral() => {}
            _ => return Err(path.no_counterpart()),
        }
        Ok(())
    }

    fn output_config(&mut self, value: Node<'a>, path: &Path<'_>) -> Result<(), Refused> {
        for (key, value) in value.object(path)? {
            match key {
                _ if value.is_null() => {}
                "effort" => self.effort = Some(value.string(&path.key(key))?),
                "format" => {
                    let path = path.key(key);
                    if value.get("type").map(|kind| kind.0) != Some("\"json_schema\"") {
                        return Err(path.key("type").no_counterpart());
                    }
                    self.schema = Some(value.get("schema").ok_or_else(|| path.key("schema").missing())?);
                }
                _ => return Err(path.key(key).no_counterpart()),
            }
        }
        Ok(())
    }

    fn write(&self, length: usize, route: &Route<'_>) -> Result<Vec<u8>, Refused> {
        let mut out = Writer::with_capacity(length + 256);
        out.open(b'{');
        match route.model {
            Some(model) => out.key("model").text(model),
            None => out.member("model", self.model.ok_or_else(|| Path::root("model").missing())?.0),
        };
        let bound = self.max_tokens.ok_or_else(|| Path::root("max_tokens").missing())?;
        out.member(if route.max_completion_tokens { "max_completion_tokens" } else { "max_tokens" }, bound.0);
        if self.stream {
            out.member("stream", "true").key("stream_options").raw(if route.continuous_usage {
                r#"{"include_usage":true,"continuous_usage_stats":true}"#
            } else {
                r#"{"include_usage":true}"#
            });
        }
        out.key("messages").open(b'[');
        if let Some(system) = self.system {
            system_message(&mut out, system, &Path::root("system"))?;
        }
        let path = Path::root("messages");
        for (index, message) in self.messages.ok_or_else(|| path.missing())?.list(&path)?.enumerate() {
            turn(&mut out, message, &path.index(index))?;
        }
        out.close(b']');
        self.same.iter().for_each(|(key, value)| {
            out.member(key, value.0);
        });
        self.write_rest(&mut out)?;
        out.close(b'}');
        Ok(out.0)
    }

    fn write_rest(&self, out: &mut Writer) -> Result<(), Refused> {
        if let Some(stop) = self.stop {
            out.member("stop", stop.0);
        }
        if let Some(given) = self.tools {
            tools(out, given)?;
            if let Some(choice) = self.tool_choice {
                tool_choice(out, choice)?;
            }
        }
        match (self.effort, self.thinking) {
            (Some(effort), _) => {
                out.member("reasoning_effort", effort.0);
            }
            (None, Some(effort)) => {
                out.key("reasoning_effort").text(effort);
            }
            (None, None) => {}
        }
        if let Some(schema) = self.schema {
            out.key("response_format").open(b'{').key("type").text("json_schema").key("json_schema").open(b'{');
            out.key("name").text("answer").member("schema", schema.0).member("strict", "true").close(b'}').close(b'}');
        }
        if let Some(user) = self.user {
            out.member("user", user.0);
        }
        if self.standard_only {
            out.key("service_tier").text("default");
        }
        Ok(())
    }
}

/// OpenAI's protocol has a scale, Anthropic's a number of tokens: the bounds are ours. `adaptive` leaves it to the model, as saying nothing does.
fn thinking(value: Node<'_>, path: &Path<'_>) -> Result<Option<&'static str>, Refused> {
    let mut budget = None;
    let mut kind = None;
    for (key, value) in value.object(path)? {
        match key {
            "type" => kind = value.inner(),
            "budget_tokens" => budget = value.unsigned(),
            "display" if matches!(value.0, "null" | "\"summarized\"") => {}
            _ => return Err(path.key(key).no_counterpart()),
        }
    }
    match (kind, budget) {
        (Some("disabled"), _) => Ok(Some("none")),
        (Some("adaptive"), _) => Ok(None),
        (Some("enabled"), Some(budget)) => Ok(Some(match budget {
            0..4096 => "low",
            4096..16384 => "medium",
            _ => "high",
        })),
        (Some("enabled"), None) => Err(path.key("budget_tokens").missing()),
        _ => Err(path.key("type").no_counterpart()),
    }
}

fn system_message(out: &mut Writer, system: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
    out.open(b'{').key("role").text("system").key("content");
    text_content(out, system, path)?;
    out.close(b'}');
    Ok(())
}

/// A string, or text blocks as one string or as parts.
fn text_content(out: &mut Writer, content: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
    if content.is_string() {
        out.raw(content.0);
        return Ok(());
    }
    let mut texts = Vec::new();
    for (index, block) in content.list(path)?.enumerate() {
        let path = path.index(index);
        if block.get("type").map(|kind| kind.0) != Some("\"text\"") {
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
fn text_of<'a>(block: Node<'a>, path: &Path<'_>) -> Result<Node<'a>, Refused> {
    only(block, &["text"], path)?;
    block.get("text").ok_or_else(|| path.key("text").missing())?.string(&path.key("text"))
}

/// Members beside these (and `type`, and the hint `cache_control`) must ask for nothing.
fn only(block: Node<'_>, known: &[&str], path: &Path<'_>) -> Result<(), Refused> {
    for (key, value) in block.object(path)? {
        if !(matches!(key, "type" | "cache_control") || known.contains(&key) || value.is_neutral()) {
            return Err(path.key(key).no_counterpart());
        }
    }
    Ok(())
}

fn turn(out: &mut Writer, message: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
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

/// Results of tools become messages of their own, before what the user says beside them.
fn user_turn(out: &mut Writer, content: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
    let mut said = false;
    for (index, block) in content.list(path)?.enumerate() {
        if block.get("type").and_then(Node::inner) == Some("tool_result") {
            tool_message(out, block, &path.index(index))?;
        } else {
            said = true;
        }
    }
    if !said {
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

/// OpenAI's protocol has no mark for a failed tool: the text says it.
fn tool_message(out: &mut Writer, block: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
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
                if block.get("type").map(|kind| kind.0) != Some("\"text\"") {
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

fn image_part(out: &mut Writer, block: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
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

fn base64_url(source: Node<'_>, path: &Path<'_>) -> Result<String, Refused> {
    let media_type = source.get("media_type").and_then(Node::text).ok_or_else(|| path.key("media_type").missing())?;
    let data = source.get("data").and_then(Node::text).ok_or_else(|| path.key("data").missing())?;
    Ok(format!("data:{media_type};base64,{data}"))
}

fn document_part(out: &mut Writer, block: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
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

fn assistant_turn(out: &mut Writer, content: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
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

fn tool_call(out: &mut Writer, call: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
    let member = |name| call.get(name).ok_or_else(|| path.key(name).missing());
    out.open(b'{').member("id", member("id")?.0).key("type").text("function").key("function").open(b'{');
    out.member("name", member("name")?.0).key("arguments").text(member("input")?.0).close(b'}').close(b'}');
    Ok(())
}

fn tools(out: &mut Writer, tools: Node<'_>) -> Result<(), Refused> {
    let path = Path::root("tools");
    out.key("tools").open(b'[');
    for (index, tool) in tools.list(&path)?.enumerate() {
        let path = path.index(index);
        let mut schema = None;
        out.open(b'{').key("type").text("function").key("function").open(b'{');
        for (key, value) in tool.object(&path)? {
            match key {
                _ if value.is_null() => {}
                "input_schema" => schema = Some(value),
                "name" | "description" | "strict" => {
                    out.member(key, value.0);
                }
                "type" if value.0 == "\"custom\"" => {}
                "allowed_callers" if value.items().all(|caller| caller.0 == "\"direct\"") => {}
                // Hints.
                "cache_control" | "eager_input_streaming" => {}
                _ if value.is_neutral() => {}
                _ => return Err(path.key(key).no_counterpart()),
            }
        }
        out.member("parameters", schema.ok_or_else(|| path.key("input_schema").missing())?.0).close(b'}').close(b'}');
    }
    out.close(b']');
    Ok(())
}

fn tool_choice(out: &mut Writer, choice: Node<'_>) -> Result<(), Refused> {
    let path = Path::root("tool_choice");
    only(choice, &["name", "disable_parallel_tool_use"], &path)?;
    match choice.get("type").and_then(Node::inner) {
        Some("auto") => out.key("tool_choice").text("auto"),
        Some("any") => out.key("tool_choice").text("required"),
        Some("none") => out.key("tool_choice").text("none"),
        Some("tool") => {
            let name = choice.get("name").ok_or_else(|| path.key("name").missing())?;
            out.key("tool_choice").open(b'{').key("type").text("function");
            out.key("function").open(b'{').member("name", name.0).close(b'}').close(b'}')
        }
        _ => return Err(path.key("type").no_counterpart()),
    };
    if choice.get("disable_parallel_tool_use").is_some_and(|flag| flag.0 == "true") {
        out.member("parallel_tool_calls", "false");
    }
    Ok(())
}
