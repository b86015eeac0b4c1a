"""A hard budget is never overspent: three gateways spend it at once while they are killed, stopped, cut off, and their control plane goes away.

Two truths are compared with the budget: what the upstream used for every call it answered, whoever still received the answer, and what the
stored records charge. TENON_BUDGET_SECONDS sets how long the trouble lasts.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from tests.canned_upstream import Canned, canned_upstream
from tests.conftest import Stack, answer
from tests.gateway_process import Gateway
from tests.supervised_processes import supervised

SECONDS = float(os.environ.get("TENON_BUDGET_SECONDS", "20"))
GATEWAYS = 3
CALLERS = 5  # at each gateway
OUTPUT_MAX = 40
# Nano-units a token: a call costs up to 7 × 1,000 + 40 × 5,000 + 1,000.
INPUT, OUTPUT, CALL = 1_000, 5_000, 1_000
AMOUNT = 300_000_000
SPENT = "budget_exhausted"
# All codes that callers may receive in trouble: a lease is spent and the control plane is away, or what remains is leased to another gateway.
EXPECTED = {"ok", SPENT, "budget_lease_unavailable"}


@dataclass
class BudgetScenario:
    """A priced model with a hard budget, its upstream, and the gateways that spend it."""

    stack: Stack
    upstream: Canned
    operator: httpx2.Client
    model: str
    budget: str
    gateways: list[Gateway] = field(default_factory=list)

    def spent_upstream(self) -> int:
        """What every call that the upstream answered really cost."""
        return sum(into * INPUT + out * OUTPUT + CALL for into, out in self.upstream.used)

    def state(self) -> dict[str, Any]:
        return dict(answer(self.operator.get(f"/v1/budgets/{self.budget}"))["state"])

    def open_leases(self) -> list[dict[str, Any]]:
        leases = answer(self.operator.get(f"/v1/budgets/{self.budget}/leases"))["leases"]
        return [lease for lease in leases if lease["state"] == "open"]

    def charged(self) -> tuple[int, int]:
        """What the stored records of the model took from leases, and how many records there are."""
        query = """
            select coalesce(sum((use ->> 'nano')::bigint), 0), count(distinct record_id) from tenon.usage_record
            left join lateral jsonb_array_elements(coalesce(lease_uses, '[]')) use on true where model = %s
        """
        with psycopg.connect(self.stack.superuser_conninfo) as connection:
            row = connection.execute(query, [self.model]).fetchone()
        assert row
        return int(row[0]), int(row[1])


def _send(client: httpx2.Client, method: str, path: str, body: Any) -> Any:
    return answer(client.request(method, path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())}))


@pytest.fixture
def scenario(stack: Stack, tmp_path: Path) -> Iterator[BudgetScenario]:
    with canned_upstream() as upstream, stack.client(stack.keys["operator"]) as operator:
        model = f"priced-{uuid.uuid4().hex[:8]}"
        endpoint = _send(operator, "POST", "/v1/inference/endpoints", {"name": model, "base_url": f"http://{upstream.address}/v1"})["id"]
        _send(operator, "PUT", f"/v1/inference/models/{model}", {"routes": [{"endpoint": endpoint}]})
        price = {"model": model, "currency": "EUR", "input_nano_per_million": INPUT * 10**6, "output_nano_per_million": OUTPUT * 10**6}
        _send(operator, "POST", "/v1/prices", price | {"request_nano": CALL})
        budget_body = {"subject": "model", "subject_id": model, "mode": "hard", "currency": "EUR", "amount_nano": AMOUNT}
        budget = _send(operator, "POST", "/v1/budgets", budget_body)["id"]
        scenario = BudgetScenario(stack, upstream, operator, model, budget)
        try:
            for number in range(GATEWAYS):
                scenario.gateways.append(Gateway(stack, tmp_path / f"gateway-{number}").start())
            yield scenario
        finally:
            for gateway in scenario.gateways:
                gateway.close()


@dataclass
class Callers:
    """Callers who call all gateways until they are stopped."""

    scenario: BudgetScenario
    stop: threading.Event = field(default_factory=threading.Event)
    answers: Counter[str] = field(default_factory=Counter)

    async def _caller(self, gateway: Gateway, key: str) -> None:
        body = {"model": self.scenario.model, "max_tokens": OUTPUT_MAX, "messages": [{"role": "user", "content": "hello"}]}
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=5) as client:
            while not self.stop.is_set():
                try:
                    response = await client.post(f"http://{gateway.listen}/v1/chat/completions", json=body)
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                self.answers["ok" if response.is_success else str(response.json()["error"]["code"])] += 1
                await asyncio.sleep(0.01 if response.is_success else 0.1)

    async def _all(self) -> None:
        key = self.scenario.stack.keys["editor"]
        await asyncio.gather(*(self._caller(gateway, key) for gateway in self.scenario.gateways for _ in range(CALLERS)))

    def run(self) -> threading.Thread:
        thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        thread.start()
        return thread


def _kill(scenario: BudgetScenario, draw: random.Random) -> None:
    gateway = draw.choice(scenario.gateways)
    gateway.kill()
    gateway.start()


def _pause(scenario: BudgetScenario, draw: random.Random) -> None:
    """Stopped as a machine is when it is moved: its clock goes on, it does not."""
    gateway = draw.choice(scenario.gateways)
    gateway.signal(signal.SIGSTOP)
    time.sleep(draw.uniform(0.5, 2.0))
    gateway.signal(signal.SIGCONT)


def _cut_off(scenario: BudgetScenario, draw: random.Random) -> None:
    """The control plane neither reads nor answers for a while."""
    pid = supervised(scenario.stack, "sync")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(draw.uniform(0.5, 3.0))
    os.kill(pid, signal.SIGCONT)


def _control_plane_dies(scenario: BudgetScenario, draw: random.Random) -> None:
    """Killed; the supervisor starts it again."""
    os.kill(supervised(scenario.stack, "sync"), signal.SIGKILL)
    time.sleep(draw.uniform(0.5, 1.5))


def _trouble(scenario: BudgetScenario, seconds: float) -> list[str]:
    """What happened, in order. The control plane is killed twice: its supervisor gives up on what dies too often."""
    draw, done = random.Random(20130208), list[str]()
    troubles: list[Callable[[BudgetScenario, random.Random], None]] = [_kill, _kill, _pause, _cut_off]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        dies = done.count("_control_plane_dies") < 2 and len(done) % 5 == 3
        trouble = _control_plane_dies if dies else draw.choice(troubles)
        trouble(scenario, draw)
        done.append(trouble.__name__)
        time.sleep(draw.uniform(0.05, 0.4))
    return done


def _wait(what: str, ready: Callable[[], bool], seconds: float = 60, *, check: bool = True) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            assert not check, what
            return
        time.sleep(0.2)


def _give_back(scenario: BudgetScenario) -> None:
    """Every gateway ends in good order. What one could not say any more is known when it has started again and shipped its log."""
    for attempt in range(3):
        for gateway in scenario.gateways:
            gateway.stop()
        _wait("nothing is leased", lambda: not scenario.open_leases(), 20, check=False)
        if not (left := scenario.open_leases()):
            return
        print(f"left open after stop {attempt + 1}: {left}")
        for gateway in scenario.gateways:
            gateway.start()


def test_a_hard_budget_is_never_overspent(scenario: BudgetScenario) -> None:
    callers = Callers(scenario)
    thread = callers.run()
    happened = _trouble(scenario, SECONDS)
    assert scenario.spent_upstream() <= AMOUNT, "spent in the middle of trouble"
    _wait("every gateway is ready again", lambda: all(gateway.readiness() == "ready" for gateway in scenario.gateways))
    trouble, callers.answers = callers.answers, Counter()
    # What killed gateways held comes back when their logs are shipped; then the callers spend it, to the end.
    _wait("the budget is spent to its end", lambda: callers.answers[SPENT] > 10 * GATEWAYS * CALLERS, 90)
    callers.stop.set()
    thread.join(20)
    for gateway in scenario.gateways:
        _wait("all is shipped", lambda gateway=gateway: gateway.metric("tenon_gateway_wal_backlog_records") == 0)  # type: ignore[misc]
    _give_back(scenario)
    state, (charged, records) = scenario.state(), scenario.charged()
    print(f"{happened} · answers in trouble {trouble}, after it {callers.answers} · {records} records")
    print(f"budget {AMOUNT:,}, charged {charged:,}, upstream {scenario.spent_upstream():,}, state {state}")
    assert set(trouble) | set(callers.answers) <= EXPECTED
    assert not scenario.open_leases(), "every lease is closed"
    assert charged <= AMOUNT
    assert scenario.spent_upstream() <= AMOUNT
    assert scenario.spent_upstream() <= charged, "a call that was answered and not charged"
    assert state["spent_nano"] == charged
    assert state["remaining_nano"] == AMOUNT - charged
    assert state["overdraft_nano"] == 0
    assert state["remaining_nano"] < AMOUNT // 20
