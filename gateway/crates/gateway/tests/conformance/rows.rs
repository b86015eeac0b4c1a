//! The rows of the suite: a good request for each route. A route of the product without a row here fails the suite.

use tenon_contract::Protocol;

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    Multipart,
    /// A WebSocket: it has a query and no body.
    Socket,
    /// No upstream is called and no model is named.
    Listing,
    /// No upstream is called; the path names a model.
    Named,
    /// A method over gRPC, on a listener of its own.
    Grpc,
    /// A method that is answered without an endpoint.
    GrpcListing,
}

/// A route, in one of the ways in which it is used.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub short: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub operation: &'static str,
    /// The caller's dialect: the format of errors.
    pub dialect: &'static str,
    /// The endpoint's protocol.
    pub protocol: Protocol,
    pub kind: Kind,
    pub streamed: bool,
    /// The recorded usage; zeros for a route whose engines report none.
    pub usage: (u64, u64),
    /// Members of the body beside `model` and `stream`.
    members: &'static str,
}

pub const BOUNDARY: &str = "conformance-7f3a";
const MESSAGES: &str = r#""max_tokens":16,"messages":[{"role":"user","content":"hi"}]"#;

const fn row(short: &'static str, path: &'static str, operation: &'static str, members: &'static str) -> Row {
    Row {
        short,
        method: "POST",
        path,
        operation,
        dialect: "openai",
        protocol: Protocol::Openai,
        kind: Kind::Json,
        streamed: false,
        usage: (11, 7),
        members,
    }
}

const fn streamed(short: &'static str, of: Row) -> Row {
    Row { short, streamed: true, ..of }
}

const fn usage(input: u64, output: u64, of: Row) -> Row {
    Row { usage: (input, output), ..of }
}

const fn with_protocol(dialect: &'static str, protocol: Protocol, of: Row) -> Row {
    Row { dialect, protocol, ..of }
}

const fn multipart(of: Row) -> Row {
    Row { kind: Kind::Multipart, ..of }
}

const fn grpc(short: &'static str, path: &'static str) -> Row {
    Row { short, path, dialect: "open_inference", protocol: Protocol::KserveGrpc, kind: Kind::Grpc, ..row(short, path, "infer", "") }
}

const fn listing(of: Row) -> Row {
    Row { kind: Kind::GrpcListing, usage: (0, 0), ..of }
}

