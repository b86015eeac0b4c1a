"""Refusals of reads. What may not be seen is worded exactly like what does not exist."""

from __future__ import annotations

from tenon.kit.errors import ErrorCode, Invalid, NotFound


def unknown_type(name: str) -> NotFound:
    """No such object type, or none this caller may read."""
    return NotFound(ErrorCode.OBJECT_TYPE_NOT_FOUND, f"There is no object type `{_short(name)}`.", path="type",
                    repair="Call GET /v1/ontology for the types there are.")  # fmt: skip


def object_not_found() -> NotFound:
    """No such object in this tenant."""
    return NotFound(ErrorCode.OBJECT_NOT_FOUND, "There is no such object.")


def unknown_property(type_name: str, name: str, where: str) -> Invalid:
    """No such property, or none this caller may see."""
    return Invalid(ErrorCode.UNKNOWN_PROPERTY, f"`{type_name}` has no property `{_short(name)}`.", path=where,
                   repair="Call GET /v1/ontology for the properties there are.")  # fmt: skip


def unknown_link(type_name: str, name: str) -> NotFound:
    """No such link, or none this caller may follow."""
    return NotFound(ErrorCode.LINK_NOT_FOUND, f"`{type_name}` has no link `{_short(name)}`.", path="link")


def bad_value(where: str, message: str) -> Invalid:
    """A value that is not of its property's type."""
    return Invalid(ErrorCode.INVALID_VALUE, message, path=where)


def bad_request(where: str, message: str, *, code: ErrorCode = ErrorCode.INVALID_QUERY, repair: str | None = None) -> Invalid:
    """A query that makes no sense."""
    return Invalid(code, message, path=where, repair=repair)


def limit_exceeded(code: ErrorCode, message: str, where: str) -> Invalid:
    """A query beyond a limit."""
    return Invalid(code, message, path=where)


def _short(name: str) -> str:
    """A caller's word, cut so that it cannot flood logs."""
    return name if len(name) <= 64 else name[:64] + "…"
