"""Names of the database's roles and schemas, and the checked-in list of system logins (DESIGN §4)."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

# Each login, and why it exists. Nobody here is superuser or BYPASSRLS; what each may touch stands in the migrations and in
# contracts/access.json, which a test compares with the catalogue.
SYSTEM_LOGINS: dict[str, str] = {
    "api": "opens every request; becomes a tenant's role, nothing by itself",
    "ingest": "bulk loads: a temporary stage as itself, everything else as the tenant's role",
    "auth": "looks up API keys and principals",
    "sync": "sends the gateways keys and routes",
    "lease": "grants leases on budgets and shares of limits to the gateways",
    "usage": "stores usage records and aggregates, counts what they cost",
    "sequencer": "orders audit entries into Merkle trees and signs",
    "relay": "reads the outbox and delivers events",
    "migrate": "owns all tables; runs migrations and DDL",
    "provision": "creates tenants' roles",
}
# Logins that may become a tenant's role.
TENANT_POOLS = ("api", "ingest")


@dataclass(frozen=True, slots=True)
class RoleNames:
    """Role names of one installation; roles are cluster-wide, so each carries the installation's id (8 hex characters)."""

    installation: str

    def login(self, name: str) -> str:
        """The system login `name`, which must be one of SYSTEM_LOGINS."""
        if name not in SYSTEM_LOGINS:
            raise KeyError(name)
        return f"tn_{self.installation}_{name}"

    @property
    def tenants(self) -> str:
        """The group of all tenant roles: fixed tables' policies are written for it."""
        return f"tn_{self.installation}_tenants"

    def tenant(self, tenant: UUID) -> str:
        """The NOLOGIN role of one tenant; `tenon.current_tenant()` reads the id back out of its name."""
        return f"tn_{self.installation}_t_{tenant.hex}"


def object_schema(tenant: UUID) -> str:
    """The schema that holds one tenant's object tables."""
    return f"d_{tenant.hex}"
