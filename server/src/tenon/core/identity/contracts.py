"""Principals and API keys as other rooms see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tenon.core.context import PrincipalId, PrincipalKind, ProjectId, SessionId


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


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A key to be issued. `session` and `ceiling` belong to session keys only."""

    principal: PrincipalId
    project: ProjectId
    kind: KeyKind
    name: str
    expires_at: datetime | None = None
    strict: bool = False
    allowed_models: tuple[str, ...] = ()
    session: SessionId | None = None
    ceiling: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What bounds a key besides its principal's rights. `allowed_models` () = every model routed for the tenant."""

    expires_at: datetime | None
    strict: bool
    allowed_models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """The only time a key's text exists on our side; it is never stored, logged or shown again."""

    key_id: str
    text: str
    expires_at: datetime | None

    def __repr__(self) -> str:
        return f"IssuedKey(key_id={self.key_id!r})"
