"""The types of a request's authority."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType
from uuid import UUID

from tenon.kit.database import Identity

TenantId = NewType("TenantId", UUID)
PrincipalId = NewType("PrincipalId", UUID)
ProjectId = NewType("ProjectId", UUID)
SessionId = NewType("SessionId", UUID)

SCOPE_KEY = "tenon.context"


class PrincipalKind(StrEnum):
    USER = "user"
    SERVICE = "service"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Actor:
    """One link of an actor chain."""

    principal: PrincipalId
    kind: PrincipalKind
    name: str


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks. `chain` starts with the one who acts (an agent) and ends with the one it acts for (its owner)."""

    tenant: TenantId
    chain: tuple[Actor, ...]
    roles: frozenset[str]
    # Markings this request may see. For an agent's session it is the session's fixed ceiling; a property is visible when all its
    # markings are in here, and what is not visible does not exist.
    clearance: frozenset[str]
    request_id: str
    project: ProjectId | None = None
    session: SessionId | None = None
    key_id: str | None = None
    trace_id: str = ""
    trace_sampled: bool = False
    # An agent's base key: may open sessions and nothing else.
    opens_sessions_only: bool = False
    # Where the caller proved itself by a token: the token's own end.
    valid_until: datetime | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def actor(self) -> Actor:
        """Who acts."""
        return self.chain[0]

    @property
    def principal(self) -> PrincipalId:
        """The acting principal's id."""
        return self.chain[0].principal

    @property
    def identity(self) -> Identity:
        """What the database needs to know."""
        return Identity(self.tenant, self.principal)

    def sees(self, markings: frozenset[str]) -> bool:
        """Whether something with these markings exists for this request."""
        return markings <= self.clearance


def context_of(scope: Mapping[str, Any]) -> Context:
    """The context that authentication put into an ASGI scope; its absence is a defect, not a refusal."""
    context = scope[SCOPE_KEY]
    if not isinstance(context, Context):
        raise TypeError("the scope holds no context: this route was reached without authentication")
    return context
