"""The exception classes of refusals. They know no HTTP; `http_status` maps them for every protocol.

TenonError
├── Invalid          the request itself is wrong, or beyond a fixed limit.
├── Unauthenticated  the caller is not known.
├── Forbidden        the caller is known and not allowed.
├── NotFound         the thing does not exist, or the caller may not see it.
├── Conflict         the stored state does not allow it now.
├── TooManyRequests  a limit that frees itself; the answer says when to try again.
└── Unavailable      a part that the request needs does not answer.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tenon.kit.errors.codes import ErrorCode, ErrorKind


class TenonError(Exception):
    """A refusal that a person can act on: a stable code, a sentence, where in the input, and how to repair it."""

    kind: ClassVar[ErrorKind]

    def __init__(
        self, code: ErrorCode, message: str, *, path: str | None = None, repair: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        if code.kind is not self.kind:  # else the documented status would not be the answered one
            raise TypeError(f"{code.value} is {code.kind.value}, so {type(self).__name__} cannot carry it")
        self.code = code
        self.message = message
        self.path = path
        self.repair = repair
        self.details = details or {}

    def as_dict(self) -> dict[str, Any]:
        """The public shape, the same in every protocol; absent parts are left out."""
        parts = {"code": self.code.value, "message": self.message, "path": self.path, "repair": self.repair, "details": self.details}
        return {name: value for name, value in parts.items() if value}


class Invalid(TenonError):
    kind = ErrorKind.INVALID


class Unauthenticated(TenonError):
    kind = ErrorKind.UNAUTHENTICATED


class Forbidden(TenonError):
    kind = ErrorKind.FORBIDDEN


class NotFound(TenonError):
    kind = ErrorKind.NOT_FOUND


class Conflict(TenonError):
    kind = ErrorKind.CONFLICT


class TooManyRequests(TenonError):
    kind = ErrorKind.TOO_MANY_REQUESTS


class Unavailable(TenonError):
    kind = ErrorKind.UNAVAILABLE
