"""From an ontology document to a Definition: every problem at once, each with its path (the language is described in docs/reference)."""

from __future__ import annotations

import re
from dataclasses import replace

from tenon.kit.documents import NAME_LENGTH_MAX, Problems, Reader, Unreadable, check_distinct, check_name, load
from tenon.ontology.schema.contracts import Dangling, LinkType, ObjectType, Property, PropertyType
from tenon.ontology.schema.documents.definition import Definition
from tenon.ontology.schema.documents.limits import (
    DECIMAL_SCALE_MAX,
    ENUM_VALUE_LENGTH_MAX,
    ENUM_VALUES_MAX,
    INDEXES_MAX,
    KEY_PROPERTIES_MAX,
    LANGUAGE_VERSION,
    LINKS_MAX,
    MARKINGS_MAX,
    NUMBER_MAX,
    OBJECT_TYPES_MAX,
    PATTERN_LENGTH_MAX,
    PROPERTIES_MAX,
    RESERVED_MEMBERS,
    RESERVED_TYPES,
    TEXT_LENGTH_MAX,
    VALUE_TYPES_MAX,
)
from tenon.ontology.schema.documents.link_checks import check_links, check_members
from tenon.ontology.schema.errors import invalid

_CONSTRAINTS = ("enum", "pattern", "minimum", "maximum", "length_max", "scale")
_BASE_TYPES = tuple(base.value for base in PropertyType)
# What RE2 (DuckDB, browsers' subset) and PostgreSQL read the same way: no back-references, look-around, lazy or class escapes.
_PATTERN = re.compile(
    r"""(?:[A-Za-z0-9 _,:;@#%&=<>/!'"~-] | \\[.\\+*?()\[\]{}|^$/-] | \(\?: | \((?!\?) | [)|.+*?] | \{\d{1,3}(?:,\d{0,3})?\}"""
    r""" | \[\^?(?:[A-Za-z0-9]-[A-Za-z0-9] | [A-Za-z0-9\ _.,:;@#%&=/+])+-?\])+""",
    re.VERBOSE,
)
_REPEAT_MAX = 255  # PostgreSQL's


def parse_document(text: str) -> Definition:
    """The checked definition that a YAML document holds. Raises Invalid (`ontology_invalid`) listing every problem."""
    problems = Problems()
    try:
        top = Reader(load(text), "", problems)
    except Unreadable as error:
        raise invalid([error.problem]) from None
    top.only("ontology", "description", "markings", "value_types", "object_types", "links", "action_types")
    if top.value.get("ontology") != LANGUAGE_VERSION:
        top.wrong("unknown_language", "ontology", f"Write `ontology: {LANGUAGE_VERSION}`: the version of the language this document is in.")
    markings = _markings(top)
    values = {name: _value_type(name, reader) for name, reader in top.section("value_types", VALUE_TYPES_MAX)}
    renames: dict[str, str] = {}
    types = {name: _object_type(name, reader, values, markings, renames) for name, reader in top.section("object_types", OBJECT_TYPES_MAX)}
    if not types and not problems.entries:
        top.wrong("empty", "object_types", "There must be at least one object type.")
    check_distinct(
        problems, "object_types", [name for object_type in types.values() for name in dict.fromkeys((object_type.name, object_type.plural))]
    )
    links = tuple(link for name, reader in top.section("links", LINKS_MAX) if (link := _link(name, reader, types)))
    links = check_links(problems, types, links)
    check_members(problems, types, links)
    actions = {name: reader.value for name, reader in top.section("action_types", OBJECT_TYPES_MAX)}
    for name in actions:
        check_name(problems, f"action_types.{name}", name, RESERVED_TYPES)
    if problems.entries:
        raise invalid(problems.entries)
    return Definition(types, links, markings, actions, renames)


def _markings(top: Reader) -> frozenset[str]:
    names = top.words("markings", count_max=MARKINGS_MAX, length_max=NAME_LENGTH_MAX)
    return frozenset(name for name in names if check_name(top.problems, f"markings.{name}", name))


def _marked(reader: Reader, declared: frozenset[str]) -> frozenset[str]:
    names = reader.words("markings", count_max=MARKINGS_MAX, length_max=NAME_LENGTH_MAX)
    for name in names:
        if name not in declared:
            reader.wrong("unknown_marking", "markings", f"`{name}` is not in the document's list `markings`.")
    return frozenset(names)


