"""The ontology's vocabulary as every other room sees it: frozen, complete, with the physical names resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from uuid import UUID

from tenon.kit.documents import Problem as Problem


class PropertyType(StrEnum):
    """A property's base type and, in brackets, its column's type."""

    TEXT = "text"  # text collate "C"
    INTEGER = "integer"  # int8
    DECIMAL = "decimal"  # int8, scaled by 10^scale (so comparisons stay leakproof)
    FLOAT = "float"  # float8
    BOOLEAN = "boolean"  # boolean
    DATE = "date"  # date
    TIMESTAMP = "timestamp"  # timestamptz
    UUID = "uuid"  # uuid
    ENUM = "enum"  # text collate "C" with CHECK


class Dangling(StrEnum):
    """What ingestion does with a link whose target does not exist."""

    KEEP = "keep"  # keep the value, unresolved, and count it
    STUB = "stub"  # create the target with its key only, and count it
    REJECT = "reject"  # reject the row, with the reason


@dataclass(frozen=True, slots=True)
class Property:
    """A typed property of an object type. `column` is physical and stable; renaming the property does not touch it."""

    name: str
    column: str
    type: PropertyType
    required: bool = False
    scale: int = 0  # DECIMAL only
    enum: tuple[str, ...] = ()  # ENUM only
    pattern: str | None = None  # TEXT only: RE2/POSIX-common subset, anchored
    minimum: float | None = None
    maximum: float | None = None
    length_max: int = 4_096  # TEXT only, characters
    markings: frozenset[str] = frozenset()
    filterable: bool = True
    indexed: bool = False
    editable: bool = True  # actions may set it
    value_type: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class LinkType:
    """A many-to-one link by key: the source's properties hold the target's primary key (or a unique part of it).

    `name` is the field on the source (`plane`), `inverse` the list field on the target (`flights`). The link exists where the target
    does; a value without a target is a dangling link.
    """

    name: str
    source: str
    target: str
    via: tuple[tuple[str, str], ...]  # (source property, target property), in the target's key order
    inverse: str | None = None
    dangling: Dangling = Dangling.REJECT
    markings: frozenset[str] = frozenset()  # of the via properties: who may not see them may not follow
    description: str = ""


@dataclass(frozen=True)
class ObjectType:
    """An object type and its table: columns `id uuid primary key`, `version bigint`, and one column a property."""

    name: str  # snake_case, singular
    plural: str
    table: str  # physical, within the ontology's schema
    primary_key: tuple[str, ...]  # property names; unique and required
    properties: Mapping[str, Property]
    title: str | None = None  # the property people recognise it by
    description: str = ""
    indexes: tuple[tuple[str, ...], ...] = ()  # further indexes over several properties

    @cached_property
    def key_properties(self) -> tuple[Property, ...]:
        return tuple(self.properties[name] for name in self.primary_key)


@dataclass(frozen=True)
class Ontology:
    """One published version of a tenant's ontology. `digest` (64 hex characters) names its content."""

    tenant: UUID
    version: int  # 1, 2, …; grows with each apply that changed something
    digest: str
    schema: str  # physical schema name
    object_types: Mapping[str, ObjectType]
    links: tuple[LinkType, ...]
    # Action types as checked documents: parsed and type-checked by `tenon.ontology.actions`, which owns their meaning.
    action_types: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))
    markings: frozenset[str] = frozenset()  # every marking the document declares

    @cached_property
    def links_from(self) -> Mapping[str, Mapping[str, LinkType]]:
        """Source type -> link name -> link."""
        return {t: {link.name: link for link in self.links if link.source == t} for t in self.object_types}

    @cached_property
    def links_to(self) -> Mapping[str, Mapping[str, LinkType]]:
        """Target type -> inverse name -> link; links without an inverse are left out."""
        return {t: {link.inverse: link for link in self.links if link.target == t and link.inverse} for t in self.object_types}
