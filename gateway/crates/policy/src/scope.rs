//! Checks from where, with which certificate and for which operations a key may be used.

use crate::refusal::Refusal;
use std::net::IpAddr;
use tenon_contract::Operation;
use tenon_snapshot::Key;

/// `operation` is `Unspecified` for what every key may do (list its models). `caller` is evaluated only if the key is
/// bound to networks.
///
/// # Errors
/// `certificate_required`, `network_not_allowed`, `operation_not_allowed`, in this order.
pub fn check_scope(key: &Key, operation: Operation, certificate_sha256: Option<&[u8; 32]>, caller: impl FnOnce() -> IpAddr) -> Result<(), Refusal> {
    let scope = &key.scope;
    if scope.is_open() {
        return Ok(());
    }
    if scope.certificate_sha256().is_some_and(|required| certificate_sha256 != Some(required)) {
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