const CHAT: Row = row("chat", "/v1/chat/completions", "chat", MESSAGES);
const COMPLETION: Row = row("compl", "/v1/completions", "completion", r#""max_tokens":16,"prompt":"hi""#);
const RESPONSE: Row = row("resp", "/v1/responses", "response", r#""max_output_tokens":16,"input":"hi""#);
const MESSAGE: Row = with_protocol("anthropic", Protocol::Anthropic, row("msg", "/v1/messages", "message", MESSAGES));
const COUNT: Row = row("count", "/v1/messages/count_tokens", "count_tokens", r#""messages":[{"role":"user","content":"hi"}]"#);
const SPEECH: Row = row("speech", "/v1/audio/speech", "speech", r#""input":"hi","voice":"alloy""#);
const IMAGE: &str = r#""prompt":"a tenon""#;

pub const ROWS: &[Row] = &[
    CHAT,
    streamed("chat≈", CHAT),
    COMPLETION,
    streamed("compl≈", COMPLETION),
    usage(11, 0, row("embed", "/v1/embeddings", "embedding", r#""input":"hi""#)),
    RESPONSE,
    streamed("resp≈", RESPONSE),
    MESSAGE,
    streamed("msg≈", MESSAGE),
    usage(0, 0, with_protocol("anthropic", Protocol::Anthropic, COUNT)),
    // The same routes with an endpoint of the other dialect.
    with_protocol("openai", Protocol::Anthropic, Row { short: "chat→A", ..CHAT }),
    with_protocol("openai", Protocol::Anthropic, streamed("chat→A≈", CHAT)),
    with_protocol("anthropic", Protocol::Openai, Row { short: "msg→O", ..MESSAGE }),
    with_protocol("anthropic", Protocol::Openai, streamed("msg→O≈", MESSAGE)),
    usage(11, 0, row("rerank", "/v1/rerank", "rerank", r#""query":"hi","documents":["a","b"]"#)),
    usage(0, 0, SPEECH),
    multipart(row("transcr", "/v1/audio/transcriptions", "transcription", "file")),
    multipart(row("transl", "/v1/audio/translations", "transcription", "file")),
    row("image", "/v1/images/generations", "image", IMAGE),
    multipart(row("edit", "/v1/images/edits", "image", "image")),
    multipart(row("vary", "/v1/images/variations", "image", "image")),
    Row { method: "GET", kind: Kind::Socket, streamed: true, ..row("socket", "/v1/realtime", "realtime", "") },
    Row { method: "GET", kind: Kind::Listing, usage: (0, 0), ..row("models", "/v1/models", "unspecified", "") },
    Row { method: "GET", kind: Kind::Named, usage: (0, 0), ..row("model", "/v1/models/{id}", "unspecified", "") },
    // Called for a request that was never made; tests/explain.rs calls it for real ones.
    Row { method: "GET", kind: Kind::Listing, usage: (0, 0), ..row("explain", "/v1/requests/{id}/explain", "unspecified", "") },
    grpc("infer", "/inference.GRPCInferenceService/ModelInfer"),
    streamed("infer≈", grpc("infer≈", "/inference.GRPCInferenceService/ModelStreamInfer")),
    usage(0, 0, grpc("meta", "/inference.GRPCInferenceService/ModelMetadata")),
    listing(grpc("mready", "/inference.GRPCInferenceService/ModelReady")),
    listing(grpc("live", "/inference.GRPCInferenceService/ServerLive")),
    listing(grpc("ready", "/inference.GRPCInferenceService/ServerReady")),
    listing(grpc("server", "/inference.GRPCInferenceService/ServerMetadata")),
];

/// A request's body and its content type, which for a WebSocket is its query, and for a path that names a model the name.
pub struct Sent {
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Row {
    pub fn name(&self) -> String {
        if self.is_grpc() {
            return format!("gRPC {}{}", &self.path[1..], if self.streamed { ", a stream" } else { "" });
        }
        let over = match (self.dialect, self.protocol) {
            ("openai", Protocol::Anthropic) => ", Anthropic endpoint",
            ("anthropic", Protocol::Openai) => ", OpenAI endpoint",
            _ => "",
        };
        format!("{} {}{}{over}", self.method, self.path, if self.streamed { ", streamed" } else { "" })
    }

    pub fn is_call(&self) -> bool {
        !matches!(self.kind, Kind::Listing | Kind::Named | Kind::GrpcListing)
    }

    pub fn names_model(&self) -> bool {
        self.is_call() || self.kind == Kind::Named
    }

    pub fn is_grpc(&self) -> bool {
        matches!(self.kind, Kind::Grpc | Kind::GrpcListing)
    }

    pub fn has_body(&self) -> bool {
        matches!(self.kind, Kind::Json | Kind::Multipart)
    }

    /// The summary of a good answer.
    pub fn begins(&self) -> &'static str {
        match (self.kind, self.streamed) {
            (Kind::Socket, _) => "101 session",
            (Kind::Grpc, _) => "OK",
            (_, true) => "200 stream",
            (_, false) => "200",
        }
    }

    /// The endpoint and the caller use different dialects.
    pub fn is_translated(&self) -> bool {
        self.protocol_name() != self.dialect
    }

    pub fn protocol_name(&self) -> &'static str {
        protocol_name(self.protocol)
    }

    /// A good request for this model.
    pub fn request(&self, model: &str) -> Sent {
        match self.kind {
            Kind::Multipart => Sent { content_type: format!("multipart/form-data; boundary={BOUNDARY}"), body: self.form(&[model], b"RIFF....") },
            Kind::Socket => Sent { content_type: format!("model={model}"), body: Vec::new() },
            Kind::Named => Sent { content_type: model.into(), body: Vec::new() },
            Kind::Listing | Kind::Grpc | Kind::GrpcListing => Sent { content_type: "application/json".into(), body: Vec::new() },
            Kind::Json => {
                let stream = if self.streamed { r#","stream":true"# } else { "" };
                Sent { content_type: "application/json".into(), body: format!(r#"{{"model":"{model}"{stream},{}}}"#, self.members).into_bytes() }
            }
        }
    }

    /// A multipart body with a part `model` for each name, and a file.
    pub fn form(&self, models: &[&str], file: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for model in models {
            body.extend(format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n").into_bytes());
        }
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{}\"; filename=\"f.bin\"\r\n", self.members);
        body.extend([head.as_bytes(), b"content-type: application/octet-stream\r\n\r\n", file, b"\r\n"].concat());
        if self.members == "image" {
            body.extend(format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\na tenon\r\n").into_bytes());
        }
        body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
        body
    }
}

pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Anthropic => "anthropic",
        Protocol::KserveGrpc => "open_inference",
        _ => "openai",
    }
}

/// The headers of every WebSocket client.
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The head of a request with a body of this length.
pub fn head(row: &Row, key: &str, content_type: &str, length: usize) -> String {
    if row.kind == Kind::Socket {
        let key = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
        return format!("GET {}?{content_type} HTTP/1.1\r\nhost: gateway\r\n{key}{UPGRADE}\r\n", row.path);
    }
    let key = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
    let version = if row.dialect == "anthropic" { "anthropic-version: 2023-06-01\r\n" } else { "" };
    let body = if row.method == "GET" { String::new() } else { format!("content-type: {content_type}\r\ncontent-length: {length}\r\n") };
    let path = if row.kind == Kind::Named { row.path.replace("{id}", content_type) } else { row.path.into() };
    format!("{} {path} HTTP/1.1\r\nhost: gateway\r\n{key}{version}{body}\r\n", row.method)
}
