"""What PostgreSQL refuses while objects change, as refusals that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError

from tenon.kit.errors import Conflict, ErrorCode, Forbidden, Invalid, TenonError
from tenon.ontology.schema.contracts import Ontology

LOCK_NOT_AVAILABLE = "55P03"
UNIQUE_VIOLATION = "23505"
CHECK_VIOLATION, NOT_NULL_VIOLATION = "23514", "23502"
INSUFFICIENT_PRIVILEGE = "42501"


@contextmanager
def translated_errors(ontology: Ontology) -> Iterator[None]:
    """Raise database errors as refusals; serialization failures pass through, so that the transaction is tried again."""
    try:
        yield
    except DBAPIError as error:
        refusal = _refusal(ontology, error)
        if refusal is None:
            raise
        raise refusal from error


def would_lose_sight() -> Forbidden:
    """A row policy would hide the edited object from its editor."""
    return Forbidden(
        ErrorCode.WOULD_LOSE_SIGHT, "This edit would hide an object from you.", repair="Ask someone who may see the result to propose it."
    )


def _refusal(ontology: Ontology, error: DBAPIError) -> TenonError | None:
    original: Any = error.orig
    diagnostics = getattr(original, "diag", None)
    sqlstate = getattr(original, "sqlstate", None)
    if sqlstate == LOCK_NOT_AVAILABLE:
        return Conflict(
            ErrorCode.OBJECTS_BUSY, "Another change holds these objects. Try again in a moment.", repair="Repeat the same request."
        )
    if sqlstate == UNIQUE_VIOLATION:
        return Conflict(ErrorCode.OBJECT_EXISTS, "An object with this key exists already.", repair="Use another key.")
    if sqlstate in (CHECK_VIOLATION, NOT_NULL_VIOLATION):
        # A check's name starts with its column's.
        column = getattr(diagnostics, "column_name", None) or (getattr(diagnostics, "constraint_name", None) or "").split("_")[0]
        return Invalid(
            ErrorCode.INVALID_VALUE, f"{_property_of(ontology, column)} does not allow this value.", repair="Choose another value."
        )
    if sqlstate == INSUFFICIENT_PRIVILEGE and "row-level security" in str(original):
        return would_lose_sight()
    return None


def _property_of(ontology: Ontology, column: str) -> str:
    for object_type in ontology.object_types.values():
        for item in object_type.properties.values():
            if item.column == column:
                return f"The property {item.name} of {object_type.name}"
    return "A property"
