"""Rows of a proposal's history, and what the worker needs to know about one that is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from tenon.core.context import Actor
from tenon.ontology.actions.contracts import ActionType, ApprovalRule, Diff, State


class Verdict(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """One principal's decision on a proposal. `hash`: of the diff that the principal decided on."""

    principal: UUID
    verdict: Verdict
    hash: bytes
    comment: str
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """A proposal entered a state."""

    state: State
    principal: UUID
    at: datetime


@dataclass(frozen=True, slots=True)
class DueProposal:
    """An approved proposal to execute, or an open one past its expiry; without its diff and parameters."""

    tenant: UUID
    id: UUID
    expires_at: datetime
    proposer: tuple[Actor, ...]


@dataclass(frozen=True, slots=True)
class Simulation:
    """What an action would do now, and the approval it would need."""

    action: ActionType
    diff: Diff
    approval: ApprovalRule | None
