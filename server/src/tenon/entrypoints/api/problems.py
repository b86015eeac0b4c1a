"""One error shape everywhere: RFC 9457 problem details. Each kind has one status; nothing internal leaks."""

from __future__ import annotations

import json
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tenon.kit import telemetry
from tenon.kit.errors import Invalid, Kind, TenonError

STATUS: dict[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.TOO_MUCH: 429,
    Kind.UNAVAILABLE: 503,
}
_TITLES = {400: "Bad request", 401: "Unauthenticated", 403: "Forbidden", 404: "Not found", 405: "Method not allowed", 409: "Conflict",
           413: "Too large", 422: "Unprocessable", 429: "Too much", 500: "Internal error", 503: "Unavailable"}  # fmt: skip


# A reused key with another body is 422 by the idempotency-key draft.
_STATUS_BY_CODE = {"idempotency_key_reused": 422, "body_too_large": 413}


def status_of(error: TenonError) -> int:
    """The HTTP status of a domain error."""
    return _STATUS_BY_CODE.get(error.code, STATUS[error.kind])


def problem(status: int, body: dict[str, Any], request_id: str) -> Response:
    """A problem+json answer."""
    content = {"type": f"urn:tenon:error:{body.get('code', 'internal')}", "title": _TITLES.get(status, "Error"), "status": status,
               "request_id": request_id, **body}  # fmt: skip
    headers = {"cache-control": "no-store"}
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="tenon"'
    if status == 503:
        headers["retry-after"] = "1"
    return Response(json.dumps(content), status, headers, media_type="application/problem+json")


def of_tenon_error(error: TenonError, request_id: str) -> Response:
    """The answer to a refusal."""
    return problem(status_of(error), error.as_dict(), request_id)


async def of_validation_error(_request: Request, error: Any) -> Response:
    """FastAPI's own validation, without the input it would echo."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"] if part != "body")
    code = "missing_idempotency_key" if path.lower() == "header.idempotency-key" else "invalid_request"
    return problem(400, Invalid(code, str(first["msg"]).rstrip(".") + ".", path=path).as_dict(), _request_id(_request))


async def of_http_exception(request: Request, error: Any) -> Response:
    """Starlette's 404 and 405."""
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "route_not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status_code, "http_error")
    text = {404: "There is no such route.", 405: "This route does not take this method.", 413: "The body is too large."}
    body = {"code": code, "message": text.get(error.status_code, "The request could not be served.")}
    return problem(error.status_code, body, _request_id(request))


async def of_refusal(request: Request, error: Any) -> Response:
    """A refusal from behind FastAPI's own layers."""
    return of_tenon_error(error, _request_id(request))


async def of_crash(request: Request, error: Any) -> Response:
    """Anything else from behind FastAPI's own layers."""
    return of_unexpected(error, _request_id(request))


def of_unexpected(error: BaseException, request_id: str) -> Response:
    """Anything else: logged with its stack, answered without it."""
    telemetry.logger().error("request.crashed", request_id=request_id, exc_info=error)
    return problem(500, {"code": "internal", "message": "Something went wrong on our side. Quote the request id."}, request_id)


def _request_id(request: Request) -> str:
    return str(request.scope.get("tenon.request_id", ""))
