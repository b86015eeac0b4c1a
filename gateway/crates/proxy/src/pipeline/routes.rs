//! The table of routes, and how their requests are read. The gateway answers on no other path.

use crate::base::problem::Problem;
use http::{Method, Uri};
use std::sync::OnceLock;
use tenon_dialects::{Dialect, RequestFormat};
use tenon_telemetry::names;
use tenon_usage::Operation;

#[derive(Debug)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub operation: Operation,
    /// The dialect of the caller: of requests, streams and errors.
    pub dialect: Dialect,
    pub task: Task,
    /// `gen_ai.operation.name` of its spans.
    pub span: &'static str,
    uri: OnceLock<Uri>,
}

impl Route {
    /// Its path as a target, parsed once.
    pub fn uri(&self) -> &Uri {
        self.uri.get_or_init(|| Uri::from_static(self.path))
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// A call of a model whose body is read as this.
    Call(RequestFormat),
    /// A session over a WebSocket.
    Realtime,
    /// A method of the gRPC listener.
    Grpc(Rpc),
    /// The list of models; no endpoint is called.
    Models,
    /// One of them.
    Model,
    /// Why a completed call went as it did; no endpoint is called.
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

const fn call(path: &'static str, operation: Operation, format: RequestFormat, span: &'static str) -> Route {
    Route { method: Method::POST, path, operation, dialect: format.dialect(), task: Task::Call(format), span, uri: OnceLock::new() }
}

pub static ROUTES: [Route; 15] = [
    call("/v1/chat/completions", Operation::Chat, RequestFormat::Chat, names::CHAT),
    call("/v1/completions", Operation::Completion, RequestFormat::Completion, names::TEXT_COMPLETION),
    call("/v1/embeddings", Operation::Embedding, RequestFormat::Embedding, names::EMBEDDINGS),
    call("/v1/responses", Operation::Response, RequestFormat::Response, names::CHAT),
    call("/v1/messages", Operation::Message, RequestFormat::Message, names::CHAT),
    call("/v1/messages/count_tokens", Operation::CountTokens, RequestFormat::CountTokens, names::COUNT_TOKENS),
    call("/v1/rerank", Operation::Rerank, RequestFormat::Rerank, names::RERANK),
    call("/v1/audio/speech", Operation::Speech, RequestFormat::Speech, names::SPEECH),
    call("/v1/audio/transcriptions", Operation::Transcription, RequestFormat::Transcription, names::TRANSCRIPTION),
    call("/v1/audio/translations", Operation::Transcription, RequestFormat::Transcription, names::TRANSCRIPTION),
    call("/v1/images/generations", Operation::Image, RequestFormat::Image, names::IMAGE),
    call("/v1/images/edits", Operation::Image, RequestFormat::ImageEdit, names::IMAGE),
    call("/v1/images/variations", Operation::Image, RequestFormat::ImageEdit, names::IMAGE),
    Route {
        method: Method::GET,
        path: "/v1/realtime",
        operation: Operation::Realtime,
        dialect: Dialect::OpenAi,
        task: Task::Realtime,
        span: names::REALTIME,
        uri: OnceLock::new(),
    },
    Route {
        method: Method::GET,
        path: "/v1/models",
        operation: Operation::Unspecified,
        dialect: Dialect::OpenAi,
        task: Task::Models,
        span: "models",
        uri: OnceLock::new(),
    },
];

/// Beside the table, because its path holds a name.
pub static MODEL: Route = Route {
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

/// Beside the table too, because its path holds an id.
pub static EXPLAIN: Route = Route {
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

const fn grpc(path: &'static str, rpc: Rpc) -> Route {
    Route {
        method: Method::POST,
        path,
        operation: Operation::Infer,
        dialect: Dialect::OpenAi,
        task: Task::Grpc(rpc),
        span: names::INFER,
        uri: OnceLock::new(),
    }
}

/// Routes of the gRPC listener. The HTTP listener does not serve them.
pub static GRPC_ROUTES: [Route; 7] = [
    grpc("/inference.GRPCInferenceService/ModelInfer", Rpc::ModelInfer),
    grpc("/inference.GRPCInferenceService/ModelStreamInfer", Rpc::ModelStreamInfer),
    grpc("/inference.GRPCInferenceService/ModelMetadata", Rpc::ModelMetadata),
    grpc("/inference.GRPCInferenceService/ModelReady", Rpc::ModelReady),
    grpc("/inference.GRPCInferenceService/ServerLive", Rpc::ServerLive),
    grpc("/inference.GRPCInferenceService/ServerReady", Rpc::ServerReady),
    grpc("/inference.GRPCInferenceService/ServerMetadata", Rpc::ServerMetadata),
];

impl Route {
    /// # Errors
    /// 404 for another path, 405 for another method.
    pub fn of(method: &Method, path: &str) -> Result<&'static Self, Problem> {
        let mut at_path = ROUTES.iter().filter(|route| route.path == path);
        let beside = || explained(path).map(|_| &EXPLAIN).or_else(|| described(path).map(|_| &MODEL));
        let first = at_path.next().or_else(beside).ok_or(Problem::NOT_FOUND)?;
        if first.method == *method {
            return Ok(first);
        }
        at_path.find(|route| route.method == *method).ok_or_else(|| Problem::wrong_method(if first.method == Method::GET { "GET" } else { "POST" }))
    }

    /// Index into the metrics' operations.
    pub fn metric(&self) -> usize {
        match self.task {
            Task::Call(_) | Task::Realtime | Task::Grpc(_) => self.operation as usize,
            Task::Models | Task::Model => crate::observe::metrics::MODELS,
            Task::Explain => 0,
        }
    }
}

/// The table as JSON, for the conformance suite, which fails for a route without a test.
#[must_use]
pub fn routes_json() -> String {
    let routes: Vec<_> = ROUTES
        .iter()
        .chain([&MODEL, &EXPLAIN])
        .chain(&GRPC_ROUTES)
        .map(|route| {
            let (transport, calls_upstream) = match route.task {
                Task::Call(_) => ("http", true),
                Task::Realtime => ("websocket", true),
                Task::Grpc(rpc) => ("grpc", rpc.calls_upstream()),
                Task::Models | Task::Model | Task::Explain => ("http", false),
            };
            serde_json::json!({
                "method": route.method.as_str(),
                "path": route.path,
                "operation": route.operation.as_str_name().trim_start_matches("OPERATION_").to_ascii_lowercase(),
                "dialect": if transport == "grpc" { "open_inference" } else { route.dialect.name() },
                "transport": transport,
                "calls_upstream": calls_upstream,
            })
        })
        .collect();
    serde_json::Value::from(routes).to_string()
}
