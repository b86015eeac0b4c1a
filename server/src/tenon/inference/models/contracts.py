"""Endpoints, models and routes as other slices see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

Protocol = Literal["openai", "anthropic", "kserve_grpc"]
Engine = Literal["", "vllm", "sglang", "dynamo", "tensorrt_llm", "llama_cpp"]
AbortBilling = Literal["", "stops", "continues", "continuous"]
Strategy = Literal["weighted", "least_outstanding", "latency", "cost", "session", "prefix", "engine"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Milliseconds; 0 = the gateway's default."""

    connect_ms: int = 0
    headers_ms: int = 0
    first_token_ms: int = 0
    idle_ms: int = 0
    total_ms: int = 0


@dataclass(frozen=True, slots=True)
class Serving:
    """How an endpoint is filled and watched (contracts/gateway.proto, Endpoint). Empty and zero = not set."""

    concurrency_max: int = 0
    engine: Engine = ""
    metrics_url: str = ""
    health_path: str = ""
    abort_billing: AbortBilling = ""
    private_network_allowed: bool = False
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Balancing:
    """How one of a model's routes is picked (contracts/gateway.proto, Model). Zero and empty = the gateway's default, or unknown."""

    strategy: Strategy = "weighted"
    queue_timeout_ms: int = 0
    context_tokens: int = 0
    output_tokens_max: int = 0
    affinity_header: str = ""
    retries_max: int = 0


@dataclass(frozen=True, slots=True)
class EndpointDraft:
    """What an operator sets on an endpoint. `credential`: None keeps the one there is, "" removes it. It is sealed before it is stored."""

    name: str
    base_url: str
    protocol: Protocol = "openai"
    credential: str | None = field(default=None, repr=False)
    cleared_markings: frozenset[str] = frozenset()
    timeouts: Timeouts = Timeouts()
    serving: Serving = Serving()


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
    serving: Serving = Serving()


@dataclass(frozen=True, slots=True)
class Route:
    """A rule that picks an endpoint. `upstream_model` "" passes the caller's name on."""

    endpoint: UUID
    upstream_model: str = ""
    weight: int = 1
    tier: int = 0
    input_cost_nano_per_million: int = 0
    output_cost_nano_per_million: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A name that callers use."""

    name: str
    routes: tuple[Route, ...]
    balancing: Balancing = Balancing()


@dataclass(frozen=True, slots=True)
class SealedEndpoint:
    """An endpoint as gateways get it: only they hold the key that opens the credential."""

    id: UUID
    base_url: str
    protocol: Protocol
    sealed_credential: bytes
    cleared_markings: tuple[str, ...]
    timeouts: Timeouts
    serving: Serving = Serving()


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All endpoints and models of one tenant at one revision."""

    tenant: UUID
    revision: int
    endpoints: tuple[SealedEndpoint, ...]
    models: tuple[Model, ...]
    changed_at: datetime
