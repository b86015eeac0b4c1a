"""Keys and usage claims, as a gateway meets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx2
import pytest

from tenon.core.context import Context
from tenon.core.identity import IssuedKey, KeyKind, KeyRequest, create_key
from tenon.entrypoints.api.app import build
from tenon.inference.usage import Claim
from tenon.kit import clock
from tenon.kit.database import Database
from tenon.kit.ids import uuid7


@pytest.fixture(scope="session")
def issue_key(database: Database) -> Callable[..., Awaitable[IssuedKey]]:
    """`issue_key(operator, holder, kind=…)`: a key of `holder`, issued by the operator."""

    async def issue(operator: Context, holder: Context, kind: KeyKind = KeyKind.USER, **changes: Any) -> IssuedKey:
        assert holder.project is not None
        request = KeyRequest(holder.principal, holder.project, kind, "test")
        async with database.tenant(operator.identity) as session:
            return await create_key(session, operator, replace(request, **changes))

    return issue


@pytest.fixture(scope="session")
def claim() -> Callable[..., Claim]:
    """`claim(holder, key_id, id=…, **changes)`: a well-formed claim of a call made with this key."""

    def make(holder: Context, key_id: str, *, id: UUID | None = None, **changes: Any) -> Claim:
        whole = Claim(
            raw=b"", record_id=(id or uuid7()).bytes, request_id="r", trace_id="", gateway_id="gw-1", tenant_id=str(holder.tenant),
            project_id=str(holder.project), principal_id=str(holder.principal), key_id=key_id,
            session_id=str(holder.session) if holder.session else "", endpoint_id="", model="tiny", upstream_model="tiny-v1",
            operation="chat", streamed=True, outcome="completed", http_status=200, usage_source="engine", input_tokens=10, output_tokens=5,
            cache_read_tokens=0, cache_write_tokens=0, reasoning_tokens=0, started_at_unix_us=int(clock.now().timestamp() * 1e6),
            first_token_us=1_000, duration_us=20_000, attempt=1,
        )  # fmt: skip
        whole = replace(whole, **changes)
        return replace(whole, raw=repr(whole).encode())

    return make


@pytest.fixture(scope="module")
async def web(settings) -> AsyncIterator[httpx2.AsyncClient]:
    app, up, done = build(settings), asyncio.Event(), asyncio.Event()

    async def live() -> None:  # one task for the lifespan: its scopes end where they began
        async with app.router.lifespan_context(app):
            up.set()
            await done.wait()

    living = asyncio.create_task(live())
    await up.wait()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://tenon.test") as client:
        yield client
    done.set()
    await living


@pytest.fixture
async def keys(issue_key, tenant_a, tenant_b) -> dict[str, str]:
    operator, stranger = tenant_a.context("operator"), tenant_b.context("operator")
    issued = {
        "operator": await issue_key(operator, operator), "viewer": await issue_key(operator, tenant_a.context("viewer")),
        "stranger": await issue_key(stranger, stranger),
    }  # fmt: skip
    return {name: key.text for name, key in issued.items()}
