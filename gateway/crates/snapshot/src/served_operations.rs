//! Which operations an endpoint serves, and which of them in the caller's own dialect.

use tenon_contract::{self as wire, Operation, Protocol};

/// One bit for each `Operation` by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServedOperations {
    /// ServedOperations as they are or by translation.
    pub operations: u32,
    /// ServedOperations as they are: bytes pass unchanged.
    pub native: u32,
}

const fn bits(operations: &[Operation]) -> u32 {
    let (mut bits, mut at) = (0, 0);
    while at < operations.len() {
        bits |= 1 << operations[at] as u32;
        at += 1;
    }
    bits
}

const ANTHROPIC: u32 = bits(&[Operation::Message, Operation::CountTokens]);
const KSERVE: u32 = bits(&[Operation::Infer]);
const OPENAI: u32 = !(ANTHROPIC | KSERVE);

impl ServedOperations {
    /// An endpoint serves the operations on its list as they are, whatever its protocol: engines such as vLLM, SGLang
    /// and llama.cpp speak OpenAI's protocol and also `messages`. Without a list it serves those of its protocol, and
    /// those that can be translated to them.
    pub fn of(endpoint: &wire::Endpoint) -> Self {
        let (own, translated) = match endpoint.protocol() {
            Protocol::Unspecified | Protocol::Openai => (OPENAI, bits(&[Operation::Message])),
            Protocol::Anthropic => (ANTHROPIC, bits(&[Operation::Chat])),
            Protocol::KserveGrpc => (KSERVE, 0),
        };
        if endpoint.operations.is_empty() {
            return Self { operations: own | translated, native: own };
        }
        // Names that this version does not know are left out, so the endpoint serves less, never more.
        let named = |name: &String| Operation::from_str_name(&format!("OPERATION_{}", name.to_ascii_uppercase()));
        let listed = endpoint.operations.iter().filter_map(named).fold(0, |all, operation| all | 1 << operation as u32);
        Self { operations: listed, native: listed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The control plane predicts the effect of a change from the same table.
    #[test]
    fn the_contract_says_what_is_served() {
        let contract: serde_json::Value = serde_json::from_str(include_str!("../../../../contracts/served.json")).unwrap();
        for (name, protocol) in [("openai", Protocol::Openai), ("anthropic", Protocol::Anthropic), ("kserve_grpc", Protocol::KserveGrpc)] {
            let served = ServedOperations::of(&wire::Endpoint { protocol: protocol as i32, ..wire::Endpoint::default() }).operations;
            let known = (1..32).filter(|number| served & 1 << number != 0).filter_map(|number| Operation::try_from(number).ok());
            let mut names: Vec<_> = known.map(|operation| operation.as_str_name().trim_start_matches("OPERATION_").to_ascii_lowercase()).collect();
            names.sort();
            assert_eq!(serde_json::json!(names), contract[name], "{name}");
        }
    }

    #[test]
    fn what_is_listed_is_native_and_the_rest_follows_from_the_protocol() {
        let of = |protocol: Protocol, operations: &[&str]| {
            let operations = operations.iter().map(ToString::to_string).collect();
            ServedOperations::of(&wire::Endpoint { protocol: protocol as i32, operations, ..wire::Endpoint::default() })
        };
        let has = |bits: u32, operation: Operation| bits & 1 << operation as u32 != 0;
        let openai = of(Protocol::Openai, &[]);
        assert!(has(openai.operations, Operation::Message) && !has(openai.native, Operation::Message));
        assert!(has(openai.native, Operation::Chat) && !has(openai.operations, Operation::CountTokens) && !has(openai.operations, Operation::Infer));
        let anthropic = of(Protocol::Anthropic, &[]);
        assert!(has(anthropic.operations, Operation::Chat) && !has(anthropic.native, Operation::Chat));
        assert!(has(anthropic.native, Operation::CountTokens) && !has(anthropic.operations, Operation::Embedding));
        let llama = of(Protocol::Openai, &["chat", "message", "count_tokens", "telepathy"]);
        assert_eq!((llama.operations, llama.native), (bits(&[Operation::Chat, Operation::Message, Operation::CountTokens]), llama.operations));
    }
}
