"""Principals and API keys as other rooms see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from tenon.core.context import PrincipalId, PrincipalKind, ProjectId, SessionId, TenantId


class KeyKind(StrEnum):
    """What a key is for; part of its text."""

    USER = "usr"
    SERVICE = "svc"
    AGENT = "agt"  # opens sessions, nothing else
    SESSION = "ses"  # one agent run


ROLES = frozenset({"viewer", "editor", "approver", "operator", "agent"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who can act. `owner` is whom an agent acts for; `clearance` the markings it may see."""

    id: PrincipalId
    kind: PrincipalKind
    name: str
    roles: frozenset[str]
    clearance: frozenset[str]
    owner: PrincipalId | None = None
    disabled: bool = False


class Priority(StrEnum):
    """Waiting order where model endpoints are saturated."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class KeyScope:
    """From where, with what and for what a credential may be used. It never changes: what was narrowed or widened is another key.

    `operations` are names of contracts/gateway.proto (`chat`, `embedding`); () = every one. `networks` are CIDRs; () = from anywhere.
    `certificate_sha256`: usable only over TLS with this client certificate (RFC 8705), so never at endpoints that take none.
    """

    operations: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    certificate_sha256: bytes | None = None
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Federation:
    """The tokens that stand for a credential: those of this issuer with this subject."""

    issuer: UUID
    subject: str


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A key to be issued. `session` and `ceiling` belong to session keys only; with `federation` it has no secret."""

    principal: PrincipalId
    project: ProjectId
    kind: KeyKind
    name: str
    expires_at: datetime | None = None
    strict: bool = False
    allowed_models: tuple[str, ...] = ()
    session: SessionId | None = None
    ceiling: frozenset[str] = frozenset()
    scope: KeyScope = KeyScope()
    federation: Federation | None = None


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What bounds a key besides its principal's rights. `allowed_models` () = every model routed for the tenant."""

    expires_at: datetime | None
    strict: bool
    allowed_models: tuple[str, ...]
    scope: KeyScope = KeyScope()


@dataclass(frozen=True, slots=True)
class IssuerRequest:
    """An identity provider to be trusted. An empty `jwks_uri` is asked of the issuer (OpenID Connect Discovery)."""

    name: str
    issuer: str
    audiences: tuple[str, ...]
    algorithm: str
    jwks_uri: str = ""
    leeway_ms: int = 30_000
    lifetime_max_ms: int = 0


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """The only time a key's text exists on our side; it is never stored, logged or shown again."""

    key_id: str
    text: str
    expires_at: datetime | None

    def __repr__(self) -> str:
        return f"IssuedKey(key_id={self.key_id!r})"


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer as the gateways receive it: `jwks` is a JWK set of public keys, JSON text. `changed_at`: when the revision was made."""

    tenant: UUID
    id: UUID
    revision: int
    changed_at: datetime
    disabled: bool
    issuer: str
    audiences: tuple[str, ...]
    algorithm: str
    jwks: str
    leeway_ms: int
    lifetime_max_ms: int


@dataclass(frozen=True, slots=True)
class CallerGroup:
    """Keys that may call models under the same rules: how many, and the newest of them. () = every model, every operation."""

    allowed_models: tuple[str, ...]
    ceiling: frozenset[str]
    operations: tuple[str, ...]
    keys: int
    newest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """A key as gateways need it. `revoked` also when its principal or the principal's owner is disabled. `changed_at`: of the revision.

    `may_call_models` is decided by policy when the key is read. `ceiling` is what a session's calls may hold.
    """

    tenant: TenantId
    key_id: str
    principal: PrincipalId
    project: ProjectId
    kind: KeyKind
    secret_sha256: bytes
    revision: int
    changed_at: datetime
    expires_at: datetime | None
    revoked: bool
    strict: bool
    may_call_models: bool
    allowed_models: tuple[str, ...]
    scope: KeyScope
    ceiling: tuple[str, ...] = ()
    session: SessionId | None = None
    federation: Federation | None = None
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """To whom a key's use belongs."""

    tenant: UUID
    project: UUID
    principal: UUID
    session: UUID | None
