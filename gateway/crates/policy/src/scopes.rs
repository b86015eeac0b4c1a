//! From where, with what certificate and for what a key may be used.

use crate::refusal::Refusal;
use std::net::IpAddr;
use tenon_contract::Operation;
use tenon_snapshot::Key;

/// `operation` is `Unspecified` for what every key may do (list its models). The caller's address is asked for only where a network is set.
///
/// # Errors
/// `certificate_required`, `network_not_allowed`, `operation_not_allowed`, in this order.
pub fn check_scope(key: &Key, operation: Operation, certificate_sha256: Option<&[u8; 32]>, caller: impl FnOnce() -> IpAddr) -> Result<(), Refusal> {
    let scope = &key.scope;
    if scope.is_open() {
        return Ok(());
    }
    if scope.certificate_sha256().is_some_and(|wanted| certificate_sha256 != Some(wanted)) {
        return Err(Refusal::CertificateRequired);
    }
    if !scope.networks().is_empty() {
        let caller = caller();
        if !scope.networks().iter().any(|network| network.contains(caller)) {
            return Err(Refusal::NetworkNotAllowed);
        }
    }
    if operation != Operation::Unspecified && !scope.allows(operation) {
        return Err(Refusal::OperationNotAllowed);
    }
    Ok(())
}
