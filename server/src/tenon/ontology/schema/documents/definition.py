"""A parsed ontology document: complete and checked, its tables and columns not yet named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tenon.ontology.schema.contracts import LinkType, ObjectType


@dataclass(frozen=True, slots=True)
class Definition:
    """What a document says. Physical names (`table`, `column`) are empty until `resolve` gives them."""

    object_types: Mapping[str, ObjectType]
    links: tuple[LinkType, ...]
    markings: frozenset[str] = frozenset()
    action_types: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    # "flight" -> "flights", "flight.origin" -> "from": the former name, to be found in the catalogue.
    renames: Mapping[str, str] = field(default_factory=dict)
