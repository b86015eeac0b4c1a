"""Errors: every refusal's stable code, its exception class, and the one table from kind to HTTP status.

Owns: `ErrorCode`, the exception classes, the status table. Promises: an exception carries a code of the enum and that code's kind;
REST, GraphQL and MCP answer the same status for it. Needs: nothing.
"""

from tenon.kit.errors.codes import ErrorCode, ErrorKind
from tenon.kit.errors.exceptions import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TenonError,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from tenon.kit.errors.http_status import http_status, retry_after_seconds

__all__ = [
    "Conflict",
    "ErrorCode",
    "ErrorKind",
    "Forbidden",
    "Invalid",
    "NotFound",
    "TenonError",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "http_status",
    "retry_after_seconds",
]
