"""Checks that span object types: links fit their target's key, members have one name, keys and indexes name real properties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tenon.kit.documents import Problems, check_distinct
from tenon.ontology.schema.contracts import Dangling, LinkType, ObjectType, Property, PropertyType
from tenon.ontology.schema.documents.limits import INDEX_TEXT_LENGTH_MAX

# A float is never equal to itself after a round trip through somebody else, and a boolean identifies nothing.
_KEY_TYPES = frozenset(PropertyType) - {PropertyType.FLOAT, PropertyType.BOOLEAN}


def check_links(problems: Problems, types: Mapping[str, ObjectType], links: tuple[LinkType, ...]) -> tuple[LinkType, ...]:
    """The links in their target's key order and with their properties' markings; problems are noted."""
    return tuple(_checked(problems, types, link) for link in links)


def _checked(problems: Problems, types: Mapping[str, ObjectType], link: LinkType) -> LinkType:
    path = f"links.{link.source}.{link.name}"
    source, target = types[link.source], types[link.target]
    by_target = {theirs: ours for ours, theirs in link.via}
    if len(by_target) != len(link.via) or set(by_target) != set(target.primary_key):
        key = ", ".join(target.primary_key)
        problems.add("via_not_key", f"{path}.via", f"The pairs must name the whole primary key of {target.name}: {key}.")
        return link
    via = tuple((by_target[key], key) for key in target.primary_key)
    markings: frozenset[str] = frozenset()
    for ours, theirs in via:
        left, right = source.properties.get(ours), target.properties.get(theirs)
        if left is None:
            problems.add("unknown_property", f"{path}.via.{ours}", f"{source.name} has no property `{ours}`.")
            continue
        if right is None:  # the target's key names a property that is not there: reported at the key
            continue
        if _family(left) != _family(right):
            sentence = f"{source.name}.{ours} is {left.type.value}, {target.name}.{theirs} is {right.type.value}."
            problems.add("via_types_differ", f"{path}.via.{ours}", sentence)
        markings |= left.markings | right.markings
    if link.dangling is Dangling.STUB:
        for name, item in target.properties.items():
            if item.required and name not in target.primary_key:
                sentence = f"A stub of {target.name} holds its key only, but `{name}` is required."
                problems.add("stub_incomplete", f"{path}.dangling", sentence)
    return replace(link, via=via, markings=markings)


def _family(item: Property) -> tuple[str, int]:
    type_ = PropertyType.TEXT if item.type is PropertyType.ENUM else item.type
    return type_.value, item.scale


def check_members(problems: Problems, types: Mapping[str, ObjectType], links: tuple[LinkType, ...]) -> None:
    """Keys, titles and indexes name real properties, and no member of a type has another's name."""
    for object_type in types.values():
        _check_references(problems, object_type)
        _check_indexes(problems, object_type, links)
        outgoing = [link.name for link in links if link.source == object_type.name]
        incoming = [link.inverse for link in links if link.target == object_type.name and link.inverse]
        check_distinct(problems, f"object_types.{object_type.name}", [*object_type.properties, *outgoing, *incoming])


def _check_references(problems: Problems, object_type: ObjectType) -> None:
    path = f"object_types.{object_type.name}"
    for name in object_type.primary_key:
        item = object_type.properties.get(name)
        if item is None:
            problems.add("unknown_property", f"{path}.primary_key", f"There is no property `{name}`.")
        elif item.type not in _KEY_TYPES:
            problems.add("key_type", f"{path}.primary_key", f"`{name}` is {item.type.value}, which cannot identify an object.")
    if object_type.title and object_type.title not in object_type.properties:
        problems.add("unknown_property", f"{path}.title", f"There is no property `{object_type.title}`.")
    for position, columns in enumerate(object_type.indexes):
        for name in columns:
            if name not in object_type.properties:
                problems.add("unknown_property", f"{path}.indexes.{position}", f"There is no property `{name}`.")
        if len(set(columns)) != len(columns):
            problems.add("repeated", f"{path}.indexes.{position}", "A property stands in this index twice.")


def _check_indexes(problems: Problems, object_type: ObjectType, links: tuple[LinkType, ...]) -> None:
    """The texts of one index fit into an index row at their longest."""
    path = f"object_types.{object_type.name}"
    indexes = [(f"{path}.primary_key", object_type.primary_key)]
    indexes += [(f"{path}.indexes.{position}", columns) for position, columns in enumerate(object_type.indexes)]
    indexes += [(f"{path}.properties.{name}.indexed", (name,)) for name, item in object_type.properties.items() if item.indexed]
    indexes += [
        (f"links.{object_type.name}.{link.name}.via", tuple(ours for ours, _ in link.via))
        for link in links
        if link.source == object_type.name
    ]
    for where, columns in indexes:
        texts = [item for name in columns if (item := object_type.properties.get(name)) and item.type is PropertyType.TEXT]
        if sum(item.length_max for item in texts) > INDEX_TEXT_LENGTH_MAX:
            names = ", ".join(item.name for item in texts)
            sentence = f"Set `length_max` of {names}: together at most {INDEX_TEXT_LENGTH_MAX} characters fit into an index."
            problems.add("index_too_long", where, sentence)
