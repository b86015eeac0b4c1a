"""Action type documents: every problem with its path, found before the ontology is published."""

from __future__ import annotations

from uuid import uuid4

import pytest
from actions_tenant import AIRLINE

from tenon.ontology.actions import check_actions
from tenon.ontology.actions.language.compiler import find_compiled_action
from tenon.ontology.schema.contracts import Ontology
from tenon.ontology.schema.documents.parsing import parse_document
from tenon.ontology.schema.tables.physical_names import Numbers, resolve

WITH_PLANE = "{plane: {object: plane}, flight: {object: flight}, text: {type: text}}"
HEAD = AIRLINE[: AIRLINE.index("action_types:")]


def ontology_of(action: str) -> Ontology:
    """The airline's object types with the single action type `note`."""
    body = "\n".join("    " + line for line in action.strip("\n").splitlines())
    return resolve(parse_document(f"{HEAD}action_types:\n  note:\n{body}\n"), Numbers(), uuid4(), 1)


def note(*, edits: str = "- {update: flight, set: {passenger_notice: text}}", **parts: str) -> str:
    """The document of `note`, some parts replaced."""
    whole = {
        "parameters": "{flight: {object: flight}, text: {type: text}}",
        "approval": "none",
        **parts,
    }
    return "\n".join(f"{name}: {value}" for name, value in whole.items()) + f"\nedits:\n  {edits}"


def test_the_airline_actions_have_no_problem() -> None:
    assert check_actions(resolve(parse_document(AIRLINE), Numbers(), uuid4(), 1)) == []


def test_the_note_action_has_no_problem() -> None:
    assert check_actions(ontology_of(note())) == []


@pytest.mark.parametrize(
    ("document", "code", "path"),
    [
        (note(surprise="1"), "unknown_key", "surprise"),
        (note(approval="{}"), "no_approver", "approval.roles"),
        (note(approval="sometimes"), "no_approval_rule", "approval"),
        (note(approval="{roles: [king]}"), "unknown_role", "approval.roles"),
        (note(approval="{roles: [approver], expires_after: soon}"), "bad_duration", "approval.expires_after"),
        (note(limits="{objects: 0}"), "not_integer", "limits.objects"),
        (note(parameters="{flight: {object: rocket}, text: {type: text}}"), "unknown_object_type", "parameters.flight.object"),
        (note(parameters="{flight: {object: flight}, text: {type: poem}}"), "unknown_type", "parameters.text.type"),
        (note(parameters="{flight: {object: flight}, text: {type: enum}}"), "bad_enum", "parameters.text.enum"),
        (note(parameters="{flight: {object: flight}, now: {type: text}}"), "bad_name", "parameters.now"),
        (note(parameters='{flight: {object: flight}, text: {type: text, pattern: "(a+)+"}}'), "bad_pattern", "parameters.text.pattern"),
        (note(preconditions='[{code: x, check: "flight.nope", message: m}]'), "bad_expression", "preconditions[0].check"),
        (note(preconditions='[{code: x, check: "flight.flight_number", message: m}]'), "bad_expression", "preconditions[0].check"),
        (note(preconditions='[{code: x, check: "new_id != text", message: m}]'), "name_out_of_scope", "preconditions[0].check"),
        (note(preconditions='[{code: x, check: "true", message: m, each: f, as: g}]'), "unknown_selection", "preconditions[0]"),
        (note(selects="{s: {type: flight, where: [{property: nope, eq: text}]}}"), "unknown_property", "selects.s.where[0].property"),
        (note(selects="{s: {type: flight, where: [{property: carrier, eq: now}]}}"), "bad_expression", "selects.s.where[0].eq"),
        (note(selects="{s: {type: flight, where: [{property: carrier}]}}"), "bad_condition", "selects.s.where[0]"),
        (note(selects="{text: {type: flight}}"), "name_taken", "selects.text"),
        (
            note(edits="- {update: flight, set: {passenger_notice: 'flight.flight_number'}}"),
            "bad_expression",
            "edits[0].set.passenger_notice",
        ),
        (note(edits="- {update: flight, set: {status: 'null'}}"), "bad_expression", "edits[0].set.status"),
        (note(edits="- {update: flight, set: {carrier: text}}"), "not_editable", "edits[0].set.carrier"),
        (note(edits="- {update: flight, set: {nope: text}}"), "unknown_property", "edits[0].set.nope"),
        (note(edits="- {update: rocket, set: {nope: text}}"), "unknown_target", "edits[0].update"),
        (note(edits="- {create: disruption, set: {code: new_id}}"), "missing_property", "edits[0].set"),
        (note(edits="- {delete: flight, set: {carrier: text}}"), "bad_edit", "edits[0].set"),
        (note(edits="- {update: flight, delete: flight}"), "bad_edit", "edits[0]"),
        (note(edits="- 7"), "not_a_mapping", "edits[0]"),
    ],
)
def test_problem_and_path(document: str, code: str, path: str) -> None:
    problems = check_actions(ontology_of(document))
    assert (code, f"action_types.note.{path}") in [(problem.code, problem.path) for problem in problems]


def test_a_source_is_at_most_2_kilobytes() -> None:
    long = "'" + "a" * 2_100 + "'"
    problems = check_actions(ontology_of(note(edits=f'- {{update: flight, set: {{passenger_notice: "{long}"}}}}')))
    assert "longer than 2,048 bytes" in problems[0].message


@pytest.mark.parametrize(
    "document",
    [
        note(preconditions='[{code: x, check: "has(plane.seats)", message: m}]', parameters=WITH_PLANE),
        note(edits="- {update: plane, set: {seats: 3}}", parameters="{plane: {object: plane}}"),
        note(edits="- {delete: plane}", parameters="{plane: {object: plane}}"),
        note(selects="{s: {type: plane, where: [{property: seats, gt: 3}]}}"),
    ],
)
def test_an_action_that_needs_more_than_one_may_see_does_not_exist(document: str) -> None:
    ontology = ontology_of(document)
    assert check_actions(ontology) == []
    assert find_compiled_action(ontology, "note", frozenset({"fleet_confidential"})) is not None
    assert find_compiled_action(ontology, "note", frozenset()) is None
