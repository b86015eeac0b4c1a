//! A chat completion's request as one of messages.

use super::node::Node;
use super::refused::{Path, Refused};
use super::writer::Writer;
use super::{MAX_TOKENS_DEFAULT, Route};

#[derive(Default)]
struct Chat<'a> {
    model: Option<Node<'a>>,
    messages: Option<Node<'a>>,
    max_tokens: Option<Node<'a>>,
    stream: bool,
    /// Copied under the same name.
    same: Vec<(&'a str, Node<'a>)>,
    stop: Option<Node<'a>>,
    tools: Option<Node<'a>>,
    tool_choice: Option<Node<'a>>,
    parallel: Option<bool>,
    schema: Option<Node<'a>>,
    effort: Option<Node<'a>>,
    user: Option<Node<'a>>,
    tier: Option<&'static str>,
}

pub(super) fn to_message(text: &str, route: &Route<'_>) -> Result<Vec<u8>, Refused> {
    let root = Node::parse(text).ok_or_else(Refused::syntax)?;
    let mut chat = Chat::default();
    for (key, value) in root.members() {
        if !value.is_null() {
            chat.take(key, value, &Path::root(key))?;
        }
    }
    chat.write(text.len(), route)
}

impl<'a> Chat<'a> {
    fn take(&mut self, key: &'a str, value: Node<'a>, path: &Path<'_>) -> Result<(), Refused> {
        match key {
            "model" => self.model = Some(value),
            "messages" => self.messages = Some(value),
            "max_completion_tokens" => self.max_tokens = Some(value),
            "max_tokens" => self.max_tokens = self.max_tokens.or(Some(value)),
            "stream" => self.stream = value.flag(path)?,
            "stream_options" => return stream_options(value, path),
            "temperature" => self.temperature(value, path)?,
            "top_p" | "top_k" => self.same.push((key, value)),
            "stop" => self.stop = Some(value),
            "tools" => self.tools = Some(value).filter(|tools| !tools.is_neutral()),
            "tool_choice" => self.tool_choice = Some(value),
            "parallel_tool_calls" => self.parallel = Some(value.flag(path)?),
            "response_format" => self.schema = response_format(value, path)?,
            "reasoning_effort" => self.effort = Some(value.string(path)?),
            "safety_identifier" => self.user = Some(value.string(path)?),
            "user" => self.user = self.user.or(Some(value.string(path)?)),
            "service_tier" => self.tier = Some(service_tier(value, path)?),
            "n" if value.0 == "1" => {}
            "modalities" if value.items().all(|item| item.0 == "\"text\"") => {}
            // Hints to a cache: they change no answer.
            "prompt_cache_key" | "prompt_cache_retention" => {}
            _ if value.is_neutral() => {}
            _ => return Err(path.no_counterpart()),
        }
        Ok(())
    }

