"""The gate every request passes: request id, trace, authentication, metrics, and the one place where errors become answers.

Pure ASGI, because it stands in front of the hot read routes. Closed by default: a path not in PUBLIC_PATHS needs a key. The decision is
made on the raw ASGI path, never on a URL rebuilt from the Host header.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenon.core.context.contracts import SCOPE_KEY
from tenon.core.identity import Authenticator
from tenon.entrypoints.api import pages, problems
from tenon.kit import telemetry
from tenon.kit.errors import ErrorCode, TenonError, Unauthenticated
from tenon.kit.ids import uuid7

# Reached without a key. A new entry is a decision: a test holds this list against the routes.
PUBLIC_PATHS = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json"}) | pages.PATHS

REQUESTS = Counter("tenon_api_requests_total", "Requests answered.", ["route", "method", "status"])
SECONDS = Histogram(
    "tenon_api_request_seconds", "Time to answer.", ["route"], buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)
)


class RequestMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator, *, sample_ratio: float) -> None:
        self._app = app
        self._authenticator = authenticator
        self._sample_ratio = sample_ratio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, started = str(uuid7()), time.perf_counter()
        headers = dict(scope["headers"])
        within = telemetry.trace_from(headers.get(b"traceparent", b"").decode("latin-1"), self._sample_ratio)
        scope["tenon.request_id"], scope["tenon.trace"] = request_id, within
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        # Each request is a task of its own, so what is bound here ends with it.
        structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=within.trace_id)
        with telemetry.span("tenon.request", within, {"tenon.request_id": request_id}):
            await self._serve(scope, receive, answer, request_id, headers, lambda: status)
        self._observe(scope, status, time.perf_counter() - started)

    async def _serve(
        self, scope: Scope, receive: Receive, answer: Send, request_id: str, headers: dict[bytes, bytes], status: Callable[[], int]
    ) -> None:
        try:
            if scope["path"] not in PUBLIC_PATHS:
                key = _bearer(headers.get(b"authorization", b""))
                scope[SCOPE_KEY] = await self._authenticator.authenticate(
                    key,
                    request_id=request_id,
                    address=scope["client"][0] if scope.get("client") else "",
                    trace_id=scope["tenon.trace"].trace_id,
                    sampled=scope["tenon.trace"].sampled,
                )
            await self._app(scope, receive, answer)
        except TenonError as error:
            if status():  # the answer has begun: cutting it off is all that is left
                raise
            await problems.of_tenon_error(error, request_id)(scope, receive, answer)
        except Exception as error:
            if status():
                raise
            await problems.of_unexpected(error, request_id)(scope, receive, answer)

    @staticmethod
    def _observe(scope: Scope, status: int, seconds: float) -> None:
        """Count under the matched route's template, so that ids and unknown paths cannot make series."""
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        requests, seconds_of = _series(route, scope["method"] if scope["method"] in _METHODS else "other", f"{status // 100}xx")
        requests.inc()
        seconds_of.observe(seconds)


@cache
def _series(route: str, method: str, status: str) -> tuple[Counter, Histogram]:
    """The children of both metrics; as many as there are routes, methods and classes of status."""
    return REQUESTS.labels(route, method, status), SECONDS.labels(route)


_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def _bearer(header: bytes) -> str:
    scheme, _, key = header.partition(b" ")
    if scheme.lower() != b"bearer" or not key:
        raise Unauthenticated(ErrorCode.MISSING_API_KEY, "Send your API key as `Authorization: Bearer tnn_…`.")
    return key.decode("latin-1")
