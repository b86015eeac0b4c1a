"""Action types, proposals and diffs as other packages see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from tenon.core.context import Actor

OBJECTS_SHOWN_MAX = 10  # objects named in one refusal


class State(StrEnum):
    """The state of a proposal. Migration 0004 enforces the allowed transitions."""

    PROPOSED = "proposed"
    SIMULATED = "simulated"
    PENDING_APPROVAL = "pending_approval"
    APPROVED = "approved"
    EXECUTING = "executing"
    EXECUTED = "executed"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    EXPIRED = "expired"
    FAILED = "failed"
    STALE = "stale"


class ParameterType(StrEnum):
    """The type of a parameter's value."""

    TEXT = "text"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DATE = "date"
    ENUM = "enum"
    UUID = "uuid"
    OBJECT = "object"  # by id, or by key


@dataclass(frozen=True, slots=True)
class Parameter:
    """A typed parameter and its limits."""

    name: str
    type: ParameterType
    object_type: str = ""  # OBJECT only
    required: bool = True
    enum: tuple[str, ...] = ()
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    length_max: int = 1_000  # TEXT only, characters
    description: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter of a selection: a property, an operator, and a value in CEL."""

    property: str
    operator: str  # eq ne lt le gt ge, absent, present
    value: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """A named set of objects: all of a type that meet every condition. `count` gives only how many there are."""

    name: str
    object_type: str
    where: tuple[Condition, ...]
    limit: int  # more than this many is a refusal, never a silent cut
    count: bool = False


@dataclass(frozen=True, slots=True)
class Precondition:
    """A condition that must hold when the action is proposed, and again when it is executed.

    With `each` it must hold for every object of that selection; the expression reads the object under the name `bind`.
    """

    code: str
    check: str  # CEL, boolean
    message: str
    repair: str | None = None
    each: str | None = None
    bind: str = ""


class EditKind(StrEnum):
    UPDATE = "update"
    CREATE = "create"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Edit:
    """One rule of change.

    `target` is an object parameter or a selection. For CREATE it is an object type, created once, or once for `each` object of a selection.
    """

    kind: EditKind
    target: str
    each: str | None = None
    bind: str = ""
    values: Mapping[str, str] = field(default_factory=dict)  # property -> CEL


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Who must approve before it runs. `owner_may_approve`: whether an agent's owner may approve what the agent proposed."""

    roles: frozenset[str]
    count: int = 1
    owner_may_approve: bool = False
    expires_after: timedelta = timedelta(hours=24)

    def as_dict(self) -> dict[str, Any]:
        """The rule as JSON: how it is stored and shown."""
        return {
            "roles": sorted(self.roles),
            "count": self.count,
            "owner_may_approve": self.owner_may_approve,
            "expires_after_seconds": int(self.expires_after.total_seconds()),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ApprovalRule:
        """The rule that `as_dict` wrote."""
        return cls(
            roles=frozenset(stored["roles"]),
            count=stored["count"],
            owner_may_approve=stored["owner_may_approve"],
            expires_after=timedelta(seconds=stored["expires_after_seconds"]),
        )


@dataclass(frozen=True)
class ActionType:
    """A named, typed, governed change."""

    name: str
    description: str
    roles: frozenset[str]  # who may propose, within what the policy allows; empty: everybody the policy allows
    parameters: Mapping[str, Parameter]
    selections: Mapping[str, Selection]
    preconditions: tuple[Precondition, ...]
    edits: tuple[Edit, ...]
    approval: ApprovalRule | None  # None: runs at once
    objects_max: int
    digest: str  # SHA-256 of the document, hexadecimal


class Operation(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One object's change. Values are in their plain form (kit.canonical); only properties that change are listed.

    `before` is empty for CREATE and `after` for DELETE. `declassifies`: property -> markings of the session's ceiling that it lacks.
    """

    type: str
    id: UUID
    operation: Operation
    key: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    declassifies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    version_before: int = 0  # not part of the hash: versions only grow


@dataclass(frozen=True, slots=True)
class Diff:
    """The exact edits, sorted by type and id."""

    changes: tuple[ObjectChange, ...]

    @property
    def declassifies(self) -> frozenset[str]:
        """Every marking that some value would lose."""
        return frozenset(marking for change in self.changes for lost in change.declassifies.values() for marking in lost)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a proposal ended: the refusal's public shape."""

    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The reason as JSON: how it is stored."""
        return {"code": self.code, "message": self.message, "details": dict(self.details)}


@dataclass(frozen=True)
class Proposal:
    """One request to run an action, with what it would do."""

    id: UUID
    state: State
    action_type: str
    action_digest: str
    parameters: Mapping[str, Any]  # plain
    ontology_version: int
    ontology_digest: str
    policy_bundle: str
    proposer: tuple[Actor, ...]  # the actor chain
    session: UUID | None
    ceiling: frozenset[str]  # a session's ceiling; empty outside sessions
    clearance: frozenset[str]  # of the proposer, when proposed
    instant: datetime  # what `now` is in its expressions
    approval: ApprovalRule | None
    diff: Diff
    hash: bytes  # what an approval is bound to
    created_at: datetime
    expires_at: datetime
    rolls_back: UUID | None = None
    rolled_back_by: UUID | None = None
    reason: Reason | None = None
    executed_at: datetime | None = None
    audit_entry: UUID | None = None  # of the execution: what a receipt proves


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """The action that a caller wants to run, and its parameters."""

    action_type: str
    parameters: Mapping[str, Any]
