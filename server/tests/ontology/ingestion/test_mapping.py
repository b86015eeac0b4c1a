"""The mapping language: every problem with its path; what the operator may not see is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from load_tenant import MAPPING, ONTOLOGY

from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, TenantId
from tenon.kit.errors import Invalid
from tenon.ontology.ingestion.contracts import Conversion
from tenon.ontology.ingestion.mapping_documents import parse_mapping
from tenon.ontology.schema.documents.parsing import parse_document
from tenon.ontology.schema.tables.physical_names import Numbers, resolve

TENANT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ONTOLOGY_PARSED = resolve(parse_document(ONTOLOGY.replace("DANGLING", "keep")), Numbers(), TENANT, 1)
OPERATOR = Context(
    TenantId(TENANT), (Actor(PrincipalId(TENANT), PrincipalKind.USER, "op"),), frozenset({"operator"}), frozenset({"secret"}), "request"
)


def problems(text: str, ctx: Context = OPERATOR) -> set[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        parse_mapping(text, ONTOLOGY_PARSED, ctx)
    assert caught.value.code == "mapping_invalid"
    return {(item["path"].removeprefix("loads.people."), item["code"]) for item in caught.value.details["problems"]}


def changed(**entries: Any) -> str:
    import yaml

    document = yaml.safe_load(MAPPING)
    for name, entry in entries.items():
        document["loads"]["people"]["properties"][name] = entry
    return str(yaml.safe_dump(document))


def test_good_mapping() -> None:
    load = parse_mapping(MAPPING, ONTOLOGY_PARSED, OPERATOR)[0]
    assert load.sources["number"].conversion is Conversion.COLUMN
    assert load.sources["state"].initial
    assert load.nulls == ("", "NA")


def test_a_property_above_the_clearance_is_unknown() -> None:
    blind = replace(OPERATOR, clearance=frozenset())
    assert problems(MAPPING, blind) == {("properties.tag", "unknown_property")}


@pytest.mark.parametrize(
    ("name", "entry", "path", "code"),
    [
        ("nothing", "x", "properties.nothing", "unknown_property"),
        ("number", {"column": "a", "constant": "b"}, "properties.number", "one_conversion"),
        ("number", {"column": "a", "format": "%d"}, "properties.number.format", "conversion_not_for_type"),
        ("seen", {"column": "a", "zone": "Mars/Olympus"}, "properties.seen.zone", "unknown_zone"),
        ("seen", {"timestamp_from": {"year": "y"}}, "properties.seen.timestamp_from.month", "missing"),
        ("seen", {"plus_minutes": {"start": "born", "column": "m"}}, "properties.seen.plus_minutes.start", "bad_start"),
        ("born", {"plus_minutes": {"start": "seen", "column": "m"}}, "properties.born.plus_minutes", "conversion_not_for_type"),
        ("name", {"sql": "1; drop table x"}, "properties.name.sql", "unknown_key"),
        ("name", ["a"], "properties.name", "not_a_mapping"),
    ],
)
def test_wrong_properties(name: str, entry: Any, path: str, code: str) -> None:
    assert (path, code) in problems(changed(**{name: entry}))


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        (("file: people.csv", "file: ../people.csv"), "file", "bad_file"),
        (("file: people.csv", "file: /etc/passwd"), "file", "bad_file"),
        (("object_type: person", "object_type: nobody"), "object_type", "unknown_object_type"),
        (('nulls: ["", NA]', "nulls: 7"), "nulls", "not_a_list"),
        (("record_lines_max: 3", "record_lines_max: 0"), "record_lines_max", "not_integer"),
        (("      name: name\n", ""), "properties", "required_not_mapped"),
        (("mapping: 1", "mapping: 2"), "mapping", "unknown_language"),
    ],
)
def test_wrong_loads(change: tuple[str, str], path: str, code: str) -> None:
    assert (path, code) in problems(MAPPING.replace(*change))
