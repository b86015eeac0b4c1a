"""From a refusal to its HTTP status and headers: the only such table, used by REST, the plain ASGI routes, GraphQL and MCP."""

from __future__ import annotations

from tenon.kit.errors.codes import ErrorCode, ErrorKind

_STATUS: dict[ErrorKind, int] = {
    ErrorKind.INVALID: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.TOO_MANY_REQUESTS: 429,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.INTERNAL: 500,
}
# Where HTTP, or a draft that clients know, has a status of its own.
_STATUS_BY_CODE: dict[ErrorCode, int] = {
    ErrorCode.METHOD_NOT_ALLOWED: 405,  # RFC 9110, 15.5.6
    ErrorCode.BODY_TOO_LARGE: 413,  # RFC 9110, 15.5.14
    ErrorCode.IDEMPOTENCY_KEY_REUSED: 422,  # draft-ietf-httpapi-idempotency-key-header
}
_RETRY_AFTER_SECONDS: dict[ErrorKind, int] = {ErrorKind.TOO_MANY_REQUESTS: 5, ErrorKind.UNAVAILABLE: 1}


def http_status(code: ErrorCode) -> int:
    """The HTTP status of a refusal with this code."""
    return _STATUS_BY_CODE.get(code, _STATUS[code.kind])


def retry_after_seconds(code: ErrorCode) -> int | None:
    """The value of `Retry-After`; None when the same request would be refused again."""
    return _RETRY_AFTER_SECONDS.get(code.kind)