    /// OpenAI's range goes to 2, Anthropic's to 1. Scaling would give other answers than asked for.
    fn temperature(&mut self, value: Node<'a>, path: &Path<'_>) -> Result<(), Refused> {
        match value.number() {
            Some(number) if number <= 1.0 => self.same.push(("temperature", value)),
            Some(_) => return Err(path.untranslatable("is above 1, the highest that this model's endpoint knows.")),
            None => return Err(path.wrong_type("must be a number.")),
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
        out.key("max_tokens");
        match self.max_tokens {
            Some(bound) => out.raw(bound.0),
            None => out.number(u64::from(if route.output_tokens_max == 0 { MAX_TOKENS_DEFAULT } else { route.output_tokens_max })),
        };
        if self.stream {
            out.member("stream", "true");
        }
        messages(&mut out, self.messages.ok_or_else(|| Path::root("messages").missing())?)?;
        self.same.iter().for_each(|(key, value)| {
            out.member(key, value.0);
        });
        self.write_rest(&mut out)?;
        out.close(b'}');
        Ok(out.0)
    }

    fn write_rest(&self, out: &mut Writer) -> Result<(), Refused> {
        if let Some(stop) = self.stop {
            out.key("stop_sequences");
            if stop.is_list() {
                out.raw(stop.0)
            } else {
                out.open(b'[').raw(stop.string(&Path::root("stop"))?.0).close(b']')
            };
        }
        if let Some(given) = self.tools {
            tools(out, given)?;
            self.tool_choice(out)?;
        }
        self.output_config(out)?;
        if let Some(user) = self.user {
            out.key("metadata").open(b'{').member("user_id", user.0).close(b'}');
        }
        if let Some(tier) = self.tier {
            out.key("service_tier").text(tier);
        }
        Ok(())
    }

    fn tool_choice(&self, out: &mut Writer) -> Result<(), Refused> {
        let single = self.parallel == Some(false);
        let path = Path::root("tool_choice");
        let (kind, name) = match self.tool_choice.map(|choice| (choice, choice.text())) {
            None if single => ("auto", None),
            None => return Ok(()),
            Some((_, Some(word))) => match &*word {
                "auto" => ("auto", None),
                "none" => ("none", None),
                "required" => ("any", None),
                _ => return Err(path.no_counterpart()),
            },
            Some((choice, None)) => ("tool", Some(named_tool(choice, &path)?)),
        };
        out.key("tool_choice").open(b'{').key("type").text(kind);
        if let Some(name) = name {
            out.member("name", name.0);
        }
        if single && kind != "none" {
            out.member("disable_parallel_tool_use", "true");
        }
        out.close(b'}');
        Ok(())
    }

    fn output_config(&self, out: &mut Writer) -> Result<(), Refused> {
        let effort = match self.effort.and_then(Node::text).as_deref() {
            None => None,
            Some("none") => {
                out.key("thinking").raw(r#"{"type":"disabled"}"#);
                None
            }
            // Anthropic's scale begins at low.
            Some("minimal") => Some("low"),
            Some("low") => Some("low"),
            Some("medium") => Some("medium"),
            Some("high") => Some("high"),
            Some("xhigh") => Some("xhigh"),
            Some("max") => Some("max"),
            Some(_) => return Err(Path::root("reasoning_effort").no_counterpart()),
        };
        if effort.is_none() && self.schema.is_none() {
            return Ok(());
        }
        out.key("output_config").open(b'{');
        if let Some(effort) = effort {
            out.key("effort").text(effort);
        }
        if let Some(schema) = self.schema {
            out.key("format").open(b'{').key("type").text("json_schema").member("schema", schema.0).close(b'}');
        }
        out.close(b'}');
        Ok(())
    }
}

/// `include_usage` is for our answer; Anthropic's streams always tell.
fn stream_options(value: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
    for (key, value) in value.object(path)? {
        if key != "include_usage" && !value.is_neutral() {
            return Err(path.key(key).no_counterpart());
        }
    }
    Ok(())
}

fn service_tier(value: Node<'_>, path: &Path<'_>) -> Result<&'static str, Refused> {
    match value.text().as_deref() {
        Some("auto") => Ok("auto"),
        Some("default") => Ok("standard_only"),
        _ => Err(path.no_counterpart()),
    }
}

/// The schema, if one is asked for. Anthropic's is always strict, and has no name.
fn response_format<'a>(value: Node<'a>, path: &Path<'_>) -> Result<Option<Node<'a>>, Refused> {
    let kind = value.get("type").and_then(Node::text);
    match kind.as_deref() {
        Some("text") => Ok(None),
        Some("json_schema") => {
            let path = path.key("json_schema");
            let mut schema = None;
            for (key, value) in value.get("json_schema").ok_or_else(|| path.missing())?.object(&path)? {
                match key {
                    "schema" => schema = Some(value),
                    "name" | "strict" => {}
                    _ if value.is_neutral() => {}
                    _ => return Err(path.key(key).no_counterpart()),
                }
            }
            schema.map(Some).ok_or_else(|| path.key("schema").missing())
        }
        _ => Err(path.key("type").no_counterpart()),
    }
}

fn named_tool<'a>(choice: Node<'a>, path: &Path<'_>) -> Result<Node<'a>, Refused> {
    if choice.get("type").and_then(Node::text).as_deref() != Some("function") {
        return Err(path.no_counterpart());
    }
    choice.get("function").and_then(|function| function.get("name")).ok_or_else(|| path.key("function").key("name").missing())
}

fn tools(out: &mut Writer, tools: Node<'_>) -> Result<(), Refused> {
    let path = Path::root("tools");
    out.key("tools").open(b'[');
    for (index, tool) in tools.list(&path)?.enumerate() {
        let path = path.index(index);
        let mut function = None;
        for (key, value) in tool.object(&path)? {
            match key {
                "function" => function = Some(value),
                "type" if value.0 == "\"function\"" => {}
                _ => return Err(path.key(key).no_counterpart()),
            }
        }
        let path = path.key("function");
        write_tool(out, function.ok_or_else(|| path.missing())?, &path)?;
    }
    out.close(b']');
    Ok(())
}

fn write_tool(out: &mut Writer, function: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
    let mut schema = None;
    out.open(b'{');
    for (key, value) in function.object(path)? {
        match key {
            "parameters" => schema = Some(value).filter(|value| !value.is_neutral()),
            "name" | "description" | "strict" if !value.is_null() => {
                out.member(key, value.0);
            }
            _ if value.is_null() => {}
            _ => return Err(path.key(key).no_counterpart()),
        }
    }
    out.member("input_schema", schema.map_or(r#"{"type":"object","properties":{}}"#, |schema| schema.0)).close(b'}');
    Ok(())
}

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
    fn read(node: Node<'a>, path: &Path<'_>) -> Result<Self, Refused> {
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

/// What stands before the conversation becomes `system`; later instructions stay where they are. Results of tools that follow each other are
/// one turn of the user.
fn messages(out: &mut Writer, list: Node<'_>) -> Result<(), Refused> {
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

fn system_blocks(out: &mut Writer, message: &Message<'_>, path: &Path<'_>) -> Result<(), Refused> {
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

fn write_message(out: &mut Writer, message: &Message<'_>, path: &Path<'_>) -> Result<(), Refused> {
    match message.role {
        "user" => turn(out, "user", message, path),
        "assistant" => turn(out, "assistant", message, path),
        "system" | "developer" => turn(out, "system", message, path),
        "tool" => tool_result(out, message, path),
        _ => Err(path.key("role").no_counterpart()),
    }
}

fn turn(out: &mut Writer, role: &str, message: &Message<'_>, path: &Path<'_>) -> Result<(), Refused> {
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

fn parts(out: &mut Writer, content: Node<'_>, path: &Path<'_>, allowed: Allowed) -> Result<(), Refused> {
    if content.is_string() {
        text_block(out, content);
        return Ok(());
    }
    for (index, part) in content.list(path)?.enumerate() {
        content_part(out, part, &path.index(index), allowed)?;
    }
    Ok(())
}

/// As our answers hold them: blocks of Anthropic's own, which only it can check.
fn thinking(out: &mut Writer, blocks: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
    for (index, block) in blocks.list(path)?.enumerate() {
        if !matches!(block.get("type").map(|kind| kind.0), Some("\"thinking\"" | "\"redacted_thinking\"")) {
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

fn content_part(out: &mut Writer, part: Node<'_>, path: &Path<'_>, allowed: Allowed) -> Result<(), Refused> {
    let kind = part.get("type").and_then(Node::inner);
    let payload = match kind {
        Some("text") => "text",
        Some("refusal") => "refusal",
        Some("image_url") if allowed == Allowed::All => "image_url",
        Some("file") if allowed == Allowed::All => "file",
        Some(_) => return Err(path.key("type").no_counterpart()),
        None => return Err(path.key("type").missing()),
    };
    let mut given = None;
    for (key, value) in part.object(path)? {
        match key {
            "type" => {}
            _ if key == payload => given = Some(value),
            _ if value.is_neutral() => {}
            _ => return Err(path.key(key).no_counterpart()),
        }
    }
    let path = path.key(payload);
    let given = given.ok_or_else(|| path.missing())?;
    match payload {
        "image_url" => image(out, given, &path),
        "file" => file(out, given, &path),
        _ => {
            text_block(out, given.string(&path)?);
            Ok(())
        }
    }
}

fn image(out: &mut Writer, image: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
    let mut url = None;
    for (key, value) in image.object(path)? {
        match key {
            "url" => url = value.text(),
            // Anthropic always looks closely.
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

fn file(out: &mut Writer, file: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
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

fn tool_uses(out: &mut Writer, calls: Node<'_>, path: &Path<'_>) -> Result<(), Refused> {
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

/// Models write nothing at all for a tool without parameters.
pub(super) fn arguments_object(arguments: &str) -> Option<&str> {
    if arguments.trim().is_empty() {
        return Some("{}");
    }
    Node::parse(arguments).filter(|node| node.is_object()).map(|node| node.0)
}

fn tool_result(out: &mut Writer, message: &Message<'_>, path: &Path<'_>) -> Result<(), Refused> {
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