def _value_type(name: str, reader: Reader) -> Property | None:
    check_name(reader.problems, reader.path, name)
    if name in _BASE_TYPES:
        reader.problems.add("name_taken", reader.path, f"`{name}` is a base type.")
    reader.only("type", "description", *_CONSTRAINTS)
    base = _base_type(reader)
    return _constrained(Property(name, "", base, value_type=name), reader) if base else None


def _base_type(reader: Reader) -> PropertyType | None:
    word = reader.value.get("type")
    if isinstance(word, str) and word in _BASE_TYPES:
        return PropertyType(word)
    reader.wrong("unknown_type", "type", f"`{word}` is not a type; the types are {', '.join(_BASE_TYPES)}.")
    return None


def _constrained(base: Property, reader: Reader) -> Property:
    """`base` with the constraints that stand here; each must suit the type."""
    allowed = {
        PropertyType.TEXT: ("pattern", "length_max"),
        PropertyType.ENUM: ("enum",),
        PropertyType.INTEGER: ("minimum", "maximum"),
        PropertyType.FLOAT: ("minimum", "maximum"),
        PropertyType.DECIMAL: ("scale", "minimum", "maximum"),
    }.get(base.type, ())
    for key in _CONSTRAINTS:
        if key in reader.value and key not in allowed:
            reader.wrong("constraint_not_for_type", key, f"`{key}` has no meaning for type {base.type.value}.")
    property_ = replace(
        base,
        enum=reader.words("enum", count_max=ENUM_VALUES_MAX, length_max=ENUM_VALUE_LENGTH_MAX) or base.enum,
        pattern=_pattern(reader) or base.pattern,
        minimum=_first(reader.number("minimum", NUMBER_MAX), base.minimum),
        maximum=_first(reader.number("maximum", NUMBER_MAX), base.maximum),
        length_max=reader.integer("length_max", base.length_max, 1, TEXT_LENGTH_MAX),
        scale=reader.integer("scale", base.scale, 0, DECIMAL_SCALE_MAX),
    )
    if property_.type is PropertyType.ENUM and not property_.enum:
        reader.wrong("enum_empty", "enum", "An enum needs its list of values.")
    if any(not value.isprintable() or value != value.strip() for value in property_.enum):
        reader.wrong("enum_value", "enum", "Enum values must be printable and have no spaces around them.")
    if property_.minimum is not None and property_.maximum is not None and property_.minimum > property_.maximum:
        reader.wrong("range_empty", "minimum", "The minimum is above the maximum.")
    if (
        property_.type is PropertyType.DECIMAL
        and max(abs(property_.minimum or 0), abs(property_.maximum or 0)) * 10**property_.scale >= 2**63
    ):
        reader.wrong("range_too_wide", "maximum", "With this scale the bounds do not fit into 64 bits.")
    return property_


def _first(value: float | None, otherwise: float | None) -> float | None:
    return otherwise if value is None else value


def _pattern(reader: Reader) -> str | None:
    pattern = reader.text("pattern", length_max=PATTERN_LENGTH_MAX)
    if not pattern:
        return None
    try:
        re.compile(pattern)
    except re.error as error:
        reader.wrong("bad_pattern", "pattern", f"This is not a regular expression: {error}.")
        return None
    repeats = [int(number) for number in re.findall(r"(?<!\\)[{,](\d+)(?=[,}])", pattern)]
    if not _PATTERN.fullmatch(pattern) or re.search(r"[*+?}]\?|[*+?}][*+{]", pattern) or max(repeats, default=0) > _REPEAT_MAX:
        allowed = "Only literals, `.`, `[...]`, `(?:...)`, `|` and greedy `* + ? {n,m}` are allowed"
        reader.wrong("bad_pattern", "pattern", f"{allowed}; the pattern always matches the whole value.")
        return None
    return pattern


