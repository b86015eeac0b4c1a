//! A chat completion's request as one of messages.

use super::chat_messages::messages;
use super::direction::{EndpointOptions, MAX_TOKENS_DEFAULT};
use super::error::{Path, TranslationError};
use super::node::Node;
use super::writer::Writer;

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

pub(super) fn to_message(text: &str, options: &EndpointOptions<'_>) -> Result<Vec<u8>, TranslationError> {
    let root = Node::parse(text).ok_or_else(TranslationError::syntax)?;
    let mut chat = Chat::default();
    for (key, value) in root.members() {
        if !value.is_null() {
            chat.take(key, value, &Path::root(key))?;
        }
    }
    chat.write(text.len(), options)
}

impl<'a> Chat<'a> {
    fn take(&mut self, key: &'a str, value: Node<'a>, path: &Path<'_>) -> Result<(), TranslationError> {
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
            // Cache hints: they change no answer.
            "prompt_cache_key" | "prompt_cache_retention" => {}
            _ if value.is_neutral() => {}
            _ => return Err(path.no_counterpart()),
        }
        Ok(())
    }

    /// OpenAI's range goes to 2, Anthropic's to 1. Scaling would change what the caller requested.
    fn temperature(&mut self, value: Node<'a>, path: &Path<'_>) -> Result<(), TranslationError> {
        match value.number() {
            Some(number) if number <= 1.0 => self.same.push(("temperature", value)),
            Some(_) => return Err(path.untranslatable("is above 1, the highest that this model's endpoint knows.")),
            None => return Err(path.wrong_type("must be a number.")),
        }
        Ok(())
    }

    fn write(&self, length: usize, options: &EndpointOptions<'_>) -> Result<Vec<u8>, TranslationError> {
        let mut out = Writer::with_capacity(length + 256);
        out.open(b'{');
        match options.model {
            Some(model) => out.key("model").text(model),
            None => out.member("model", self.model.ok_or_else(|| Path::root("model").missing())?.0),
        };
        out.key("max_tokens");
        match self.max_tokens {
            Some(bound) => out.raw(bound.0),
            None => out.number(u64::from(if options.output_tokens_max == 0 { MAX_TOKENS_DEFAULT } else { options.output_tokens_max })),
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

    fn write_rest(&self, out: &mut Writer) -> Result<(), TranslationError> {
        if let Some(stop) = self.stop {
            out.key("stop_sequences");
            if stop.is_list() {
                out.raw(stop.0)
            } else {
                out.open(b'[').raw(stop.string(&Path::root("stop"))?.0).close(b']')
            };
        }
        if let Some(list) = self.tools {
            tools(out, list)?;
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

    fn tool_choice(&self, out: &mut Writer) -> Result<(), TranslationError> {
        let single = self.parallel == Some(false);
        let path = Path::root("tool_choice");
        let (choice_type, name) = match self.tool_choice.map(|choice| (choice, choice.text())) {
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
        out.key("tool_choice").open(b'{').key("type").text(choice_type);
        if let Some(name) = name {
            out.member("name", name.0);
        }
        if single && choice_type != "none" {
            out.member("disable_parallel_tool_use", "true");
        }
        out.close(b'}');
        Ok(())
    }

    fn output_config(&self, out: &mut Writer) -> Result<(), TranslationError> {
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

/// `include_usage` is about our answer; Anthropic's streams always report usage.
fn stream_options(value: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
    for (key, value) in value.object(path)? {
        if key != "include_usage" && !value.is_neutral() {
            return Err(path.key(key).no_counterpart());
        }
    }
    Ok(())
}

fn service_tier(value: Node<'_>, path: &Path<'_>) -> Result<&'static str, TranslationError> {
    match value.text().as_deref() {
        Some("auto") => Ok("auto"),
        Some("default") => Ok("standard_only"),
        _ => Err(path.no_counterpart()),
    }
}

/// The requested schema, if any. Anthropic's is always strict and has no name.
fn response_format<'a>(value: Node<'a>, path: &Path<'_>) -> Result<Option<Node<'a>>, TranslationError> {
    let format = value.get("type").and_then(Node::text);
    match format.as_deref() {
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

fn named_tool<'a>(choice: Node<'a>, path: &Path<'_>) -> Result<Node<'a>, TranslationError> {
    if choice.get("type").and_then(Node::text).as_deref() != Some("function") {
        return Err(path.no_counterpart());
    }
    choice.get("function").and_then(|function| function.get("name")).ok_or_else(|| path.key("function").key("name").missing())
}

fn tools(out: &mut Writer, tools: Node<'_>) -> Result<(), TranslationError> {
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

fn write_tool(out: &mut Writer, function: Node<'_>, path: &Path<'_>) -> Result<(), TranslationError> {
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
