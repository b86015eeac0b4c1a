//! What restricts a key besides its models, in the form that the hot path checks.

use crate::network::Network;
use tenon_contract::{KeyRecord, Operation};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScopeRejected {
    #[error("one of its source networks is not a valid network")]
    Network,
    #[error("its certificate's hash does not have 32 bytes")]
    Certificate,
}

/// A key without restrictions has `is_open`: the hot path then checks nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// One bit for each `Operation` by its number.
    operations: u32,
    networks: Box<[Network]>,
    certificate_sha256: Option<[u8; 32]>,
    is_open: bool,
}

impl Scope {
    /// Operations that this version does not know are left out, so that less is allowed, never more.
    pub(crate) fn compile(record: &KeyRecord) -> Result<Self, ScopeRejected> {
        let bit = |name: &String| Operation::from_str_name(&format!("OPERATION_{}", name.to_ascii_uppercase())).map_or(0, |o| 1 << o as u32);
        let operations = match &record.allowed_operations[..] {
            [] => u32::MAX,
            names => names.iter().map(bit).fold(0, |all, bit| all | bit),
        };
        let networks: Option<Box<[Network]>> = record.source_networks.iter().map(|text| Network::parse(text)).collect();
        let networks = networks.ok_or(ScopeRejected::Network)?;
        let certificate_sha256 = match &record.certificate_sha256[..] {
            [] => None,
            hash => Some(<[u8; 32]>::try_from(hash).map_err(|_| ScopeRejected::Certificate)?),
        };
        let is_open = operations == u32::MAX && networks.is_empty() && certificate_sha256.is_none();
        Ok(Self { operations, networks, certificate_sha256, is_open })
    }

    /// Whether it allows everything from everywhere.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    #[must_use]
    pub fn allows(&self, operation: Operation) -> bool {
        self.operations & 1 << operation as u32 != 0
    }

    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// SHA-256 of the client certificate without which the key is refused.
    #[must_use]
    pub fn certificate_sha256(&self) -> Option<&[u8; 32]> {
        self.certificate_sha256.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(change: impl FnOnce(&mut KeyRecord)) -> Result<Scope, ScopeRejected> {
        let mut record = KeyRecord::default();
        change(&mut record);
        Scope::compile(&record)
    }

    #[test]
    fn nothing_said_is_open() {
        let open = of(|_| {}).unwrap();
        assert!(open.is_open() && open.allows(Operation::Realtime));
    }

    #[test]
    fn an_operation_of_another_version_opens_nothing() {
        let scope = of(|r| r.allowed_operations = vec!["count_tokens".into(), "telepathy".into()]).unwrap();
        assert!(!scope.is_open() && scope.allows(Operation::CountTokens) && !scope.allows(Operation::Chat));
        let none = of(|r| r.allowed_operations = vec!["telepathy".into(), "unspecified".into()]).unwrap();
        assert!(!none.is_open() && !none.allows(Operation::Chat));
    }

    #[test]
    fn what_cannot_be_read_is_no_scope() {
        assert_eq!(of(|r| r.source_networks = vec!["10.0.0.0/8".into(), "x".into()]), Err(ScopeRejected::Network));
        assert_eq!(of(|r| r.certificate_sha256 = vec![1; 31]), Err(ScopeRejected::Certificate));
    }
}
