//! What is checked at one address. Endpoints that have an address in common share its check.

use tenon_contract::Engine;
use tenon_snapshot::{Origin, ProbeAddress};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    Health,
    Engine(Engine),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    pub kind: CheckKind,
    pub origin: Origin,
    pub host: Box<str>,
    pub path: Box<str>,
}

impl Check {
    /// `None` when the host cannot be written as a header.
    pub fn new(kind: CheckKind, address: &ProbeAddress) -> Option<Self> {
        let host = address.host_header.to_str().ok()?.into();
        Some(Self { kind, origin: address.origin.clone(), host, path: address.path.as_str().into() })
    }

    pub fn is_of_health(&self) -> bool {
        self.kind == CheckKind::Health
    }
}
