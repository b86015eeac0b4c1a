//! Why a call is refused. Codes are stable: callers switch on them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    MissingKey,
    InvalidKey,
    Revoked,
    Expired,
    /// A strict key, and the control plane was not heard for longer than strictness allows.
    NotFresh,
    /// Nothing was heard for longer than the gateway may serve from memory.
    TooOld,
    /// The key is not held and the control plane cannot be asked now.
    Unresolvable,
    MayNotCall,
    ModelNotFound,
    ModelNotAllowed,
    NoClearedEndpoint,
    NoUsableEndpoint,
}

/// How a refusal is told. Kept here so that every door tells it alike.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
    pub param: Option<&'static str>,
    pub repair: Option<&'static str>,
    pub should_retry: bool,
}

impl Refusal {
    #[must_use]
    pub fn told(self) -> Told {
        let told = |status, code, message| Told { status, code, message, param: None, repair: None, should_retry: status >= 500 };
        match self {
            Self::MissingKey => told(401, "missing_api_key", "No API key was sent. Send it as `Authorization: Bearer <key>` or `x-api-key: <key>`."),
            Self::InvalidKey => told(401, "invalid_api_key", "The API key is not valid."),
            Self::Revoked => told(401, "key_revoked", "The API key has been revoked."),
            Self::Expired => told(401, "key_expired", "The API key has expired."),
            Self::NotFresh => told(503, "key_not_fresh", "The key is marked strict and the control plane cannot confirm it at the moment."),
            Self::TooOld => told(503, "snapshot_too_old", "The control plane was not heard for too long to go on serving."),
            Self::Unresolvable => {
                told(503, "key_unresolvable", "The API key is not known here yet and the control plane cannot be asked at the moment.")
            }
            Self::MayNotCall => Told {
                repair: Some("Open a session with this key and call models with the session's key, or use a key whose policy permits model calls."),
                ..told(403, "key_may_not_call_models", "This API key may not call models.")
            },
            Self::ModelNotFound => model(told(
                404,
                "model_not_found",
                "No model of this name is routed for your organisation. `GET /v1/models` lists those you may call.",
            )),
            Self::ModelNotAllowed => {
                model(told(403, "model_not_allowed", "This API key may not call this model. `GET /v1/models` lists those it may."))
            }
            Self::NoClearedEndpoint => Told {
                repair: Some("Choose a model with an endpoint cleared for every marking of the session, or open a new session with a lower ceiling."),
                ..model(told(403, "no_cleared_endpoint", "No endpoint of this model is cleared for the markings this session may hold."))
            },
            Self::NoUsableEndpoint => model(told(503, "no_usable_endpoint", "No endpoint of this model can be used at the moment.")),
        }
    }
}

fn model(told: Told) -> Told {
    Told { param: Some("model"), ..told }
}
