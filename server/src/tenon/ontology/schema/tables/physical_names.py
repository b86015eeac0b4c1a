"""Physical names: each object type and property gets one number; a rename keeps it, and a dropped one is never used again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

from tenon.kit import canonical
from tenon.kit.database.roles import object_schema
from tenon.ontology.schema.contracts import Dangling, LinkType, ObjectType, Ontology, Property, PropertyType
from tenon.ontology.schema.documents.definition import Definition


@dataclass(slots=True)
class Numbers:
    """The tenant's numbers: `published` maps "flight" or "flight.origin" to its number; `last` is the highest ever given."""

    published: dict[str, int] = field(default_factory=dict)
    last: int = 0

    def of(self, path: str, former: str | None) -> int:
        """The number of a name that stays, of the name it had before, or a new one."""
        number = self.published.get(path)
        if number is None and former is not None:
            number = self.published.get(former)
        if number is None:
            self.last += 1
            number = self.last
        return number


def resolve(definition: Definition, numbers: Numbers, tenant: UUID, version: int) -> Ontology:
    """The definition as an Ontology with every table and column named; `numbers` grows by the new names."""
    types = {name: _named(object_type, definition, numbers) for name, object_type in definition.object_types.items()}
    ontology_ = Ontology(
        tenant,
        version,
        "",
        object_schema(tenant),
        MappingProxyType(types),
        definition.links,
        MappingProxyType(dict(definition.action_types)),
        definition.markings,
    )
    return replace(ontology_, digest=digest_of(ontology_))


def _named(object_type: ObjectType, definition: Definition, numbers: Numbers) -> ObjectType:
    # A type takes its former name only when that name is gone from the document; the same for its properties.
    former = _former(definition.renames.get(object_type.name), definition.object_types)
    number = numbers.of(object_type.name, former)
    stored_as = object_type.name if object_type.name in numbers.published else former
    properties = {}
    for name, item in object_type.properties.items():
        before = _former(definition.renames.get(f"{object_type.name}.{name}"), object_type.properties)
        path = f"{stored_as}.{name}" if stored_as else ""
        properties[name] = replace(item, column=f"p{numbers.of(path, f'{stored_as}.{before}' if before else None)}")
    return replace(object_type, table=f"o{number}", properties=MappingProxyType(properties))


def _former(name: str | None, present: Mapping[str, object]) -> str | None:
    return None if name is None or name in present else name


def numbers_of(ontology: Ontology | None, last: int) -> Numbers:
    """The numbers that a published ontology uses."""
    numbers = Numbers(last=last)
    for object_type in ontology.object_types.values() if ontology else ():
        numbers.published[object_type.name] = int(object_type.table[1:])
        for item in object_type.properties.values():
            numbers.published[f"{object_type.name}.{item.name}"] = int(item.column[1:])
    return numbers


def content_of(ontology: Ontology) -> dict[str, Any]:
    """The ontology as plain values, as the catalogue stores it; without version and digest."""
    return {
        "tenant": str(ontology.tenant),
        "schema": ontology.schema,
        "object_types": [
            {**asdict(replace(object_type, properties={})), "properties": [asdict(item) for item in object_type.properties.values()]}
            for object_type in ontology.object_types.values()
        ],
        "links": [asdict(link) for link in ontology.links],
        "action_types": ontology.action_types,
        "markings": ontology.markings,
    }


def digest_of(ontology: Ontology) -> str:
    """SHA-256 over the ontology's canonical content, hexadecimal."""
    return canonical.digest(content_of(ontology)).hex()


def from_content(content: Mapping[str, Any], version: int, digest: str) -> Ontology:
    """The ontology that `content_of` described."""
    types = {}
    for entry in content["object_types"]:
        properties = {item["name"]: _property(item) for item in entry["properties"]}
        indexes = tuple(tuple(index) for index in entry["indexes"])
        types[entry["name"]] = ObjectType(
            **{**entry, "primary_key": tuple(entry["primary_key"]), "properties": MappingProxyType(properties), "indexes": indexes}
        )
    links = tuple(_link(item) for item in content["links"])
    return Ontology(
        UUID(content["tenant"]),
        version,
        digest,
        content["schema"],
        MappingProxyType(types),
        links,
        MappingProxyType(content["action_types"]),
        frozenset(content["markings"]),
    )


def _property(item: Mapping[str, Any]) -> Property:
    return Property(**{**item, "type": PropertyType(item["type"]), "enum": tuple(item["enum"]), "markings": frozenset(item["markings"])})


def _link(item: Mapping[str, Any]) -> LinkType:
    via = tuple((ours, theirs) for ours, theirs in item["via"])
    return LinkType(**{**item, "via": via, "dangling": Dangling(item["dangling"]), "markings": frozenset(item["markings"])})
