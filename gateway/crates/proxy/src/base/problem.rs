//! Why a request gets an error instead of an answer, with everything that is said about it.

use bytes::Bytes;
use std::time::Duration;
use tenon_dialects::ApiError;
use tenon_dialects::translate::TranslationError;
use tenon_dialects::{BodyError, Dialect, error_body, error_frame};
use tenon_limits::{Denied, Exceeded, LimitKind, Subject};
use tenon_policy::Refusal;
use tenon_problem::ProblemCode;
use tenon_usage::RecordId;

#[derive(Clone, Copy, Debug)]
pub struct Problem {
    pub status: u16,
    pub code: ProblemCode,
    message: Message,
    param: Option<&'static str>,
    repair: Option<&'static str>,
    should_retry: bool,
    allow: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Message {
    Fixed(&'static str),
    Body(BodyError),
    Limit(Exceeded),
    /// With the seconds after which a retry may succeed.
    Later(&'static str, u16),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let details = refusal.details();
        let message = Message::Fixed(details.message);
        Self {
            status: details.status,
            code: details.code,
            message,
            param: details.param,
            repair: details.repair,
            should_retry: details.should_retry,
            allow: None,
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        Self { message: Message::Body(error), param: error.param(), ..Self::with_status(error.status(), error.code(), "") }
    }
}

impl From<&Denied> for Problem {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Exceeded(exceeded) => {
                let code = match exceeded.kind {
                    LimitKind::Requests => ProblemCode::RequestsLimitExceeded,
                    LimitKind::Tokens => ProblemCode::TokensLimitExceeded,
                    LimitKind::Concurrency => ProblemCode::ConcurrencyLimitExceeded,
                };
                Self { message: Message::Limit(*exceeded), ..Self::new(code, "") }
            }
            Denied::NotPriced => Self::NOT_PRICED,
            Denied::Unbounded => Self::UNBOUNDED_INPUT,
            Denied::Short { .. } => Self::LEASE_UNAVAILABLE,
        }
    }
}

/// Whole seconds, at least one.
fn seconds(exceeded: &Exceeded) -> u64 {
    exceeded.retry_after_us.div_ceil(1_000_000).max(1)
}

fn sentence(exceeded: &Exceeded) -> String {
    let Exceeded { limit, remaining, .. } = exceeded;
    let whose = match exceeded.subject {
        Subject::Tenant | Subject::Unspecified => "your organisation",
        Subject::Project => "this project",
        Subject::Key => "this API key",
        Subject::Model => "this model",
        Subject::Principal => "this principal",
    };
    let wait = seconds(exceeded);
    match exceeded.kind {
        LimitKind::Requests => format!("The limit of {limit} requests a minute of {whose} is reached. Try again in {wait} s."),
        LimitKind::Tokens => {
            format!("This call exceeds the limit of {limit} tokens a minute of {whose}: {remaining} are left at this gateway. Try again in {wait} s.")
        }
        LimitKind::Concurrency => format!("The limit of {limit} concurrent calls of {whose} is reached. Try again when one has ended."),
    }
}

impl Problem {
    pub const BUDGET_EXHAUSTED: Self = Self {
        should_retry: false,
        repair: Some("Request a shorter answer (`max_tokens`), or have the budget raised."),
        ..Self::new(ProblemCode::BudgetExhausted, "The rest of the budget does not cover the most that this call may cost.")
    };
    pub const LEASE_UNAVAILABLE: Self = Self::new(
        ProblemCode::BudgetLeaseUnavailable,
        "A hard budget applies, no part of it is leased to this gateway, and the control plane cannot be reached at the moment.",
    );
    pub const UNBOUNDED_INPUT: Self = Self {
        repair: Some("Send text alone, or have the model's context and output lengths declared."),
        ..Self::new(ProblemCode::UnboundedInput, "A hard budget applies, and nothing bounds what this call may cost.")
    };
    pub const NOT_PRICED: Self = Self {
        param: Some("model"),
        repair: Some("Have a price set for the model, in the currency of the budget."),
        ..Self::new(ProblemCode::ModelNotPriced, "A hard budget applies, and this model has no price.")
    };

    pub const fn new(code: ProblemCode, message: &'static str) -> Self {
        Self::with_status(code.status(), code, message)
    }

