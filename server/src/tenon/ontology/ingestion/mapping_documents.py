"""The mapping language: which file, which columns, into which properties (docs/reference/ingestion.md describes it)."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from tenon.core.context import Context
from tenon.kit.documents import NAME_LENGTH_MAX, Problems, Reader, Unreadable, check_name, load
from tenon.ontology.ingestion.contracts import RECORD_LINES_MAX, Conversion, Load, PropertySource
from tenon.ontology.ingestion.errors import mapping_invalid
from tenon.ontology.schema import ObjectType, Ontology, PropertyType

LOADS_MAX = 100
LANGUAGE_VERSION = 1
_PARTS = ("year", "month", "day", "clock")


def parse_mapping(text: str, ontology: Ontology, ctx: Context) -> tuple[Load, ...]:
    """The loads of a mapping document, checked against the ontology as `ctx` sees it. Raises Invalid `mapping_invalid`."""
    problems = Problems()
    try:
        top = Reader(load(text), "", problems)
    except Unreadable as error:
        raise mapping_invalid([error.problem]) from None
    top.only("mapping", "description", "loads")
    if top.value.get("mapping") != LANGUAGE_VERSION:
        top.wrong("unknown_language", "mapping", f"Write `mapping: {LANGUAGE_VERSION}`: the version of this document's language.")
    loads = [_load(name, reader, ontology, ctx) for name, reader in top.section("loads", LOADS_MAX)]
    if not loads and not problems.entries:
        top.wrong("empty", "loads", "There must be at least one load.")
    if problems.entries:
        raise mapping_invalid(problems.entries)
    return tuple(item for item in loads if item)


def _load(name: str, reader: Reader, ontology: Ontology, ctx: Context) -> Load | None:
    check_name(reader.problems, reader.path, name)
    reader.only("object_type", "file", "nulls", "delimiter", "record_lines_max", "properties")
    object_type = ontology.object_types.get(reader.text("object_type", length_max=NAME_LENGTH_MAX))
    if object_type is None:
        reader.wrong("unknown_object_type", "object_type", "There is no such object type.")
        return None
    file = reader.text("file", length_max=200)
    if not file or file.startswith(("/", "\\")) or ".." in file.replace("\\", "/").split("/"):
        reader.wrong("bad_file", "file", "Name a file inside the data folder.")
    delimiter = reader.text("delimiter", ",", length_max=1)
    if delimiter in ("", '"', "\n", "\r", "'") or not delimiter.isascii():
        reader.wrong("bad_delimiter", "delimiter", "The delimiter is one ASCII character, not a quote.")
    nulls = tuple(reader.value.get("nulls", [""])) if _is_texts(reader.value.get("nulls", [""])) else None
    if nulls is None:
        reader.wrong("not_a_list", "nulls", "This must be a list of texts that stand for no value.")
    lines = reader.integer("record_lines_max", 1, 1, RECORD_LINES_MAX)
    sources = _sources(reader, object_type, ctx, _link_markings(ontology, object_type))
    return Load(
        name=name,
        object_type=object_type.name,
        file=file,
        sources=sources,
        nulls=nulls or ("",),
        delimiter=delimiter,
        record_lines_max=lines,
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 20 and all(isinstance(item, str) for item in value)


def _link_markings(ontology: Ontology, object_type: ObjectType) -> dict[str, frozenset[str]]:
    """Property -> markings of its links: a load reveals whether their targets exist, so its caller must be allowed to follow them."""
    markings: dict[str, frozenset[str]] = {}
    for link in ontology.links_from[object_type.name].values():
        for ours, _ in link.via:
            markings[ours] = markings.get(ours, frozenset()) | link.markings
    return markings


def _sources(reader: Reader, object_type: ObjectType, ctx: Context, linked: dict[str, frozenset[str]]) -> dict[str, PropertySource]:
    sources: dict[str, PropertySource] = {}
    entries = reader.value.get("properties")
    if not isinstance(entries, dict):
        reader.wrong("not_a_mapping", "properties", "This must be a mapping of property names to columns.")
        return sources
    for name, entry in entries.items():
        path = f"{reader.at('properties')}.{name}"
        item = object_type.properties.get(name)
        if item is None or not ctx.sees(item.markings | linked.get(name, frozenset())):
            reader.problems.add("unknown_property", path, f"{object_type.name} has no property `{name}`.")
            continue
        inner = Reader({"column": entry} if isinstance(entry, str) else entry, path, reader.problems)
        if not isinstance(inner.value, dict):
            reader.problems.add("not_a_mapping", path, "Write the column's name, or a mapping such as `{column: name}`.")
            continue
        source = _source(inner, name, item.type)
        if source:
            sources[name] = source
    for name, source in sources.items():
        _check_start(reader, object_type, sources, name, source)
    for name, item in object_type.properties.items():
        if item.required and name not in entries:
            reader.wrong("required_not_mapped", "properties", f"`{name}` is required and has no column.")
    return sources


def _check_start(reader: Reader, object_type: ObjectType, sources: dict[str, PropertySource], name: str, source: PropertySource) -> None:
    if source.conversion is not Conversion.PLUS_MINUTES:
        return
    start = sources.get(source.start or "")
    path = f"{reader.at('properties')}.{name}.plus_minutes.start"
    if (
        start is None
        or object_type.properties[start.property].type is not PropertyType.TIMESTAMP
        or start.conversion is Conversion.PLUS_MINUTES
    ):
        reader.problems.add("bad_start", path, "This must be a mapped timestamp property that does not itself start from another.")


def _source(reader: Reader, name: str, property_type: PropertyType) -> PropertySource | None:
    reader.only("column", "format", "zone", "constant", "when_null", "timestamp_from", "plus_minutes", "initial")
    chosen = [conversion for conversion in Conversion if conversion.value in reader.value]
    if len(chosen) != 1:
        reader.problems.add("one_conversion", reader.path, f"Write one of {', '.join(Conversion)}.")
        return None
    initial = reader.flag("initial", False)
    match chosen[0]:
        case Conversion.COLUMN:
            return _column(reader, name, property_type, initial)
        case Conversion.CONSTANT:
            return PropertySource(name, Conversion.CONSTANT, values=(_text(reader, "constant"),), initial=initial)
        case Conversion.WHEN_NULL:
            inner = _inner(reader, "when_null", "column", "then", "otherwise")
            values = (_text(inner, "then"), _text(inner, "otherwise"))
            return PropertySource(name, Conversion.WHEN_NULL, (_text(inner, "column"),), values=values, initial=initial)
        case Conversion.TIMESTAMP_FROM:
            _only_for(reader, property_type, "timestamp_from", PropertyType.TIMESTAMP)
            inner = _inner(reader, "timestamp_from", *_PARTS, "zone")
            columns = tuple(_text(inner, part) for part in _PARTS)
            return PropertySource(name, Conversion.TIMESTAMP_FROM, columns, zone=_zone(inner) or "UTC", initial=initial)
        case Conversion.PLUS_MINUTES:
            _only_for(reader, property_type, "plus_minutes", PropertyType.TIMESTAMP)
            inner = _inner(reader, "plus_minutes", "start", "column")
            return PropertySource(name, Conversion.PLUS_MINUTES, (_text(inner, "column"),), start=_text(inner, "start"), initial=initial)


def _column(reader: Reader, name: str, property_type: PropertyType, initial: bool) -> PropertySource:
    pattern = reader.text("format", length_max=60) or None
    if pattern:
        _only_for(reader, property_type, "format", PropertyType.DATE, PropertyType.TIMESTAMP)
    if "zone" in reader.value:
        _only_for(reader, property_type, "zone", PropertyType.TIMESTAMP)
    return PropertySource(name, Conversion.COLUMN, (_text(reader, "column"),), pattern, _zone(reader), initial=initial)


def _inner(reader: Reader, key: str, *known: str) -> Reader:
    value = reader.value[key]
    if not isinstance(value, dict):
        reader.wrong("not_a_mapping", key, f"This must be a mapping with {', '.join(known)}.")
        value = dict.fromkeys(known, "-")
    inner = Reader(value, reader.at(key), reader.problems)
    inner.only(*known)
    return inner


def _text(reader: Reader, key: str) -> str:
    text = reader.text(key, length_max=200)
    if not text:
        reader.wrong("missing", key, "This must be a text.")
    return text


def _zone(reader: Reader) -> str | None:
    zone = reader.text("zone", length_max=60) or None
    if zone and zone not in available_timezones():
        reader.wrong("unknown_zone", "zone", f"`{zone}` is not an IANA time zone.")
    return zone


def _only_for(reader: Reader, property_type: PropertyType, key: str, *property_types: PropertyType) -> None:
    if property_type not in property_types:
        reader.wrong(
            "conversion_not_for_type", key, f"`{key}` is for type {property_types[-1].value}; the property has type {property_type.value}."
        )
