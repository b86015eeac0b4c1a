//! The table of doors: every route a caller can take, and how its requests are read. Nothing else decides what the gateway answers to.

use crate::problem::Problem;
use http::{Method, Uri};
use std::sync::OnceLock;
use tenon_dialects::{Dialect, Form};
use tenon_telemetry::names;
use tenon_usage::Operation;

#[derive(Debug)]
pub struct Door {
    pub method: Method,
    pub path: &'static str,
    pub operation: Operation,
    /// What the caller speaks: requests, streams and errors.
    pub dialect: Dialect,
    pub task: Task,
    /// `gen_ai.operation.name` of its spans.
    pub span: &'static str,
    uri: OnceLock<Uri>,
}

impl Door {
    /// Its path as a target, parsed once.
    pub fn uri(&self) -> &Uri {
        self.uri.get_or_init(|| Uri::from_static(self.path))
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// A call of a model whose body is read as this.
    Call(Form),
    /// A session over a WebSocket.
    Realtime,
    /// A method of the gRPC listener.
    Grpc(Rpc),
    /// The list of models; no upstream is called.
    Models,
    /// One of them.
    Model,
    /// Why a call that ended went as it went; no upstream is called.
    Explain,
}

/// Methods of `inference.GRPCInferenceService`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    ServerLive,
    ServerReady,
    ServerMetadata,
    ModelReady,
    ModelMetadata,
    ModelInfer,
    ModelStreamInfer,
}

impl Rpc {
    const fn calls_upstream(self) -> bool {
        matches!(self, Self::ModelMetadata | Self::ModelInfer | Self::ModelStreamInfer)
    }
}

const fn call(path: &'static str, operation: Operation, form: Form, span: &'static str) -> Door {
    Door { method: Method::POST, path, operation, dialect: form.dialect(), task: Task::Call(form), span, uri: OnceLock::new() }
}

pub static DOORS: [Door; 15] = [
    call("/v1/chat/completions", Operation::Chat, Form::Chat, names::CHAT),
    call("/v1/completions", Operation::Completion, Form::Completion, names::TEXT_COMPLETION),
    call("/v1/embeddings", Operation::Embedding, Form::Embedding, names::EMBEDDINGS),
    call("/v1/responses", Operation::Response, Form::Response, names::CHAT),
    call("/v1/messages", Operation::Message, Form::Message, names::CHAT),
    call("/v1/messages/count_tokens", Operation::CountTokens, Form::CountTokens, names::COUNT_TOKENS),
    call("/v1/rerank", Operation::Rerank, Form::Rerank, names::RERANK),
    call("/v1/audio/speech", Operation::Speech, Form::Speech, names::SPEECH),
    call("/v1/audio/transcriptions", Operation::Transcription, Form::Transcription, names::TRANSCRIPTION),
    call("/v1/audio/translations", Operation::Transcription, Form::Transcription, names::TRANSCRIPTION),
    call("/v1/images/generations", Operation::Image, Form::Image, names::IMAGE),
    call("/v1/images/edits", Operation::Image, Form::ImageForm, names::IMAGE),
    call("/v1/images/variations", Operation::Image, Form::ImageForm, names::IMAGE),
    Door {
        method: Method::GET,
        path: "/v1/realtime",
        operation: Operation::Realtime,
        dialect: Dialect::OpenAi,
        task: Task::Realtime,
        span: names::REALTIME,
        uri: OnceLock::new(),
    },
    Door {
        method: Method::GET,
        path: "/v1/models",
        operation: Operation::Unspecified,
        dialect: Dialect::OpenAi,
        task: Task::Models,
        span: "models",
        uri: OnceLock::new(),
    },
];

/// Its path has a place for a name, so it stands beside the table.
pub static MODEL: Door = Door {
    method: Method::GET,
    path: "/v1/models/{id}",
    operation: Operation::Unspecified,
    dialect: Dialect::OpenAi,
    task: Task::Model,
    span: "models",
    uri: OnceLock::new(),
};

