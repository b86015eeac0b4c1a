//! Why a call is refused. The codes are stable, because callers depend on them.

use tenon_jose::TokenError;
use tenon_problem::ProblemCode;

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
    pub code: ProblemCode,
    pub message: &'static str,
    pub param: Option<&'static str>,
    pub repair: Option<&'static str>,
    pub should_retry: bool,
}

impl Refusal {
    #[must_use]
    pub fn details(self) -> RefusalDetails {
        let details = |code: ProblemCode, message| RefusalDetails {
            status: code.status(),
            code,
            message,
            param: None,
            repair: None,
            should_retry: code.status() >= 500,
        };
        match self {
            Self::MissingKey => {
                details(ProblemCode::MissingApiKey, "No API key was sent. Send it as `Authorization: Bearer <key>` or `x-api-key: <key>`.")
            }
            Self::InvalidKey => details(ProblemCode::InvalidApiKey, "The API key is not valid."),
            Self::Revoked => details(ProblemCode::KeyRevoked, "The API key has been revoked."),
            Self::Expired => details(ProblemCode::KeyExpired, "The API key has expired."),
            Self::NotFresh => details(ProblemCode::KeyNotFresh, "The key is marked strict, and the control plane cannot confirm it at the moment."),
            Self::TooOld => details(ProblemCode::SnapshotTooOld, "The gateway has lost contact with the control plane for too long to keep serving."),
            Self::Unresolvable => {
                details(ProblemCode::KeyUnresolvable, "The API key is not known here yet, and the control plane cannot be reached at the moment.")
            }
            Self::Token(reason) => token(reason),
            Self::TooManyInvalidTokens => RefusalDetails {
                should_retry: true,
                ..details(ProblemCode::TooManyInvalidTokens, "Too many tokens from this address were invalid, so this one was not checked.")
            },
            Self::SubjectUnknown => details(ProblemCode::TokenSubjectUnknown, "The token is valid, but no credential exists for its subject."),
            Self::SubjectAmbiguous => RefusalDetails {
                repair: Some("Give the issuer an audience that only your organisation uses, and ask your provider for tokens with it."),
                ..details(ProblemCode::TokenAmbiguous, "The token's subject has credentials in more than one organisation.")
            },
            Self::CertificateRequired => details(ProblemCode::CertificateRequired, "This credential can only be used with its client certificate."),
            Self::NetworkNotAllowed => details(ProblemCode::NetworkNotAllowed, "This credential cannot be used from this network."),
            Self::OperationNotAllowed => details(ProblemCode::OperationNotAllowed, "This credential may not use this endpoint."),
            Self::MayNotCall => RefusalDetails {
                repair: Some("Open a session with this key and call models with the session's key, or use a key whose policy permits model calls."),
                ..details(ProblemCode::KeyMayNotCallModels, "This API key may not call models.")
            },
            Self::ModelNotFound => model(details(
                ProblemCode::ModelNotFound,
                "No model of this name is routed for your organisation. `GET /v1/models` lists those you may call.",
            )),
            Self::ModelNotAllowed => {
                model(details(ProblemCode::ModelNotAllowed, "This API key may not call this model. `GET /v1/models` lists those it may."))
            }
            Self::NoClearedEndpoint => RefusalDetails {
                repair: Some("Choose a model with an endpoint cleared for every marking of the session, or open a new session with a lower ceiling."),
                ..model(details(ProblemCode::NoClearedEndpoint, "No endpoint of this model is cleared for the markings this session may hold."))
            },
            Self::OperationNotServed => RefusalDetails {
                repair: Some("Use an operation that the model's endpoints serve, or ask the operator for an endpoint that serves this one."),
                ..model(details(ProblemCode::OperationNotServed, "No endpoint of this model serves this operation."))
            },
            Self::NoUsableEndpoint => model(details(ProblemCode::NoUsableEndpoint, "No endpoint of this model can be used at the moment.")),
        }
    }
}

fn model(details: RefusalDetails) -> RefusalDetails {
    RefusalDetails { param: Some("model"), ..details }
}

/// The messages name what is wrong with the caller's token, and reveal nothing about this side.
fn token(reason: TokenError) -> RefusalDetails {
    let (code, message) = match reason {
        TokenError::Expired => (ProblemCode::TokenExpired, "The token has expired."),
        TokenError::NotYet => (ProblemCode::TokenNotYetValid, "The token is not valid yet."),
        TokenError::TooLarge => (ProblemCode::InvalidToken, "The token is larger than 8 KiB."),
        TokenError::Malformed => {
            (ProblemCode::InvalidToken, "The token cannot be read: it must be a compact JWS of strict base64url and JSON without repeated names.")
        }
        TokenError::Critical => (ProblemCode::InvalidToken, "The token's header has `crit`, which is not accepted."),
        TokenError::Embedded => {
            (ProblemCode::InvalidToken, "The token's header contains a key, an encryption or an encoding, which is not accepted.")
        }
        TokenError::Type => (ProblemCode::InvalidToken, "The token's `typ` is not `JWT` or `at+jwt`."),
        TokenError::Algorithm => (ProblemCode::InvalidToken, "The token's algorithm is not the one configured for its issuer."),
        TokenError::Key => (ProblemCode::InvalidToken, "The token does not name a key of its issuer."),
        TokenError::Signature => (ProblemCode::InvalidToken, "The token's signature is wrong."),
        TokenError::Claims => (ProblemCode::InvalidToken, "A claim of the token is missing or has the wrong type."),
        TokenError::Issuer => (ProblemCode::InvalidToken, "No issuer of this name is trusted."),
        TokenError::Audience => (ProblemCode::InvalidToken, "The token is for another audience."),
        TokenError::Lifetime => (ProblemCode::InvalidToken, "The token's lifetime is longer than its issuer may grant."),
        TokenError::Subject => (ProblemCode::InvalidToken, "The token has no subject."),
    };
    RefusalDetails { status: 401, code, message, param: None, repair: None, should_retry: false }
}