def _object_type(
    name: str, reader: Reader, values: dict[str, Property | None], markings: frozenset[str], renames: dict[str, str]
) -> ObjectType:
    check_name(reader.problems, reader.path, name, RESERVED_TYPES)
    reader.only("plural", "title", "description", "primary_key", "properties", "markings", "indexes", "renamed_from")
    plural = reader.text("plural", f"{name}s", length_max=NAME_LENGTH_MAX)
    check_name(reader.problems, reader.at("plural"), plural, RESERVED_TYPES)
    _note_rename(reader, name, renames)
    shared = _marked(reader, markings)
    properties: dict[str, Property] = {}
    for member, entry in reader.section("properties", PROPERTIES_MAX):
        property_ = _property(member, entry, values, markings)
        _note_rename(entry, f"{name}.{member}", renames)
        if property_:
            properties[member] = replace(property_, markings=property_.markings | shared)
    key = reader.words("primary_key", count_max=KEY_PROPERTIES_MAX, length_max=NAME_LENGTH_MAX)
    if not key and "primary_key" not in {p.path.rpartition(".")[2] for p in reader.problems.entries if p.path.startswith(reader.path)}:
        reader.wrong("no_primary_key", "primary_key", "Name the property, or the list of properties, that identifies an object.")
    for member in key:  # a key is required, and an action never changes it
        if member in properties:
            properties[member] = replace(properties[member], required=True, editable=False)
    title = reader.text("title", length_max=NAME_LENGTH_MAX) or None
    return ObjectType(name, plural, "", key, properties, title, reader.text("description"), _indexes(reader))


def _indexes(reader: Reader) -> tuple[tuple[str, ...], ...]:
    value = reader.value.get("indexes", [])
    if (
        not isinstance(value, list)
        or len(value) > INDEXES_MAX
        or not all(
            isinstance(item, list) and 2 <= len(item) <= KEY_PROPERTIES_MAX and all(isinstance(word, str) for word in item)
            for item in value
        )
    ):
        rule = f"This must be a list of at most {INDEXES_MAX} lists of 2 to {KEY_PROPERTIES_MAX} properties"
        reader.wrong("bad_index", "indexes", f"{rule}; for one property write `indexed: true` on it.")
        return ()
    return tuple(tuple(item) for item in value)


def _note_rename(reader: Reader, name: str, renames: dict[str, str]) -> None:
    former = reader.text("renamed_from", length_max=NAME_LENGTH_MAX)
    if former and check_name(reader.problems, reader.at("renamed_from"), former):
        renames[name] = former


def _property(name: str, reader: Reader, values: dict[str, Property | None], markings: frozenset[str]) -> Property | None:
    check_name(reader.problems, reader.path, name, RESERVED_MEMBERS)
    reader.only("type", "description", "required", "markings", "filterable", "indexed", "editable", "renamed_from", *_CONSTRAINTS)
    word = reader.value.get("type")
    if isinstance(word, str) and word in values:
        start = values[word]
        if start is None:  # the value type is wrong itself and has been reported there
            return None
        start = replace(start, name=name)
    else:
        base = _base_type(reader)
        if base is None:
            return None
        start = Property(name, "", base)
    property_ = _constrained(start, reader)
    property_ = replace(
        property_,
        required=reader.flag("required", False),
        markings=_marked(reader, markings),
        filterable=reader.flag("filterable", True),
        indexed=reader.flag("indexed", False),
        editable=reader.flag("editable", True),
        description=reader.text("description"),
    )
    if property_.indexed and not property_.filterable:
        reader.wrong("index_without_filter", "indexed", "A property that nobody may filter by needs no index.")
    return property_


def _link(name: str, reader: Reader, types: dict[str, ObjectType]) -> LinkType | None:
    reader.only("target", "via", "inverse", "dangling", "description")
    source, _, field = name.partition(".")
    if source not in types:
        reader.problems.add("unknown_object_type", reader.path, f"Write `<object type>.<link name>`; there is no object type `{source}`.")
        return None
    check_name(reader.problems, reader.path, field, RESERVED_MEMBERS)
    target = reader.text("target", length_max=NAME_LENGTH_MAX)
    if target not in types:
        reader.wrong("unknown_object_type", "target", f"There is no object type `{target}`.")
        return None
    inverse = reader.text("inverse", length_max=NAME_LENGTH_MAX) or None
    if inverse:
        check_name(reader.problems, reader.at("inverse"), inverse, RESERVED_MEMBERS)
    word = reader.value.get("dangling", Dangling.REJECT.value)
    if word not in [item.value for item in Dangling]:
        reader.wrong("unknown_dangling", "dangling", "This must be keep, stub or reject.")
        word = Dangling.REJECT.value
    via = reader.value.get("via")
    if not isinstance(via, dict) or not via or not all(isinstance(part, str) for pair in via.items() for part in pair):
        reader.wrong("bad_via", "via", "Write `via: {source property: target property}`, one pair for each property of the target's key.")
        return None
    return LinkType(field, source, target, tuple(via.items()), inverse, Dangling(word), description=reader.text("description"))
