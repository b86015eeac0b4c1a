"""The inputs and the intermediate results of a derivation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from tenon.ontology.actions.language.parameters import Arguments
from tenon.ontology.schema.contracts import Property


@dataclass(frozen=True, slots=True)
class ActionInputs:
    """Everything that is fixed when an action is proposed and bound as values in each later derivation."""

    proposal_id: UUID
    instant: datetime
    actor: UUID
    arguments: Arguments
    in_session: bool
    ceiling: frozenset[str]


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object as stored; `values` has every property, in PostgreSQL's form."""

    id: UUID
    version: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """What one statement did to one object: its version, and the changed properties before and after."""

    id: UUID
    version_before: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PropertyFilter:
    """One condition of a selection, with its value in PostgreSQL's form (None for `absent` and `present`)."""

    property: Property
    operator: str
    value: Any


LoadedRows = dict[str, dict[UUID, ObjectRow]]  # object type -> id -> row


@dataclass(slots=True)
class EditPlan:
    """The edits to make, by object type and id, in PostgreSQL's form. An object stands in only one of the three.

    `loaded`: the rows as they were read before any edit.
    """

    loaded: LoadedRows
    updates: dict[str, dict[UUID, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    creates: dict[str, dict[UUID, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    deletes: dict[str, set[UUID]] = field(default_factory=lambda: defaultdict(set))

    @property
    def size(self) -> int:
        """How many objects it touches."""
        return sum(len(ids) for part in (self.updates, self.creates, self.deletes) for ids in part.values())
