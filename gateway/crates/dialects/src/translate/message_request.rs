//! A request of messages as one of chat completions.

use super::direction::EndpointOptions;
use super::error::{Path, TranslationError};
use super::message_turns::{only, system_message, turn};
use super::node::Node;
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

pub(super) fn to_chat(text: &str, options: &EndpointOptions<'_>) -> Result<Vec<u8>, TranslationError> {
    let root = Node::parse(text).ok_or_else(TranslationError::syntax)?;
    let mut message = Message::default();
    for (key, value) in root.members() {
        if !value.is_null() {
            message.take(key, value, &Path::root(key))?;
        }
    }
    message.write(text.len(), options)
}

impl<'a> Message<'a> {
    fn take(&mut self, key: &'a str, value: Node<'a>, path: &Path<'_>) -> Result<(), TranslationError> {
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
            // A hint: engines with OpenAI's protocol cache prefixes by themselves.
            "cache_control" => {}
            _ if value.is_neutral() => {}
            _ => return Err(path.no_counterpart()),
        }
        Ok(())
    }

    fn output_config(&mut self, value: Node<'a>, path: &Path<'_>) -> Result<(), TranslationError> {
        for (key, value) in value.object(path)? {
            match key {
                _ if value.is_null() => {}
                "effort" => self.effort = Some(value.string(&path.key(key))?),
                "format" => {
                    let path = path.key(key);
                    if value.get("type").map(|format| format.0) != Some("\"json_schema\"") {
                        return Err(path.key("type").no_counterpart());
                    }
                    self.schema = Some(value.get("schema").ok_or_else(|| path.key("schema").missing())?);
                }
                _ => return Err(path.key(key).no_counterpart()),
            }
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
        let bound = self.max_tokens.ok_or_else(|| Path::root("max_tokens").missing())?;
        out.member(if options.max_completion_tokens { "max_completion_tokens" } else { "max_tokens" }, bound.0);
        if self.stream {
            out.member("stream", "true").key("stream_options").raw(if options.continuous_usage {
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

    fn write_rest(&self, out: &mut Writer) -> Result<(), TranslationError> {
        if let Some(stop) = self.stop {
            out.member("stop", stop.0);
        }
        if let Some(list) = self.tools {
            tools(out, list)?;
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

/// OpenAI's protocol has a scale, Anthropic's a number of tokens; the thresholds are ours. `adaptive` lets the model decide, as an absent key does.
fn thinking(value: Node<'_>, path: &Path<'_>) -> Result<Option<&'static str>, TranslationError> {
    let mut budget = None;
    let mut mode = None;
    for (key, value) in value.object(path)? {
        match key {
            "type" => mode = value.inner(),
            "budget_tokens" => budget = value.unsigned(),
            "display" if matches!(value.0, "null" | "\"summarized\"") => {}
            _ => return Err(path.key(key).no_counterpart()),
        }
    }
    match (mode, budget) {
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

fn tools(out: &mut Writer, tools: Node<'_>) -> Result<(), TranslationError> {
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

fn tool_choice(out: &mut Writer, choice: Node<'_>) -> Result<(), TranslationError> {
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
