"""Actions and resources that the policy decides on, and the proof of a permission."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Action(StrEnum):
    """Every action the policy decides on; the names are Cedar's `Tenon::Action::"…"`."""

    READ = "read"  # objects of a type
    READ_ONTOLOGY = "read_ontology"
    SIMULATE = "simulate"
    PROPOSE = "propose"
    APPROVE = "approve"
    ROLL_BACK = "roll_back"
    READ_PROPOSAL = "read_proposal"
    INGEST = "ingest"
    MANAGE_ONTOLOGY = "manage_ontology"
    READ_AUDIT = "read_audit"
    READ_EVENTS = "read_events"
    READ_USAGE = "read_usage"
    MANAGE_KEYS = "manage_keys"
    MANAGE_ISSUERS = "manage_issuers"
    MANAGE_PRINCIPALS = "manage_principals"
    MANAGE_MODELS = "manage_models"
    MANAGE_LIMITS = "manage_limits"
    MANAGE_BUDGETS = "manage_budgets"  # leases too
    MANAGE_PRICES = "manage_prices"
    MANAGE_USAGE = "manage_usage"  # what to do with quarantined records
    CALL_MODEL = "call_model"
    OPEN_SESSION = "open_session"
    OPEN_LOWER_SESSION = "open_lower_session"


@dataclass(frozen=True, slots=True)
class Resource:
    """What is acted on. `kind` is a Cedar entity type (`ObjectType`, `ActionType`, `Proposal`, `Tenant`, …), `name` its id."""

    kind: str
    name: str
    # String, boolean, integer or set-of-string attributes for `when` clauses, e.g. {"proposer_chain": {"…"}, "action_type": "delay_flight"}.
    attributes: dict[str, str | bool | int | frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Permitted:
    """The proof of a check: only `authorize` returns one."""

    action: Action
    resource: Resource
    policy_ids: tuple[str, ...]
    bundle_version: str
