"""The ontology language: every problem at once, each with its path and a stable code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenon.kit.errors import Invalid
from tenon.ontology.schema import Dangling, PropertyType
from tenon.ontology.schema.documents.parsing import parse_document

AIRLINE = (Path(__file__).parents[4] / "examples/airline/ontology.yaml").read_text()
GOOD = """
ontology: 1
markings: [secret]
value_types:
  code: {type: text, pattern: "[A-Z]{3}", length_max: 3}
object_types:
  city:
    plural: cities
    primary_key: code
    properties:
      code: {type: code}
      name: {type: text, markings: [secret]}
  person:
    primary_key: [number, born]
    title: name
    properties:
      number: {type: integer}
      born: {type: date}
      name: {type: text, required: true}
      home: {type: code}
      salary: {type: decimal, scale: 2, minimum: 0, markings: [secret]}
links:
  person.lives_in: {target: city, via: {home: code}, inverse: residents, dangling: stub}
"""


def problems(text: str) -> set[tuple[str, str]]:
    """(path, code) of everything wrong with a document."""
    with pytest.raises(Invalid) as caught:
        parse_document(text)
    assert caught.value.code == "ontology_invalid"
    return {(item["path"], item["code"]) for item in caught.value.details["problems"]}


def test_good_document() -> None:
    definition = parse_document(GOOD)
    person = definition.object_types["person"]
    assert person.plural == "persons"
    assert person.primary_key == ("number", "born")
    assert person.properties["number"].required
    assert not person.properties["number"].editable, "a key never changes"
    assert person.properties["home"].pattern == "[A-Z]{3}"
    assert person.properties["home"].value_type == "code"
    assert person.properties["salary"].type is PropertyType.DECIMAL
    assert person.properties["salary"].markings == {"secret"}
    assert definition.links[0].via == (("home", "code"),)
    assert definition.links[0].dangling is Dangling.STUB


def test_airline_example_parses() -> None:
    assert len(parse_document(AIRLINE).object_types) == 6


def test_all_problems_at_once() -> None:
    problems_ = problems("""
ontology: 2
colour: blue
markings: [Secret]
value_types:
  text: {type: text}
  level: {type: number}
object_types:
  flight:
    primary_key: [number, missing]
    title: nothing
    indexes: [[number]]
    properties:
      id: {type: text}
      Number: {type: integer}
      number: {type: integer, length_max: 3, minimum: 5, maximum: 1}
      origin: {type: airport}
      state: {type: enum}
      note: {type: text, pattern: "(?=x)", required: 1, markings: [unknown]}
  query:
    primary_key: ratio
    properties:
      ratio: {type: float, indexed: true, filterable: false}
links:
  flight.to: {target: nowhere, via: {a: b}}
  nobody.to: {target: flight, via: {a: b}}
""")
    assert problems_ == {
        ("ontology", "unknown_language"),
        ("colour", "unknown_key"),
        ("markings.Secret", "bad_name"),
        ("value_types.text", "name_taken"),
        ("value_types.level.type", "unknown_type"),
        ("object_types.flight.indexes", "bad_index"),
        ("object_types.flight.properties.id", "reserved_name"),
        ("object_types.flight.properties.Number", "bad_name"),
        ("object_types.flight.properties.number.length_max", "constraint_not_for_type"),
        ("object_types.flight.properties.number.minimum", "range_empty"),
        ("object_types.flight.properties.origin.type", "unknown_type"),
        ("object_types.flight.properties.state.enum", "enum_empty"),
        ("object_types.flight.properties.note.pattern", "bad_pattern"),
        ("object_types.flight.properties.note.required", "not_boolean"),
        ("object_types.flight.properties.note.markings", "unknown_marking"),
        ("object_types.flight.primary_key", "unknown_property"),
        ("object_types.flight.title", "unknown_property"),
        ("object_types.query", "reserved_name"),
        ("object_types.query.properties.ratio.indexed", "index_without_filter"),
        ("object_types.query.primary_key", "key_type"),
        ("links.flight.to.target", "unknown_object_type"),
        ("links.nobody.to", "unknown_object_type"),
    }


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        (("via: {home: code}", "via: {name: code, home: name}"), "links.person.lives_in.via", "via_not_key"),
        (("via: {home: code}", "via: {born: code}"), "links.person.lives_in.via.born", "via_types_differ"),
        (("via: {home: code}", "via: {house: code}"), "links.person.lives_in.via.house", "unknown_property"),
        (
            ("name: {type: text, markings", "name: {type: text, required: true, markings"),
            "links.person.lives_in.dangling",
            "stub_incomplete",
        ),
        (("inverse: residents", "inverse: name"), "object_types.city.name", "name_taken"),
        (("plural: cities", "plural: person"), "object_types.person", "name_taken"),
        (("home: {type: code}", "na_me: {type: code}"), "object_types.person.na_me", "name_taken"),
        (("number: {type: integer}", "number: {type: text}"), "object_types.person.primary_key", "index_too_long"),
        (("dangling: stub", "dangling: maybe"), "links.person.lives_in.dangling", "unknown_dangling"),
        (("primary_key: code", "primary_key: []"), "object_types.city.primary_key", "no_primary_key"),
    ],
)
def test_what_spans_types(change: tuple[str, str], path: str, code: str) -> None:
    assert (path, code) in problems(GOOD.replace(*change))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("- a list", "not_a_mapping"),
        ("a: [1, 2", "not_yaml"),
        ("a: &x 1\nb: *x", "alias_refused"),
        ("a: !!python/object:os.system x", "tag_refused"),
        ("a: 1\na: 2", "duplicate_key"),
        ("{" * 30 + "}" * 30, "document_too_deep"),
        ("a: " + "x" * 1_000_001, "document_too_large"),
        ("[a]: 1", "key_not_text"),
    ],
)
def test_what_is_no_document(text: str, code: str) -> None:
    assert problems(text) == {("$", code)}


def test_yaml_reads_as_people_read_it() -> None:
    """`no`, `010` and `1:30` are texts; only true and false are booleans."""
    text = GOOD.replace("{type: text, required: true}", "{type: enum, enum: [no, 010, 1:30, on]}")
    assert parse_document(text).object_types["person"].properties["name"].enum == ("no", "010", "1:30", "on")