    const fn with_status(status: u16, code: ProblemCode, message: &'static str) -> Self {
        let should_retry = status >= 500 || status == 408 || status == 429;
        Self { status, code, message: Message::Fixed(message), param: None, repair: None, should_retry, allow: None }
    }

    pub const NOT_FOUND: Self = Self::new(ProblemCode::UnknownRoute, "There is no such route.");
    pub const UNKNOWN_REQUEST: Self = Self::new(
        ProblemCode::UnknownRequest,
        "This gateway keeps no such call of your organisation: it still runs, ended long ago, or was served by another gateway.",
    );
    pub const TOO_LARGE: Self = Self::new(ProblemCode::RequestTooLarge, "The body is larger than this gateway accepts.");
    pub const BODY_MEMORY: Self = Self::new(ProblemCode::Overloaded, "This gateway has no memory left for request bodies. Try again soon.");
    pub const CONNECTIONS: Self = Self::new(ProblemCode::Overloaded, "This gateway accepts no more connections at the moment. Try again soon.");
    pub const BODY_TIMEOUT: Self = Self::new(ProblemCode::BodyTimeout, "The body did not arrive in time.");
    pub const BODY_BROKEN: Self = Self::new(ProblemCode::BodyIncomplete, "The body broke off.");
    pub const UNMETERED: Self = Self::new(ProblemCode::MeteringUnavailable, "Usage cannot be recorded at the moment, so no call is made.");
    pub const CONNECT: Self = Self::new(ProblemCode::UpstreamUnreachable, "No endpoint of this model could be reached.");
    pub const UPSTREAM: Self = Self::new(ProblemCode::UpstreamError, "The model's endpoint failed to answer.");
    pub const PROTOCOL: Self = Self::new(ProblemCode::UpstreamProtocol, "The model's endpoint gave an answer that cannot be passed on.");
    pub const CREDENTIAL: Self = Self::new(ProblemCode::UpstreamRefusedGateway, "The model's endpoint refused this gateway's credential.");
    pub const CUT: Self = Self::new(ProblemCode::UpstreamCut, "The model's endpoint broke off its answer.");
    pub const CONNECT_TIMEOUT: Self = Self::new(ProblemCode::UpstreamConnectTimeout, "No connection to the model's endpoint was made in time.");
    pub const HEADERS_TIMEOUT: Self = Self::new(ProblemCode::UpstreamHeadersTimeout, "The model's endpoint did not begin to answer in time.");
    pub const FIRST_TOKEN_TIMEOUT: Self = Self::new(ProblemCode::UpstreamFirstTokenTimeout, "The first token did not come in time.");
    pub const IDLE_TIMEOUT: Self = Self::new(ProblemCode::UpstreamIdleTimeout, "The answer paused for too long.");
    pub const TOTAL_TIMEOUT: Self = Self::new(ProblemCode::UpstreamTotalTimeout, "The answer took longer than allowed.");
    pub const OVERLOADED: Self = Self::new(ProblemCode::UpstreamUnavailable, "The model's endpoint is not available at the moment.");

    /// Names the parameter that is wrong.
    pub const fn about(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    pub const QUEUE_TIMEOUT: Self = Self::new(ProblemCode::QueueTimeout, "Every endpoint of this model was busy for as long as a call may wait.");
    pub const QUEUE_FULL: Self = Self::new(ProblemCode::QueueFull, "Every endpoint of this model is busy, and too many calls wait for one already.");

    /// With the time after which a retry may succeed.
    pub fn after(self, wait: Duration) -> Self {
        let Message::Fixed(text) = self.message else {
            return self;
        };
        Self { message: Message::Later(text, u16::try_from(wait.as_secs().max(1)).unwrap_or(u16::MAX)), ..self }
    }

    pub const fn wrong_method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(ProblemCode::MethodNotAllowed, "This route has another method.") }
    }

