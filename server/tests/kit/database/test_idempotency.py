"""One effect an idempotency key, whatever the client repeats."""

from __future__ import annotations

import asyncio

import pytest

from tenon.kit.database import Database
from tenon.kit.database.idempotency import once
from tenon.kit.errors import Conflict, Invalid

HASH = b"\1" * 32


class Counting:
    """Work that counts how often it ran."""

    def __init__(self, seconds: float = 0, fail: bool = False) -> None:
        self.runs, self._seconds, self._fail = 0, seconds, fail

    async def __call__(self) -> tuple[int, dict[str, object]]:
        self.runs += 1
        await asyncio.sleep(self._seconds)
        if self._fail:
            raise RuntimeError("lost")
        return 201, {"run": self.runs}


async def send(database: Database, tenant, work: Counting, key: str = "k", digest: bytes = HASH, scope: str = "route"):
    ctx = tenant.context("editor")
    async with database.tenant(ctx.identity) as session:
        return await once(session, tenant=ctx.tenant, scope=scope, key=key, request_sha256=digest, work=work)


async def test_a_repeated_request_gets_the_stored_answer(database, tenant_a) -> None:
    work = Counting()
    assert await send(database, tenant_a, work) == (201, {"run": 1}, False)
    assert await send(database, tenant_a, work) == (201, {"run": 1}, True)
    assert work.runs == 1


async def test_another_body_under_the_same_key_is_refused(database, tenant_a) -> None:
    await send(database, tenant_a, Counting())
    with pytest.raises(Invalid) as refused:
        await send(database, tenant_a, Counting(), digest=b"\2" * 32)
    assert refused.value.code == "idempotency_key_reused"


async def test_a_concurrent_twin_is_refused_at_once(database, tenant_a) -> None:
    slow = Counting(seconds=0.5)
    first = asyncio.create_task(send(database, tenant_a, slow))
    await asyncio.sleep(0.2)
    with pytest.raises(Conflict) as refused:
        await send(database, tenant_a, Counting())
    assert refused.value.code == "in_flight"
    assert (await first)[0] == 201
    assert (await send(database, tenant_a, slow))[2]


async def test_a_lost_effect_stores_no_answer(database, tenant_a) -> None:
    with pytest.raises(RuntimeError):
        await send(database, tenant_a, Counting(fail=True))
    assert await send(database, tenant_a, Counting()) == (201, {"run": 1}, False)


async def test_scopes_and_tenants_do_not_meet(database, tenant_a, tenant_b) -> None:
    for tenant, scope in ((tenant_a, "one"), (tenant_a, "other"), (tenant_b, "one")):
        assert (await send(database, tenant, Counting(), scope=scope))[2] is False


@pytest.mark.parametrize("key", ["", "x" * 256, "line\nbreak"])
async def test_a_bad_key_is_refused(database, tenant_a, key: str) -> None:
    with pytest.raises(Invalid) as refused:
        await send(database, tenant_a, Counting(), key=key)
    assert refused.value.code == "idempotency_key_invalid"
