"""What can go wrong with an ontology.

TenonError
├── Invalid   ontology_invalid       the document is wrong; `details.problems` lists every problem with its path
├── Invalid   ontology_incompatible  the document is right, but the stored objects cannot follow it
├── NotFound  no_ontology            the tenant has published none
└── Conflict  ontology_busy          another change holds the tables
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tenon.kit.errors import Conflict, Invalid, NotFound

PROBLEMS_SHOWN_MAX = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an ontology document: a stable code, where in the document, and a sentence a person can act on."""

    code: str
    path: str  # "object_types.flight.properties.origin.type"
    message: str


def _listed(code: str, problems: Sequence[Problem], sentence: str, repair: str) -> Invalid:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    details = {"problems": [asdict(problem) for problem in problems[:PROBLEMS_SHOWN_MAX]], "problem_count": len(problems)}
    return Invalid(code, f"{sentence} {first.path}: {first.message}{more}", path=first.path, repair=repair, details=details)


def invalid(problems: Sequence[Problem]) -> Invalid:
    """The document is wrong."""
    return _listed("ontology_invalid", problems, "The ontology is not valid.", "Correct the named paths; nothing was changed.")


def incompatible(problems: Sequence[Problem]) -> Invalid:
    """The stored objects cannot follow the document."""
    return _listed(
        "ontology_incompatible", problems, "The stored objects cannot follow this ontology.", "Add a new property beside the old one instead; nothing was changed."
    )


def no_ontology() -> NotFound:
    """The tenant has published no ontology yet."""
    return NotFound("no_ontology", "No ontology has been published yet.", repair="Apply one: `tenon ontology apply FILE`.")


def busy() -> Conflict:
    """Another change or a long read holds the tables."""
    return Conflict("ontology_busy", "The object tables are in use by another change. Try again in a moment; nothing was changed.")
