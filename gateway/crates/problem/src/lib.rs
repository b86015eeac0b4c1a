//! Names every error of the gateway by a stable code, with its status, its meaning and what to do about it.
//!
//! Owns: [`ProblemCode`], from which the errors, the labels of the metrics and `docs/reference/error-codes.md` come.
//! Promises: a code is never renamed or used for something else; each has a label in the metrics and an entry in the docs.
//! Needs: nothing.

macro_rules! problem_codes {
    ($($name:ident $text:literal $status:literal $meaning:literal, $remedy:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $(#[doc = $meaning] $name,)*
        }

        impl ProblemCode {
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// The texts of all, in the same order: labels of the metrics.
            pub const TEXTS: [&str; Self::ALL.len()] = [$($text,)*];

            /// As callers read it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that it usually comes with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// What the caller can do.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

problem_codes! {
    MissingApiKey "missing_api_key" 401 "No API key was sent.", "Send it as `Authorization: Bearer <key>` or `x-api-key: <key>`.";
    InvalidApiKey "invalid_api_key" 401 "The API key is not valid.", "Check the key, or create another.";
    KeyRevoked "key_revoked" 401 "The API key has been revoked.", "Create another key.";
    KeyExpired "key_expired" 401 "The API key has expired.", "Create another key.";
    KeyNotFresh "key_not_fresh" 503 "The key is strict, and the control plane cannot confirm it now.", "Try again.";
    SnapshotTooOld "snapshot_too_old" 503 "The gateway has had no answer from the control plane for too long.", "Try again; report it to the operator.";
    KeyUnresolvable "key_unresolvable" 503 "The gateway does not know the key yet and cannot ask the control plane now.", "Try again.";
    InvalidToken "invalid_token" 401 "The token is not valid; the message says why.", "Get another token from your provider.";
    TokenExpired "token_expired" 401 "The token has expired.", "Get another token from your provider.";
    TokenNotYetValid "token_not_yet_valid" 401 "The token is not valid yet.", "Check the clock of the token's issuer.";
    TokenSubjectUnknown "token_subject_unknown" 401 "No credential here is bound to the token's subject.", "Have one created for the subject.";
    TokenAmbiguous "token_ambiguous" 401 "Credentials of several organisations are bound to the token's subject.",
        "Set an audience of your organisation's own at the issuer.";
    TooManyInvalidTokens "too_many_invalid_tokens" 429 "Too many invalid tokens came from this address.", "Wait as `Retry-After` says.";
    CertificateRequired "certificate_required" 403 "The credential needs its client certificate.", "Connect with the certificate.";
    NetworkNotAllowed "network_not_allowed" 403 "The credential cannot be used from this network.", "Call from an allowed network.";
    OperationNotAllowed "operation_not_allowed" 403 "The credential does not permit this operation.", "Have the key's operations changed.";
    KeyMayNotCallModels "key_may_not_call_models" 403 "The key does not permit model calls.",
        "Open a session and use its key, or a key whose policy permits model calls.";
    ModelNotFound "model_not_found" 404 "No model of this name is routed for your organisation.", "List the models with `GET /v1/models`.";
    ModelNotAllowed "model_not_allowed" 403 "The key does not permit this model.", "List the permitted models with `GET /v1/models`.";
    NoClearedEndpoint "no_cleared_endpoint" 403 "No endpoint of the model is cleared for the session's markings.",
        "Choose another model, or open a session with a lower ceiling.";
    NoUsableEndpoint "no_usable_endpoint" 503 "No endpoint of the model can be used now.", "Try again; report it to the operator.";
    OperationNotServed "operation_not_served" 400 "No endpoint of the model serves this operation.", "Use an operation that the model's endpoints serve.";
    RequestsLimitExceeded "requests_limit_exceeded" 429 "A limit of requests a minute is reached.", "Wait as `Retry-After` says.";
    TokensLimitExceeded "tokens_limit_exceeded" 429 "A limit of tokens a minute is reached.", "Wait as `Retry-After` says.";
    ConcurrencyLimitExceeded "concurrency_limit_exceeded" 429 "A limit of concurrent calls is reached.", "Try again when a call has ended.";
    BudgetExhausted "budget_exhausted" 402 "The rest of a hard budget does not cover the most that the call may cost.",
        "Request a shorter answer (`max_tokens`), or have the budget raised.";
    BudgetLeaseUnavailable "budget_lease_unavailable" 503 "A hard budget applies, and the gateway cannot get a part of it now.", "Try again.";
    UnboundedInput "unbounded_input" 400 "A hard budget applies, and nothing bounds what the call may cost.",
        "Send text only, or have the model's lengths declared.";
    ModelNotPriced "model_not_priced" 403 "A hard budget applies, and the model has no price in its currency.", "Have a price set.";
    UnknownRoute "unknown_route" 404 "There is no such route or method.", "Check the path.";
    UnknownRequest "unknown_request" 404 "The gateway keeps no call with this id for the key.", "Explain a call soon after its end, at the same gateway.";
    MethodNotAllowed "method_not_allowed" 405 "The route has another method.", "Use the method in the header `Allow`.";
    UpgradeRequired "upgrade_required" 426 "The route needs a WebSocket handshake.", "Connect with a WebSocket client, version 13.";
    RequestTooLarge "request_too_large" 413 "The body or message is too large.", "Send a smaller one.";
    Overloaded "overloaded" 503 "The gateway has no memory or connection left for the request.", "Try again soon.";
    BodyTimeout "body_timeout" 408 "The body did not arrive in time.", "Send it faster, or try again.";
    BodyIncomplete "body_incomplete" 400 "The body broke off.", "Send it again.";
    InvalidJson "invalid_json" 400 "The body or event is not a valid JSON object.", "Correct it.";
    JsonTooDeep "json_too_deep" 400 "The body is nested too deep.", "Flatten it.";
    DuplicateKey "duplicate_key" 400 "A key, parameter or credential was sent twice.", "Send it once.";
    EscapedKey "escaped_key" 400 "A key of the JSON is written with escapes.", "Write the key plainly.";
    InvalidType "invalid_type" 400 "A parameter has the wrong type or form.", "Correct the parameter in `param`.";
    MissingParameter "missing_parameter" 400 "A required parameter is missing.", "Send the parameter in `param`.";
    UnknownParameter "unknown_parameter" 400 "The query has a parameter that the route does not accept.", "Leave it out.";
    UnsupportedMediaType "unsupported_media_type" 415 "The content type is not accepted.", "Use the route's content type.";
    InvalidForm "invalid_form" 400 "The form cannot be read in exactly one way.", "Correct the form.";
    InvalidMessage "invalid_message" 400 "The gRPC message cannot be read in exactly one way.", "Correct the message.";
    CompressionNotServed "compression_not_served" 501 "Compressed gRPC messages are not accepted.", "Send messages without compression.";
    ModelFixed "model_fixed" 403 "The model of a session or stream cannot be changed.", "Open another one for another model.";
    UntranslatableParameter "untranslatable_parameter" 400 "A parameter cannot be translated for the model's endpoint.",
        "Leave out the parameter in `param`, or use another model.";
    ProviderStateNotServed "provider_state_not_served" 400 "The request refers to state at the provider, which callers would share.",
        "Send the whole conversation.";
    HostedToolNotServed "hosted_tool_not_served" 400 "The request uses a tool that the provider runs and bills.", "Use tools that you run.";
    MeteringUnavailable "metering_unavailable" 503 "Usage cannot be recorded now, so no call is made.", "Try again; report it to the operator.";
    QueueTimeout "queue_timeout" 503 "Every endpoint of the model was busy for as long as a call may wait.", "Wait as `Retry-After` says.";
    QueueFull "queue_full" 503 "Every endpoint of the model is busy, and too many calls wait already.", "Wait as `Retry-After` says.";
    UpstreamUnreachable "upstream_unreachable" 502 "No endpoint of the model could be reached.", "Try again; report it to the operator.";
    UpstreamError "upstream_error" 502 "The endpoint failed to answer.", "Try again.";
    UpstreamProtocol "upstream_protocol" 502 "The endpoint's answer cannot be passed on.", "Report it to the operator.";
    UpstreamRefusedGateway "upstream_refused_gateway" 502 "The endpoint refused the gateway's credential.", "Report it to the operator.";
    UpstreamCut "upstream_cut" 502 "The endpoint broke off its answer.", "Try again.";
    UpstreamUnavailable "upstream_unavailable" 503 "The endpoint is not available now.", "Try again.";
    UpstreamConnectTimeout "upstream_connect_timeout" 504 "No connection to the endpoint was made in time.", "Try again.";
    UpstreamHeadersTimeout "upstream_headers_timeout" 504 "The endpoint did not begin to answer in time.", "Try again.";
    UpstreamFirstTokenTimeout "upstream_first_token_timeout" 504 "The first token did not come in time.", "Try again.";
    UpstreamIdleTimeout "upstream_idle_timeout" 504 "The answer paused for too long.", "Try again.";
    UpstreamTotalTimeout "upstream_total_timeout" 504 "The answer took longer than allowed.", "Request a shorter answer.";
    UpstreamStatus "upstream_status" 502 "An attempt was refused by its endpoint and another was made. Only in logs and `explain`.", "Nothing.";
    GatewayStopping "gateway_stopping" 503 "The gateway is stopping.", "Open the session again.";
    CallerSilent "caller_silent" 408 "Nothing came from the caller for too long.", "Answer pings, and open the session again.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const BEGIN: &str = "<!-- gateway: generated -->";
    const END: &str = "<!-- gateway: end -->";

    #[test]
    fn codes_are_distinct_snake_case_with_an_error_status() {
        let texts: HashSet<_> = ProblemCode::ALL.iter().map(|code| code.text()).collect();
        assert_eq!(texts.len(), ProblemCode::ALL.len());
        for code in ProblemCode::ALL {
            let is_snake_case = code.text().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(is_snake_case && (400..600).contains(&code.status()), "{code:?}");
            assert_eq!(ProblemCode::TEXTS[*code as usize], code.text(), "the label that the metrics count it under");
            assert!(code.meaning().ends_with('.') && code.remedy().ends_with('.'), "{code:?}");
        }
    }

    /// As the control plane's part of the page: a list by status.
    fn section() -> String {
        let mut codes = ProblemCode::ALL.to_vec();
        codes.sort_by_key(|code| (code.status(), code.text()));
        let mut lines = vec![BEGIN.to_owned()];
        let mut status = 0;
        for code in codes {
            if code.status() != status {
                status = code.status();
                lines.extend([String::new(), format!("### Gateway: status {status}"), String::new()]);
            }
            lines.push(format!("- `{}`: {}", code.text(), code.meaning()));
            lines.push(format!("  *What to do:* {}", code.remedy()));
        }
        lines.extend([String::new(), END.to_owned()]);
        lines.join("\n")
    }

    /// `UPDATE_DOCS=1 cargo test -p tenon-problem` writes the section again.
    #[test]
    fn the_docs_page_has_every_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/reference/error-codes.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once(BEGIN).expect("the page has a section for the gateway");
        let (held, tail) = rest.split_once(END).expect("the section has an end");
        let (held, expected) = (format!("{BEGIN}{held}{END}"), section());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            return std::fs::write(path, format!("{head}{expected}{tail}")).unwrap();
        }
        let (held, expected): (Vec<_>, Vec<_>) = (held.lines().collect(), expected.lines().collect());
        let missing: Vec<_> = expected.iter().filter(|line| !held.contains(line)).map(|line| format!("+ {line}")).collect();
        let extra: Vec<_> = held.iter().filter(|line| !expected.contains(line)).map(|line| format!("- {line}")).collect();
        assert!(held == expected, "docs/reference/error-codes.md differs; run with UPDATE_DOCS=1:\n{}", [extra, missing].concat().join("\n"));
    }
}
