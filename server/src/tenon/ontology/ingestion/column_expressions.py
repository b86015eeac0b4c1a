"""From a mapping to DuckDB SQL: each property's value from the row's texts, and the checks that say why a value is not acceptable.

No part of it is SQL from a user: columns are quoted identifiers, everything else is a literal or a function chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenon.ontology.ingestion.contracts import Conversion, Load, PropertySource
from tenon.ontology.schema import ObjectType, Property, PropertyType


@dataclass(frozen=True, slots=True)
class Check:
    """One rule on a value. `fails` is SQL that is true when the value is to be rejected; a null value fails only `required`."""

    code: str
    reason: str
    fails: str


@dataclass(frozen=True, slots=True)
class MappedProperty:
    """A property's typed value as SQL, the columns it was read from, their raw text as SQL, and its checks in order."""

    item: Property
    columns: tuple[str, ...]
    text: str  # raw text, null when there was none
    typed: str
    checks: tuple[Check, ...]
    initial: bool


def quoted(name: str) -> str:
    """A DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A DuckDB string literal; backslashes have no meaning in it."""
    return "'" + text.replace("'", "''") + "'"


def mapped_properties(load: Load, object_type: ObjectType) -> tuple[MappedProperty, ...]:
    """Every mapped property, in the object type's order."""
    return tuple(_mapped_property(load, object_type, load.sources[name]) for name in object_type.properties if name in load.sources)


def _mapped_property(load: Load, object_type: ObjectType, source: PropertySource) -> MappedProperty:
    item = object_type.properties[source.property]
    texts = [quoted(column) for column in source.columns]  # null already where the mapping says so
    match source.conversion:
        case Conversion.COLUMN:
            text, typed, extra = texts[0], *_column(item, source, texts[0])
        case Conversion.CONSTANT:
            text = literal(source.values[0])
            typed, extra = _column(item, source, text)
        case Conversion.WHEN_NULL:
            then, otherwise = (literal(value) for value in source.values)
            text = f"case when {texts[0]} is null then {then} else {otherwise} end"
            typed, extra = _column(item, source, text)
        case Conversion.TIMESTAMP_FROM:
            text, typed, extra = _timestamp_from(source, texts)
        case Conversion.PLUS_MINUTES:
            start = _mapped_property(load, object_type, load.sources[source.start or ""])
            minutes = f"try_cast({texts[0]} as integer)"
            text, typed = texts[0], f"{start.typed} + to_minutes({minutes})"
            extra = (Check("not_minutes", "This is not a whole number of minutes.", f"{texts[0]} is not null and {minutes} is null"),)
    checks = _required(item, text) + extra + _constraints(item, typed)
    return MappedProperty(item=item, columns=source.columns, text=text, typed=typed, checks=checks, initial=source.initial)


def _required(item: Property, text: str) -> tuple[Check, ...]:
    return (Check("required", "A value is required.", f"{text} is null"),) if item.required else ()


def _column(item: Property, source: PropertySource, text: str) -> tuple[str, tuple[Check, ...]]:
    """(typed value as SQL, the check that fails when the text is not of the type)."""
    match item.type:
        case PropertyType.TEXT | PropertyType.ENUM:
            return text, ()
        case PropertyType.INTEGER:
            # A cast alone would round 1.5 to 2.
            return _cast(text, f"try_cast({text} as bigint)", "not_integer", "This is not a whole number of 64 bits.", also=_fraction(text))
        case PropertyType.DECIMAL:
            return _decimal(item, text)
        case PropertyType.FLOAT:
            typed = f"try_cast({text} as double)"
            return _cast(text, typed, "not_number", "This is not a finite number.", also=f"not isfinite({typed})")
        case PropertyType.BOOLEAN:
            return _cast(text, f"try_cast({text} as boolean)", "not_boolean", "This is not true or false.")
        case PropertyType.UUID:
            return _cast(text, f"try_cast({text} as uuid)", "not_uuid", "This is not a UUID.")
        case PropertyType.DATE:
            typed = f"try_strptime({text}, {literal(source.format)})::date" if source.format else f"try_cast({text} as date)"
            return _cast(text, typed, "not_date", "This is not a date of the years 1 to 9999.", also=_outside(typed, "date"))
        case PropertyType.TIMESTAMP:
            return _timestamp(source, text)


def _cast(text: str, typed: str, code: str, reason: str, *, also: str = "") -> tuple[str, tuple[Check, ...]]:
    fails = f"({typed}) is null" + (f" or {also}" if also else "")
    return typed, (Check(code, reason, f"{text} is not null and ({fails})"),)