    fn with_api_error<T>(&self, use_error: impl FnOnce(&ApiError<'_>) -> T) -> T {
        let text;
        let message = match &self.message {
            Message::Fixed(message) | Message::Later(message, _) => message,
            Message::Body(error) => {
                text = error.to_string();
                &*text
            }
            Message::Limit(exceeded) => {
                text = sentence(exceeded);
                &*text
            }
        };
        use_error(&ApiError { status: self.status, code: self.code.text(), message, param: self.param, repair: self.repair })
    }

    /// As the last frame of a stream that cannot go on.
    pub fn frame(&self, id: RecordId, dialect: Dialect) -> Bytes {
        self.with_api_error(|error| error_frame(dialect, error, &id.text()))
    }

    /// The message for people.
    pub fn sentence(&self) -> String {
        self.with_api_error(|error| error.message.to_owned())
    }

    /// When trying again may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.message {
            _ if !self.should_retry => None,
            Message::Limit(exceeded) => Some(Duration::from_secs(seconds(exceeded))),
            Message::Later(_, seconds) => Some(Duration::from_secs((*seconds).into())),
            _ => (self.status == 503).then_some(Duration::from_secs(1)),
        }
    }

    /// Whether the same request may succeed later.
    pub fn should_retry(&self) -> bool {
        self.should_retry
    }

    /// The methods of the route, where another was used.
    pub fn allow(&self) -> Option<&'static str> {
        self.allow
    }

    /// A limit of requests, tokens or calls at a time.
    pub fn exceeded(&self) -> Option<Exceeded> {
        match self.message {
            Message::Limit(exceeded) => Some(exceeded),
            _ => None,
        }
    }

    /// In the shape of the dialect, without a frame around it.
    pub fn body(&self, id: RecordId, dialect: Dialect) -> Bytes {
        self.with_api_error(|error| error_body(dialect, error, &id.text()))
    }

    /// As [`Self::body`], naming the field that cannot be translated.
    pub fn body_about(&self, refused: &TranslationError, id: RecordId, dialect: Dialect) -> Bytes {
        let message = refused.to_string();
        let error = ApiError { status: self.status, code: self.code.text(), message: &message, param: Some(&refused.path), repair: self.repair };
        error_body(dialect, &error, &id.text())
    }

    /// A request that the endpoint's dialect cannot express.
    pub fn untranslatable(refused: &TranslationError) -> Self {
        Self::new(refused.code, "The request cannot be translated into the protocol of this model's endpoint.")
    }

    /// As [`Self::body`], without a request id.
    pub fn text(&self, dialect: Dialect) -> Bytes {
        self.with_api_error(|error| error_body(dialect, error, ""))
    }
}

/// Of realtime sessions.
impl Problem {
    pub const UPGRADE_REQUIRED: Self =
        Self::new(ProblemCode::UpgradeRequired, "This route speaks WebSocket: open it with a handshake of version 13.");
    pub const TWO_KEYS: Self = Self::new(ProblemCode::DuplicateKey, "Two API keys were sent. Send one.");
    pub const MODEL_TWICE: Self = Self::new(ProblemCode::DuplicateKey, "The parameter `model` appears twice. Send it once.").about("model");
    pub const MODEL_MISSING: Self = Self::new(ProblemCode::MissingParameter, "The parameter `model` is missing.").about("model");
    pub const BAD_MODEL: Self = Self::new(ProblemCode::InvalidType, "The parameter `model` must be a model's name.").about("model");
    pub const UNKNOWN_PARAMETER: Self = Self::new(ProblemCode::UnknownParameter, "Only the parameter `model` is understood here.");
    pub const MODEL_FIXED: Self =
        Self::new(ProblemCode::ModelFixed, "The session's model was chosen when it was opened. Open another session for another model.")
            .about("model");
    pub const NOT_TEXT: Self = Self::new(ProblemCode::InvalidJson, "Events are text. Binary messages are not passed on.");
    pub const GOING_AWAY: Self = Self::new(ProblemCode::GatewayStopping, "This gateway is stopping. Open the session again.");
    pub const CALLER_SILENT: Self = Self::new(ProblemCode::CallerSilent, "Nothing came from the caller for too long.");
}

/// Of the gRPC listener.
impl Problem {
    pub const BAD_MESSAGE: Self = Self::new(ProblemCode::InvalidMessage, "The message cannot be read in exactly one way.");
    pub const COMPRESSED: Self = Self::new(ProblemCode::CompressionNotServed, "Messages must not be compressed.");
    pub const NOT_GRPC: Self = Self::new(ProblemCode::UnsupportedMediaType, "This listener speaks gRPC.");
    pub const UNIMPLEMENTED: Self = Self::with_status(501, ProblemCode::UnknownRoute, "There is no such method here.");
}