/// The model in a path of [`MODEL`], as it is written there. Names may have slashes, and not every client encodes them.
pub fn described(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/models/").filter(|name| !name.is_empty())
}

/// So has this one's.
pub static EXPLAIN: Door = Door {
    method: Method::GET,
    path: "/v1/requests/{id}/explain",
    operation: Operation::Unspecified,
    dialect: Dialect::OpenAi,
    task: Task::Explain,
    span: "explain",
    uri: OnceLock::new(),
};

/// The request id in a path of [`EXPLAIN`].
pub fn explained(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/requests/")?.strip_suffix("/explain").filter(|id| !id.contains('/'))
}

const fn grpc(path: &'static str, rpc: Rpc) -> Door {
    Door {
        method: Method::POST,
        path,
        operation: Operation::Infer,
        dialect: Dialect::OpenAi,
        task: Task::Grpc(rpc),
        span: names::INFER,
        uri: OnceLock::new(),
    }
}

/// Those of the gRPC listener; another reads them, none of them is reached by a path of the others.
pub static GRPC_DOORS: [Door; 7] = [
    grpc("/inference.GRPCInferenceService/ModelInfer", Rpc::ModelInfer),
    grpc("/inference.GRPCInferenceService/ModelStreamInfer", Rpc::ModelStreamInfer),
    grpc("/inference.GRPCInferenceService/ModelMetadata", Rpc::ModelMetadata),
    grpc("/inference.GRPCInferenceService/ModelReady", Rpc::ModelReady),
    grpc("/inference.GRPCInferenceService/ServerLive", Rpc::ServerLive),
    grpc("/inference.GRPCInferenceService/ServerReady", Rpc::ServerReady),
    grpc("/inference.GRPCInferenceService/ServerMetadata", Rpc::ServerMetadata),
];

impl Door {
    /// # Errors
    /// 404 for another path, 405 for another method.
    pub fn of(method: &Method, path: &str) -> Result<&'static Self, Problem> {
        let mut at_path = DOORS.iter().filter(|door| door.path == path);
        let beside = || explained(path).map(|_| &EXPLAIN).or_else(|| described(path).map(|_| &MODEL));
        let first = at_path.next().or_else(beside).ok_or(Problem::NOT_FOUND)?;
        if first.method == *method {
            return Ok(first);
        }
        at_path.find(|door| door.method == *method).ok_or_else(|| Problem::wrong_method(if first.method == Method::GET { "GET" } else { "POST" }))
    }

    /// Index into the metrics' operations.
    pub fn metric(&self) -> usize {
        match self.task {
            Task::Call(_) | Task::Realtime | Task::Grpc(_) => self.operation as usize,
            Task::Models | Task::Model => crate::metrics::MODELS,
            Task::Explain => 0,
        }
    }
}

/// The table as JSON, for the conformance suite: a door that nobody tests must be seen.
#[must_use]
pub fn doors_json() -> String {
    let doors: Vec<_> = DOORS
        .iter()
        .chain([&MODEL, &EXPLAIN])
        .chain(&GRPC_DOORS)
        .map(|door| {
            let (transport, calls_upstream) = match door.task {
                Task::Call(_) => ("http", true),
                Task::Realtime => ("websocket", true),
                Task::Grpc(rpc) => ("grpc", rpc.calls_upstream()),
                Task::Models | Task::Model | Task::Explain => ("http", false),
            };
            serde_json::json!({
                "method": door.method.as_str(),
                "path": door.path,
                "operation": door.operation.as_str_name().trim_start_matches("OPERATION_").to_ascii_lowercase(),
                "dialect": if transport == "grpc" { "open_inference" } else { door.dialect.name() },
                "transport": transport,
                "calls_upstream": calls_upstream,
            })
        })
        .collect();
    serde_json::Value::from(doors).to_string()
}