def _fraction(text: str) -> str:
    return f"contains({text}, '.') or contains({text}, 'e') or contains({text}, 'E')"


def _decimal(item: Property, text: str) -> tuple[str, tuple[Check, ...]]:
    digits = 18 - item.scale
    places = f"(?:\\.[0-9]{{0,{item.scale}}}0*)?"
    fits = f"regexp_full_match({text}, '[+-]?[0-9]{{1,{digits}}}{places}')"
    typed = f"case when {fits} then (try_cast({text} as decimal(18, {item.scale})) * {10**item.scale})::bigint end"
    reason = f"This is not a decimal number of at most {digits} digits before and {item.scale} after the point."
    return _cast(text, typed, "not_decimal", reason)


def _outside(typed: str, sql_type: str) -> str:
    last = "> date '9999-12-31'" if sql_type == "date" else ">= timestamptz '9999-12-31'"
    return f"({typed}) < {sql_type} '0001-01-01' or ({typed}) {last} or not isfinite({typed})"


def _timestamp(source: PropertySource, text: str) -> tuple[str, tuple[Check, ...]]:
    parsed = f"try_strptime({text}, {literal(source.format)})" if source.format else f"try_cast({text} as timestamp)"
    if source.zone:
        typed = f"timezone({literal(source.zone)}, {parsed})"
        also = "" if source.format else f" or {_has_offset(text)}"
        reason = f"This is not a local date and time of {source.zone}."
    elif source.format:
        typed = f"timezone('UTC', {parsed}::timestamp)" if "%z" not in source.format else f"{parsed}::timestamptz"
        also, reason = "", f"This is not a date and time written as {source.format}."
    else:
        typed = f"try_cast({text} as timestamptz)"
        also, reason = f" or not {_has_offset(text)}", "This is not a date and time with its offset from UTC (or set `zone`)."
    return _cast(text, typed, "not_timestamp", reason, also=_outside(typed, "timestamptz") + also)


def _has_offset(text: str) -> str:
    return f"(suffix({text}, 'Z') or regexp_matches({text}, ':[0-9.]+ ?[+-][0-9]{{2}}(:?[0-9]{{2}})?$'))"


def _timestamp_from(source: PropertySource, texts: list[str]) -> tuple[str, str, tuple[Check, ...]]:
    """Local date parts and an HHMM clock; 2400 is midnight at the end of the day."""
    year, month, day, clock = texts
    at = f"({clock})"
    joined = f"{year} || '-' || {month} || '-' || {day} || ' ' || lpad(case when {at} = '2400' then '0' else {clock} end, 4, '0')"
    local = f"try_strptime({joined}, '%Y-%m-%d %H%M') + to_days(case when {at} = '2400' then 1 else 0 end)"
    typed = f"timezone({literal(source.zone or 'UTC')}, {local})"
    has_value = f"coalesce({', '.join(texts)}) is not null"
    fails = f"{has_value} and (({typed}) is null or length({at}) > 4)"
    reason = f"These are not a date and an HHMM time of {source.zone}."
    text = f"case when {has_value} then concat_ws(' ', {', '.join(texts)}) end"
    return text, typed, (Check("not_timestamp", reason, fails),)


def _constraints(item: Property, typed: str) -> tuple[Check, ...]:
    checks: list[Check] = []
    match item.type:
        case PropertyType.TEXT:
            checks.append(Check("too_long", f"At most {item.length_max} characters are allowed.", f"length({typed}) > {item.length_max}"))
            if item.pattern:
                # `s`: in PostgreSQL a dot matches a line feed too.
                matches = f"regexp_full_match({typed}, {literal(item.pattern)}, 's')"
                checks.append(Check("pattern", f"It must match {item.pattern}.", f"not {matches}"))
        case PropertyType.ENUM:
            listed = ", ".join(literal(value) for value in item.enum)
            checks.append(Check("not_in_enum", f"It must be one of {', '.join(item.enum)}.", f"({typed}) not in ({listed})"))
        case _:
            checks += _bounds(item, typed)
    return tuple(checks)


def _bounds(item: Property, typed: str) -> list[Check]:
    checks = []
    for code, word, sign, bound in (("below_minimum", "least", "<", item.minimum), ("above_maximum", "most", ">", item.maximum)):
        if bound is not None:
            exact = repr(bound) + "::double" if item.type is PropertyType.FLOAT else str(round(bound * 10**item.scale))
            checks.append(Check(code, f"It must be at {word} {bound:g}.", f"({typed}) {sign} {exact}"))
    return checks
