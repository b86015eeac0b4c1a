"""What can go wrong, said once. Domain errors know no HTTP; each door maps a kind to its own status.

TenonError
├── Invalid          the request itself is wrong                 REST 400/422
├── Unauthenticated  nobody we know                              REST 401
├── Forbidden        known, but may not                          REST 403
├── NotFound         does not exist, or may not be seen          REST 404
├── Conflict         the world is in another state               REST 409
├── TooMuch          a limit was hit                             REST 413/429
└── Unavailable      a part we need does not answer              REST 503
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What sort of refusal it is; doors map it exhaustively."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_MUCH = "too_much"
    UNAVAILABLE = "unavailable"


class TenonError(Exception):
    """A refusal a person can act on: a stable code, a sentence, where in the input, and for agents how to repair it."""

    kind: Kind = Kind.INVALID

    def __init__(
        self, code: str, message: str, *, path: str | None = None, repair: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path
        self.repair = repair
        self.details = details or {}

    def as_dict(self) -> dict[str, Any]:
        """The public shape, the same in every door; absent parts are left out."""
        parts = {"code": self.code, "message": self.message, "path": self.path, "repair": self.repair, "details": self.details}
        return {name: value for name, value in parts.items() if value}


class Invalid(TenonError):
    kind = Kind.INVALID


class Unauthenticated(TenonError):
    kind = Kind.UNAUTHENTICATED


class Forbidden(TenonError):
    kind = Kind.FORBIDDEN


class NotFound(TenonError):
    kind = Kind.NOT_FOUND


class Conflict(TenonError):
    kind = Kind.CONFLICT


class TooMuch(TenonError):
    kind = Kind.TOO_MUCH


class Unavailable(TenonError):
    kind = Kind.UNAVAILABLE
