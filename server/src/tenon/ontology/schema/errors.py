"""What can go wrong with an ontology.

TenonError
├── Invalid   ontology_invalid       the document is wrong; `details.problems` lists every problem with its path
├── Invalid   ontology_incompatible  the document is right, but the stored objects cannot follow it
├── NotFound  no_ontology            the tenant has published none
└── Conflict  ontology_busy          another change holds the tables
"""

from __future__ import annotations

from collections.abc import Sequence

from tenon.kit.documents import Problem, refusal
from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound


def invalid(problems: Sequence[Problem]) -> Invalid:
    """The document is wrong."""
    return refusal(ErrorCode.ONTOLOGY_INVALID, "The ontology is not valid.", problems, "Correct the named paths; nothing was changed.")


def incompatible(problems: Sequence[Problem]) -> Invalid:
    """The stored objects cannot follow the document."""
    repair = "Add a new property or object type beside the old one instead; nothing was changed."
    return refusal(ErrorCode.ONTOLOGY_INCOMPATIBLE, "The stored objects cannot follow this ontology.", problems, repair)


def no_ontology() -> NotFound:
    """The tenant has published no ontology yet."""
    return NotFound(ErrorCode.NO_ONTOLOGY, "No ontology has been published yet.", repair="Apply one: `tenon ontology apply FILE`.")


def busy() -> Conflict:
    """Another change or a long read holds the tables."""
    return Conflict(ErrorCode.ONTOLOGY_BUSY, "The object tables are in use by another change. Try again in a moment; nothing was changed.")
