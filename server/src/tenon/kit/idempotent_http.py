"""An idempotent HTTP write answered as JSON. Knows Starlette, knows no domain."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tenon.kit import canonical
from tenon.kit.database import WriteSession
from tenon.kit.database.idempotency import once

KEY_HEADER = "Idempotency-Key"
Work = Callable[[], Awaitable[tuple[int, dict[str, Any]]]]


def request_digest(request: Request, body: bytes) -> bytes:
    """What makes two requests the same one: method, path and body."""
    return hashlib.sha256(b"\0".join([request.method.encode(), request.scope["path"].encode(), body])).digest()


async def stored_answer(
    request: Request, session: WriteSession, *, tenant: UUID, principal: UUID, key: str, work: Work
) -> tuple[int, dict[str, Any], bool]:
    """Run `work` once for this Idempotency-Key within tenant, principal and route; (status, body, replayed)."""
    route = getattr(request.scope.get("route"), "path", request.scope["path"])
    return await once(
        session,
        tenant=tenant,
        scope=f"{principal}:{request.method}:{route}",
        key=key,
        request_sha256=request_digest(request, await request.body()),
        work=work,
    )


def json_answer(answer: tuple[int, dict[str, Any], bool]) -> Response:
    """The HTTP answer; a replayed one says so and is byte-identical otherwise."""
    status, body, replayed = answer
    return JSONResponse(canonical.plain(body), status, {"idempotent-replayed": "true"} if replayed else None)
