"""Refusals as HTTP answers: RFC 9457 problem details, with the status of the one table. Nothing internal leaks."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tenon.kit import telemetry
from tenon.kit.errors import ErrorCode, Invalid, TenonError, http_status, retry_after_seconds

_BY_STATUS = {
    404: (ErrorCode.ROUTE_NOT_FOUND, "There is no such route."),
    405: (ErrorCode.METHOD_NOT_ALLOWED, "This route does not take this method."),
    413: (ErrorCode.BODY_TOO_LARGE, "The body is too large."),
}


def problem(code: ErrorCode, body: dict[str, Any], request_id: str) -> Response:
    """A problem+json answer."""
    status = http_status(code)
    content = {
        "type": f"urn:tenon:error:{code.value}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "request_id": request_id,
        **body,
    }
    headers = {"cache-control": "no-store"}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="tenon"'
    if seconds := retry_after_seconds(code):
        headers["retry-after"] = str(seconds)
    return Response(json.dumps(content), status, headers, media_type="application/problem+json")


def of_tenon_error(error: TenonError, request_id: str) -> Response:
    """The answer to a refusal."""
    return problem(error.code, error.as_dict(), request_id)


async def of_validation_error(request: Request, error: Any) -> Response:
    """FastAPI's own validation, without the input it would echo."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"] if part != "body")
    code = ErrorCode.MISSING_IDEMPOTENCY_KEY if path.lower() == "header.idempotency-key" else ErrorCode.INVALID_REQUEST
    return of_tenon_error(Invalid(code, str(first["msg"]).rstrip(".") + ".", path=path), _request_id(request))


async def of_http_exception(request: Request, error: Any) -> Response:
    """Starlette's 404, 405 and 413; whatever else it refuses is a request that it could not read."""
    if not isinstance(error, HTTPException):
        raise error
    code, message = _BY_STATUS.get(error.status_code, (ErrorCode.INVALID_REQUEST, "The request could not be read."))
    response = problem(code, {"code": code.value, "message": message}, _request_id(request))
    response.headers.update(error.headers or {})  # RFC 9110: a 405 names the allowed methods
    return response


async def of_refusal(request: Request, error: Any) -> Response:
    """A refusal from behind FastAPI's own layers."""
    return of_tenon_error(error, _request_id(request))


async def of_crash(request: Request, error: Any) -> Response:
    """Anything else from behind FastAPI's own layers."""
    return of_unexpected(error, _request_id(request))


def of_unexpected(error: BaseException, request_id: str) -> Response:
    """Anything else: logged with its stack, answered without it."""
    telemetry.logger().error("request.failed", request_id=request_id, exc_info=error)
    body = {"code": ErrorCode.INTERNAL.value, "message": "Something went wrong on our side. Quote the request id."}
    return problem(ErrorCode.INTERNAL, body, request_id)


def _request_id(request: Request) -> str:
    return str(request.scope.get("tenon.request_id", ""))
