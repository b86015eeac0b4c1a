"""Endpoints, models and routes as other rooms see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

Protocol = Literal["openai"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Milliseconds; 0 = the gateway's default."""

    connect_ms: int = 0
    headers_ms: int = 0
    first_token_ms: int = 0
    idle_ms: int = 0
    total_ms: int = 0


@dataclass(frozen=True, slots=True)
class EndpointDraft:
    """What an operator says about an endpoint. `credential` None keeps what is there, "" removes it; it is sealed before it is stored."""

    name: str
    base_url: str
    protocol: Protocol = "openai"
    credential: str | None = field(default=None, repr=False)
    cleared_markings: frozenset[str] = frozenset()
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that serves models. `cleared_markings`: what a caller's ceiling may hold to be sent here."""

    id: UUID
    name: str
    base_url: str
    protocol: Protocol
    has_credential: bool
    cleared_markings: frozenset[str]
    timeouts: Timeouts
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Route:
    """A rule that picks an endpoint. `upstream_model` "" passes the caller's name on."""

    endpoint: UUID
    upstream_model: str = ""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Model:
    """A name that callers use."""

    name: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class SealedEndpoint:
    """An endpoint as gateways get it: only they hold the key that opens the credential."""

    id: UUID
    base_url: str
    protocol: Protocol
    sealed_credential: bytes
    cleared_markings: tuple[str, ...]
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All endpoints and models of one tenant at one revision."""

    tenant: UUID
    revision: int
    endpoints: tuple[SealedEndpoint, ...]
    models: tuple[Model, ...]
    changed_at: datetime
