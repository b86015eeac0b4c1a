"""A hard budget is never spent twice, whatever requests, reports, crashes, lost answers, shipped logs and write-offs come in whatever order.

The other side is a model of gateways: processes that spend only what they were granted, keep each record until it is acknowledged, die at any
moment, and lose their disk now and then. Ours is the real thing on the real database, served by several connections at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tenon.inference.billing import write_off
from tenon.inference.billing.leases.repository import lease_of
from tenon.inference.usage import UsageStore
from tenon.kit import clock

AMOUNT = 2_000
GATEWAYS = ("gw-1", "gw-2")


@dataclass
class Held:
    """A lease as its process knows it."""

    amount: int
    spent: int = 0
    usable: bool = True


@dataclass
class Process:
    """One run of a gateway: its leases, and its log of records that were not acknowledged yet."""

    gateway: str
    id: UUID = field(default_factory=uuid4)
    leases: dict[UUID, Held] = field(default_factory=dict)
    log: list[Any] = field(default_factory=list)
    first: bool = True


@dataclass
class Fleet:
    """Everything that happens, and what must hold after each step."""

    exchange: Callable[..., Any]
    store: UsageStore
    claim: Callable[..., Any]
    database: Any
    operator: Any
    editor: Any
    key: str
    budget: UUID
    move: Callable[[int], None]
    chance: random.Random
    alive: dict[str, Process] = field(default_factory=lambda: {gateway: Process(gateway) for gateway in GATEWAYS})
    dead: list[Process] = field(default_factory=list)
    spent: int = 0  # by every process there ever was, and not lost with its disk
    unrecorded: int = 0  # spent by processes whose disk is gone

    async def message(self, process: Process, *, want: int | None = None, close: bool = False, lost: bool = False) -> None:
        """Report all leases, perhaps close them and want more; the answer may be lost."""
        closing = list(process.leases) if close else []
        reports = [(id, held.spent, 0, id in closing) for id, held in process.leases.items()]
        shipped = [each.id for each in self.dead if each.gateway == process.gateway and not each.log]
        requested = {} if want is None else {self.budget: want}
        for id in closing:  # it spends nothing more from before it says so
            process.leases.pop(id)
        answer = await self.exchange(
            process.gateway, process.id, requested=requested, reports=reports, shipped=shipped, first=process.first
        )
        process.first = lost
        if lost:
            return
        for grant in answer.grants:
            if grant.lease not in process.leases and grant.lease not in closing:  # granted late, there is nothing to use, only to close
                process.leases[grant.lease] = Held(grant.amount_nano, usable=grant.valid_ms > 0)

    def spend(self, process: Process, part: float) -> None:
        """A call takes from one or two leases and is recorded."""
        uses = []
        for id, held in [each for each in process.leases.items() if each[1].usable][:2]:
            nano = int((held.amount - held.spent) * part)
            held.spent += nano
            self.spent += nano
            uses.append((str(id), nano))
        if uses:
            process.log.append(
                self.claim(self.editor, self.key, gateway_id=process.gateway, process_id=str(process.id), lease_uses=tuple(uses))
            )

    def crash(self, gateway: str, *, disk: bool) -> None:
        """kill -9; with its disk, what it had not shipped is gone."""
        died = self.alive[gateway]
        self.alive[gateway] = Process(gateway)
        if disk:
            lost = sum(nano for record in died.log for _, nano in record.lease_uses)
            self.spent, self.unrecorded = self.spent - lost, self.unrecorded + lost
        else:
            self.dead.append(died)

    async def ship(self, gateway: str) -> None:
        """Ship what the logs of a gateway hold, some of it twice and at once."""
        logs = [process.log for process in (self.alive[gateway], *self.dead) if process.gateway == gateway and process.log]
        for log in logs:
            part = log[: self.chance.randint(1, len(log))]
            await asyncio.gather(self.store.store(gateway, part), self.store.store(gateway, part[:1]))
            del log[: len(part)]

    async def write_off(self) -> None:
        """An operator closes what is past its deadline and of nobody who lives or whose log may still come."""
        known = {process.id for process in (*self.alive.values(), *self.dead)}
        async with self.database.tenant(self.operator.identity) as session:
            rows = await session.rows("select * from tenon.lease where budget_id = :b and state = 'open'", {"b": self.budget})
        for row in rows:
            if row["process_id"] not in known and row["deadline"] < clock.now():
                async with self.database.tenant(self.operator.identity) as session:
                    await write_off(session, self.operator, self.budget, row["id"], None)

    async def step(self, kind: str) -> None:
        gateway = self.chance.choice(GATEWAYS)
        process = self.alive[gateway]
        match kind:
            case "want":
                await self.message(process, want=self.chance.choice([0, 1, 50, 300, 900]), lost=self.chance.random() < 0.2)
            case "both":
                await asyncio.gather(*(self.message(each, want=self.chance.choice([100, 700])) for each in self.alive.values()))
            case "spend":
                self.spend(process, self.chance.choice([0.1, 0.5, 1.0]))
            case "close":
                await self.message(process, close=True, lost=self.chance.random() < 0.2)
            case "crash":
                self.crash(gateway, disk=self.chance.random() < 0.3)
            case "ship":
                await self.ship(gateway)
            case "wait":
                self.move(self.chance.choice([1, 61]))
            case "write_off":
                await self.write_off()
            case "rush":  # everything at once, on as many connections
                other = self.alive[GATEWAYS[1 - GATEWAYS.index(gateway)]]
                self.spend(process, 0.5)
                await asyncio.gather(self.message(process, close=True), self.message(other, want=400), self.ship(other.gateway))
            case "lie":  # one gateway reports another's leases, and that its running process is gone
                foreign = [(id, 0, 0, True) for each in self.alive.values() if each is not process for id in each.leases]
                others = [each.id for each in (*self.alive.values(), *self.dead) if each.gateway != gateway]
                await self.exchange(gateway, process.id, reports=foreign, shipped=others)

    async def check(self) -> None:
        async with self.database.tenant(self.operator.identity) as session:
            period = await session.row(
                "select counted_nano, overdraft_nano from tenon.budget_period where budget_id = :b", {"b": self.budget}
            )
            rows = await session.rows("select * from tenon.lease where budget_id = :b", {"b": self.budget})
            recorded = await session.scalar(
                "select coalesce(sum((u->>'nano')::bigint), 0) from tenon.usage_record r, jsonb_array_elements(r.lease_uses) u"
                " where (u->>'lease')::uuid = any(:leases)", {"leases": [row["id"] for row in rows]},
            )  # fmt: skip
        leases = [lease_of(row) for row in rows]
        assert recorded <= AMOUNT, "the records"
        assert self.spent <= AMOUNT, "what was spent, recorded here or not yet"
        assert sum(lease.counted_nano for lease in leases) == (period["counted_nano"] if period else 0) <= AMOUNT
        assert (period["overdraft_nano"] if period else 0) == 0
        assert sum(lease.recorded_nano for lease in leases) == recorded
        for process in (*self.alive.values(), *self.dead):
            for id, held in process.leases.items():
                (lease,) = [lease for lease in leases if lease.id == id]
                assert held.spent <= lease.counted_nano


KINDS = ["want", "want", "want", "spend", "spend", "spend", "close", "crash", "ship", "ship", "wait", "write_off", "both", "rush", "lie"]


# Shrinking would repeat thousands of transactions; the seed and the steps say enough.
@settings(
    max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(KINDS), min_size=15, max_size=40))
async def test_a_hard_budget_is_never_overspent(
    exchange, login, claim, database, tenant_a, make_budget, issue_key, monkeypatch, seed: int, steps: list[str]
) -> None:
    operator, editor = tenant_a.context("operator"), tenant_a.context("editor")
    key = await issue_key(operator, editor)
    real, moved = clock.now, [timedelta()]
    with monkeypatch.context() as patched:
        patched.setattr(clock, "now", lambda: real() + moved[0])

        def move(seconds: int) -> None:
            moved[0] += timedelta(seconds=seconds)

        fleet = Fleet(
            exchange, UsageStore(login("usage")), claim, database, operator, editor, key.key_id, await make_budget(operator, AMOUNT), move,
            random.Random(seed),
        )  # fmt: skip
        for step in steps:
            await fleet.step(step)
            await fleet.check()
        await _all_comes_back(fleet)


async def _all_comes_back(fleet: Fleet) -> None:
    """When every process has closed, every log is shipped and what is lost is written off, nothing is held any more."""
    for process in fleet.alive.values():
        for each in (process, *fleet.dead):
            while each.log:
                await fleet.ship(each.gateway)
        await fleet.message(process)  # what a lost answer granted is sent again
        await fleet.message(process, close=True)
    fleet.move(120)
    await fleet.write_off()
    await fleet.check()
    async with fleet.database.tenant(fleet.operator.identity) as session:
        held = await session.scalar("select count(*) from tenon.lease where budget_id = :b and state = 'open'", {"b": fleet.budget})
    assert held == 0
