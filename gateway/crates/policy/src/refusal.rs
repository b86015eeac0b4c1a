//! Why a call is refused. The codes are stable, because callers depend on them.

use tenon_jose::TokenError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    MissingKey,
    InvalidKey,
    Revoked,
    Expired,
    /// The key is strict, and the last contact with the control plane is older than that allows.
    NotFresh,
    /// The last contact with the control plane is older than the gateway may serve without it.
    TooOld,
    /// The key is not known here and the control plane cannot be reached now.
    Unresolvable,
    /// A token was sent, and it is not valid.
    Token(TokenError),
    /// Too many tokens from this source were invalid, so no other is checked now.
    TooManyInvalidTokens,
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

/// How a refusal is reported. Defined here so that every endpoint reports it alike.
#[derive(Clone, Copy, Debug)]
pub struct RefusalDetails {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
    pub param: Option<&'static str>,
    pub repair: Option<&'static str>,
    pub should_retry: bool,
}

impl Refusal {
    #[must_use]
    pub fn details(self) -> RefusalDetails {
        let details = |status, code, message| RefusalDetails { status, code, message, param: None, repair: None, should_retry: status >= 500 };
        match self {
            Self::MissingKey => {
                details(401, "missing_api_key", "No API key was sent. Send it as `Authorization: Bearer <key>` or `x-api-key: <key>`.")
            }
            Self::InvalidKey => details(401, "invalid_api_key", "The API key is not valid."),
            Self::Revoked => details(401, "key_revoked", "The API key has been revoked."),
            Self::Expired => details(401, "key_expired", "The API key has expired."),
            Self::NotFresh => details(503, "key_not_fresh", "The key is marked strict, and the control plane cannot confirm it at the moment."),
            Self::TooOld => details(503, "snapshot_too_old", "The gateway has lost contact with the control plane for too long to keep serving."),
            Self::Unresolvable => {
                details(503, "key_unresolvable", "The API key is not known here yet, and the control plane cannot be reached at the moment.")
            }
            Self::Token(reason) => token(reason),
            Self::TooManyInvalidTokens => RefusalDetails {
                should_retry: true,
                ..details(429, "too_many_invalid_tokens", "Too many tokens from this address were invalid, so this one was not checked.")
            },
            Self::SubjectUnknown => details(401, "token_subject_unknown", "The token is valid, but no credential exists for its subject."),
            Self::SubjectAmbiguous => RefusalDetails {
                repair: Some("Give the issuer an audience that only your organisation uses, and ask your provider for tokens with it."),
                ..details(401, "token_ambiguous", "The token's subject has credentials in more than one organisation.")
            },
            Self::CertificateRequired => details(403, "certificate_required", "This credential can only be used with its client certificate."),
            Self::NetworkNotAllowed => details(403, "network_not_allowed", "This credential cannot be used from this network."),
            Self::OperationNotAllowed => details(403, "operation_not_allowed", "This credential may not use this endpoint."),
            Self::MayNotCall => RefusalDetails {
                repair: Some("Open a session with this key and call models with the session's key, or use a key whose policy permits model calls."),
                ..details(403, "key_may_not_call_models", "This API key may not call models.")
            },
            Self::ModelNotFound => model(details(
                404,
                "model_not_found",
                "No model of this name is routed for your organisation. `GET /v1/models` lists those you may call.",
            )),
            Self::ModelNotAllowed => {
                model(details(403, "model_not_allowed", "This API key may not call this model. `GET /v1/models` lists those it may."))
            }
            Self::NoClearedEndpoint => RefusalDetails {
                repair: Some("Choose a model with an endpoint cleared for every marking of the session, or open a new session with a lower ceiling."),
                ..model(details(403, "no_cleared_endpoint", "No endpoint of this model is cleared for the markings this session may hold."))
            },
            Self::OperationNotServed => RefusalDetails {
                repair: Some("Use an operation that the model's endpoints serve, or ask the operator for an endpoint that serves this one."),
                ..model(details(400, "operation_not_served", "No endpoint of this model serves this operation."))
            },
            Self::NoUsableEndpoint => model(details(503, "no_usable_endpoint", "No endpoint of this model can be used at the moment.")),
        }
    }
}

fn model(details: RefusalDetails) -> RefusalDetails {
    RefusalDetails { param: Some("model"), ..details }
}

/// The messages name what is wrong with the caller's token, and reveal nothing about this side.
fn token(reason: TokenError) -> RefusalDetails {
    let (code, message) = match reason {
        TokenError::Expired => ("token_expired", "The token has expired."),
        TokenError::NotYet => ("token_not_yet_valid", "The token is not valid yet."),
        TokenError::TooLarge => ("invalid_token", "The token is larger than 8 KiB."),
        TokenError::Malformed => {
            ("invalid_token", "The token cannot be read: it must be a compact JWS of strict base64url and JSON without repeated names.")
        }
        TokenError::Critical => ("invalid_token", "The token's header has `crit`, which is not accepted."),
        TokenError::Embedded => ("invalid_token", "The token's header contains a key, an encryption or an encoding, which is not accepted."),
        TokenError::Type => ("invalid_token", "The token's `typ` is not `JWT` or `at+jwt`."),
        TokenError::Algorithm => ("invalid_token", "The token's algorithm is not the one configured for its issuer."),
        TokenError::Key => ("invalid_token", "The token does not name a key of its issuer."),
        TokenError::Signature => ("invalid_token", "The token's signature is wrong."),
        TokenError::Claims => ("invalid_token", "A claim of the token is missing or has the wrong type."),
        TokenError::Issuer => ("invalid_token", "No issuer of this name is trusted."),
        TokenError::Audience => ("invalid_token", "The token is for another audience."),
        TokenError::Lifetime => ("invalid_token", "The token's lifetime is longer than its issuer may grant."),
        TokenError::Subject => ("invalid_token", "The token has no subject."),
    };
    RefusalDetails { status: 401, code, message, param: None, repair: None, should_retry: false }
}
