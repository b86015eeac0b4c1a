//! Why a call is refused. Codes are stable: callers switch on them.

use tenon_jose::TokenError;

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
    /// What was sent is a token, and no good one.
    Token(TokenError),
    /// Too many tokens of this source failed: no other is checked now.
    TooManyForgeries,
    SubjectUnknown,
    SubjectAmbiguous,
    CertificateRequired,
    NetworkNotAllowed,
    OperationNotAllowed,
    MayNotCall,
    ModelNotFound,
    ModelNotAllowed,
    NoClearedEndpoint,
    NoUsableEndpoint,
    OperationNotServed,
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
            Self::Token(why) => token(why),
            Self::TooManyForgeries => Told {
                should_retry: true,
                ..told(429, "too_many_invalid_tokens", "Too many tokens from this address were no good, so this one was not looked at.")
            },
            Self::SubjectUnknown => told(401, "token_subject_unknown", "The token is valid, but no credential here stands for its subject."),
            Self::SubjectAmbiguous => Told {
                repair: Some("Set the issuer to an audience of your organisation's own, and ask your provider for tokens with it."),
                ..told(401, "token_ambiguous", "The token's subject stands for credentials of more than one organisation.")
            },
            Self::CertificateRequired => told(403, "certificate_required", "This credential can be used only with its client certificate."),
            Self::NetworkNotAllowed => told(403, "network_not_allowed", "This credential cannot be used from this network."),
            Self::OperationNotAllowed => told(403, "operation_not_allowed", "This credential may not use this endpoint."),
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
            Self::OperationNotServed => Told {
                repair: Some("Call the model by an operation that its endpoints serve, or ask the operator for an endpoint that serves this one."),
                ..model(told(400, "operation_not_served", "No endpoint of this model serves this operation."))
            },
            Self::NoUsableEndpoint => model(told(503, "no_usable_endpoint", "No endpoint of this model can be used at the moment.")),
        }
    }
}

fn model(told: Told) -> Told {
    Told { param: Some("model"), ..told }
}

/// The sentences name what is wrong with the caller's own token, and nothing about our side.
fn token(why: TokenError) -> Told {
    let (code, message) = match why {
        TokenError::Expired => ("token_expired", "The token has expired."),
        TokenError::NotYet => ("token_not_yet_valid", "The token is not valid yet."),
        TokenError::TooLarge => ("invalid_token", "The token is larger than 8 KiB."),
        TokenError::Malformed => {
            ("invalid_token", "The token cannot be read: it must be a compact JWS of strict base64url and JSON without repeated names.")
        }
        TokenError::Critical => ("invalid_token", "The token's header has `crit`, which is not accepted."),
        TokenError::Embedded => ("invalid_token", "The token's header brings a key, an encryption or an encoding along, which is not accepted."),
        TokenError::Type => ("invalid_token", "The token's `typ` is not `JWT` or `at+jwt`."),
        TokenError::Algorithm => ("invalid_token", "The token's algorithm is not the one set for its issuer."),
        TokenError::Key => ("invalid_token", "The token names no key of its issuer."),
        TokenError::Signature => ("invalid_token", "The token's signature is wrong."),
        TokenError::Claims => ("invalid_token", "A claim of the token is missing or has the wrong type."),
        TokenError::Issuer => ("invalid_token", "No issuer of this name is trusted here."),
        TokenError::Audience => ("invalid_token", "The token is for another audience."),
        TokenError::Lifetime => ("invalid_token", "The token lives longer than its issuer may let it."),
        TokenError::Subject => ("invalid_token", "The token names no subject."),
    };
    Told { status: 401, code, message, param: None, repair: None, should_retry: false }
}
