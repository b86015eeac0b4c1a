"""A tenant's limits, budgets and prices on their way to the gateways, and the Lease call: a real server, client and database."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import grpc
import pytest

from tenon.core import identity
from tenon.entrypoints.sync.server import serving
from tenon.inference.billing import BudgetDraft, Mode, Period, PriceDraft, create_budget, create_price, delete_budget, find_budget
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.inference.gateway_sync.generated.gateway_pb2_grpc import GatewayControlStub
from tenon.inference.limits import LimitDraft, Subject
from tenon.inference.limits.service import create_limit, delete_limit
from tenon.inference.usage import UsageStore
from tenon.kit import clock

TOKENS = {"gw-1": "one", "gw-2": "two"}
SECONDS_MAX = 5


def metadata(gateway: str = "gw-1") -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {TOKENS[gateway]}"), ("tenon-gateway-id", gateway))


@pytest.fixture(scope="module")
async def stub(settings) -> AsyncIterator[GatewayControlStub]:
    hashed = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in TOKENS.items()}
    own = settings.model_copy(update={"sync_listen": "127.0.0.1:0", "gateway_tokens": hashed})
    async with serving(own) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield GatewayControlStub(channel)


@pytest.fixture
async def operator(tenant_a):
    return tenant_a.context("operator")


class Updates:
    """The stream as a gateway reads it."""

    def __init__(self, stub) -> None:
        self.call = stub.Subscribe(wire.SubscribeRequest(gateway_id="gw-1"), metadata=metadata())

    async def until(self, is_expected: Callable[[wire.Update], bool]) -> wire.Update:
        async with asyncio.timeout(SECONDS_MAX):
            while not is_expected(update := await self.call.read()):
                pass
        return update


class Leases:
    """The Lease stream of one process."""

    def __init__(self, stub, gateway: str = "gw-1") -> None:
        self.process = str(uuid4())
        self.call = stub.Lease(metadata=metadata(gateway))

    async def say(self, **parts) -> wire.LeaseResponse:
        await self.call.write(wire.LeaseRequest(**{"process_id": self.process} | parts))
        return await asyncio.wait_for(self.call.read(), SECONDS_MAX)


async def test_governance_is_sent_whole_in_the_snapshot_and_with_every_change(stub, database, tenant_a, operator) -> None:
    tenant = str(tenant_a.tenant_id)
    async with database.tenant(operator.identity) as session:
        limit = await create_limit(session, operator, LimitDraft(Subject.TENANT, "", 60, 1_000, 4))
        price = await create_price(session, operator, PriceDraft("tiny", "EUR", clock.now(), 5, 6, 7, 8, 9, 10, 11, 12))
    updates = Updates(stub)
    snapshot = await updates.until(lambda update: update.HasField("snapshot"))
    (governance,) = [each for each in snapshot.snapshot.governance if each.tenant_id == tenant]
    sent = governance.limits[0]
    assert (sent.limit_id, sent.subject, sent.subject_id) == (
        str(limit.id),
        wire.SUBJECT_TENANT,
        tenant,
    )
    assert (sent.requests_per_minute, sent.tokens_per_minute, sent.concurrency) == (
        60,
        1_000,
        4,
    )
    (version,) = governance.prices
    assert (version.price_id, version.model, version.currency) == (str(price.id), "tiny", "EUR")
    assert (version.input_nano_per_million, version.output_nano_per_million, version.image_nano, version.request_nano) == (5, 6, 11, 12)
    await updates.until(lambda update: update.HasField("heartbeat"))
    before = time.time()
    async with database.tenant(operator.identity) as session:
        budget = await create_budget(session, operator, BudgetDraft(Subject.MODEL, "tiny", Mode.HARD, "EUR", 100, Period.DAY))
    update = await updates.until(lambda update: update.governance.tenant_id == tenant)
    assert [(each.budget_id, each.mode, each.currency) for each in update.governance.budgets] == [
        (str(budget.id), wire.BUDGET_MODE_HARD, "EUR")
    ]
    assert update.revision == update.governance.revision > snapshot.revision
    assert len(update.governance.limits) == len(update.governance.prices) == 1
    assert before * 1_000 - 1_000 <= update.committed_at_unix_ms <= time.time() * 1_000 + 1_000
    async with database.tenant(operator.identity) as session:
        await delete_budget(session, operator, budget.id)
        await delete_limit(session, operator, limit.id)
    update = await updates.until(lambda update: update.governance.tenant_id == tenant and not update.governance.limits)
    assert not update.governance.budgets


async def test_every_change_says_when_it_was_made(stub, database, tenant_a, operator, issue_key) -> None:
    updates = Updates(stub)
    await updates.until(lambda update: update.HasField("heartbeat"))
    key = await issue_key(operator, tenant_a.context("editor"))
    created = await updates.until(lambda update: update.key.key_id == key.key_id)
    await asyncio.sleep(0.05)
    async with database.tenant(operator.identity) as session:
        await identity.service.revoke_key(session, operator, key.key_id)
    revoked = await updates.until(lambda update: update.key.key_id == key.key_id and update.key.revoked)
    assert created.committed_at_unix_ms < revoked.committed_at_unix_ms <= time.time() * 1_000 + 1_000


async def test_whoever_is_not_enrolled_gets_no_lease(stub) -> None:
    call = stub.Lease(metadata=(("authorization", "Bearer wrong"), ("tenon-gateway-id", "gw-1")))
    assert await asyncio.wait_for(call.code(), SECONDS_MAX) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "request_parts",
    [
        {"process_id": "x"},
        {"wants": [wire.LeaseWant(budget_id="x")]},
        {"reports": [wire.LeaseReport(lease_id=str(uuid4()), spent_nano=-1)]},
        {"demands": [wire.ShareDemand(limit_id="")]},
        {"shipped_process_ids": ["*"]},
    ],
)
async def test_what_cannot_be_understood_ends_the_stream(stub, request_parts) -> None:
    leases = Leases(stub)
    await leases.call.write(wire.LeaseRequest(**{"process_id": leases.process} | request_parts))
    assert await asyncio.wait_for(leases.call.code(), SECONDS_MAX) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_process_leases_spends_and_gives_back(stub, database, operator) -> None:
    async with database.tenant(operator.identity) as session:
        budget = await create_budget(session, operator, BudgetDraft(Subject.MODEL, f"m-{uuid4()}", Mode.HARD, "EUR", 1_600))
    one, two = Leases(stub), Leases(stub, "gw-2")
    want = wire.LeaseWant(budget_id=str(budget.id), amount_nano=1_550)
    answer = await one.say(wants=[want])
    (lease,) = answer.leases
    assert (lease.budget_id, lease.amount_nano, lease.valid_ms, answer.number) == (str(budget.id), 1_550, 60_000, 1)
    denied = await two.say(wants=[want])
    assert [(each.budget_id, each.remaining_nano) for each in denied.denied] == [(str(budget.id), 50)]
    report = wire.LeaseReport(lease_id=lease.lease_id, spent_nano=0, close=True)
    assert list((await two.say(reports=[report])).closed_lease_ids) == [lease.lease_id]
    assert (await one.say(reports=[report])).number == 2
    assert len((await two.say(wants=[want])).leases) == 1
    assert not (await one.say(wants=[wire.LeaseWant(budget_id=str(uuid4()), amount_nano=1)])).leases


async def test_two_processes_share_a_limit(stub, database, operator) -> None:
    async with database.tenant(operator.identity) as session:
        limit = await create_limit(session, operator, LimitDraft(Subject.MODEL, f"m-{uuid4()}", 100, 0, 8))
    one, two = Leases(stub), Leases(stub, "gw-2")
    shares, applied = {}, {one: 0, two: 0}
    for _ in range(6):
        for each in (one, two):
            demand = wire.ShareDemand(limit_id=str(limit.id), requests=20, concurrency=5)
            answer = await each.say(demands=[demand], applied_number=applied[each])
            (share,) = answer.shares
            shares[each], applied[each] = share, answer.number
            assert sum(each.requests_per_minute for each in shares.values()) <= 100
            assert sum(each.concurrency for each in shares.values()) <= 8
    assert min(share.requests_per_minute for share in shares.values()) >= 40
    assert min(share.concurrency for share in shares.values()) >= 3
    three = Leases(stub)
    answer = await three.say(demands=[demand], shipped_process_ids=[one.process])
    assert answer.shares[0].requests_per_minute >= 12, "an earlier run of the same gateway is proven dead: its part is free"
    foreign = await Leases(stub, "gw-2").say(demands=[demand], shipped_process_ids=[three.process])
    assert foreign.shares[0].requests_per_minute <= 100 - answer.shares[0].requests_per_minute


async def test_a_rotated_keys_successors_count_with_it(stub, database, tenant_a, operator, issue_key, login, claim) -> None:
    editor, tenant = tenant_a.context("editor"), str(tenant_a.tenant_id)
    key = await issue_key(operator, editor)
    async with database.tenant(operator.identity) as session:
        await create_limit(session, operator, LimitDraft(Subject.KEY, key.key_id, 60))
        await create_budget(session, operator, BudgetDraft(Subject.KEY, key.key_id, Mode.HARD, "EUR", 100))
        soft = await create_budget(session, operator, BudgetDraft(Subject.KEY, key.key_id, Mode.SOFT, "EUR", 100))
        await create_price(session, operator, PriceDraft("tiny", "EUR", clock.now(), request_nano=3))
    updates = Updates(stub)
    await updates.until(lambda update: update.HasField("heartbeat"))
    newest, successors = key.key_id, []
    for _ in range(2):
        async with database.tenant(operator.identity) as session:
            newest = (await identity.rotate_key(session, operator, newest, overlap_seconds=60)).key_id
        successors.append(newest)
        governance = (await updates.until(lambda update: update.governance.tenant_id == tenant)).governance
        assert [sorted(limit.also_keys) for limit in governance.limits] == [sorted(successors)]
        assert [sorted(budget.also_keys) for budget in governance.budgets] == [sorted(successors)] * 2
    await UsageStore(login("usage")).store("gw-1", [claim(editor, each) for each in (key.key_id, *successors)])
    async with database.tenant(operator.identity) as session:
        assert (await find_budget(session, operator, soft.id)).spent_nano == 9
