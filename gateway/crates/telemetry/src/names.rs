//! Names used in spans: OpenTelemetry's where it has one (semantic conventions for GenAI and HTTP), otherwise ours with the prefix `tenon.`.

pub const SERVICE_NAME: &str = "service.name";
pub const SERVICE_VERSION: &str = "service.version";
pub const SERVICE: &str = "tenon-gateway";

pub const OPERATION: &str = "gen_ai.operation.name";
pub const REQUEST_MODEL: &str = "gen_ai.request.model";
pub const PROVIDER: &str = "gen_ai.provider.name";
pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
pub const STATUS_CODE: &str = "http.response.status_code";
pub const ERROR_TYPE: &str = "error.type";
pub const REQUEST_ID: &str = "tenon.request_id";
pub const OUTCOME: &str = "tenon.outcome";

/// Values of [`OPERATION`].
pub const CHAT: &str = "chat";
pub const TEXT_COMPLETION: &str = "text_completion";
pub const EMBEDDINGS: &str = "embeddings";
pub const RERANK: &str = "rerank";
pub const SPEECH: &str = "speech";
pub const TRANSCRIPTION: &str = "transcription";
pub const IMAGE: &str = "image_generation";
pub const REALTIME: &str = "realtime";
pub const INFER: &str = "infer";
pub const COUNT_TOKENS: &str = "count_tokens";

/// Value of [`PROVIDER`]: the API dialect, whoever runs the engine.
pub const OPENAI: &str = "openai";
