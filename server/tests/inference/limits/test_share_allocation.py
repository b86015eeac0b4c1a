"""The shares of a limit never add up to more than it, whatever is lost, late, repeated or restarted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from tenon.inference.limits.contracts import Demand, ShareRequest
from tenon.inference.limits.share_allocation import NOTHING, Amounts, ProcessShare, allocate, first_share, ideal_shares, with_message

START = datetime(2026, 11, 21, tzinfo=UTC)
LIMIT = uuid4()


@given(st.integers(1, 10**6), st.lists(st.floats(0, 1e9), min_size=1, max_size=12))
def test_ideal_shares_add_up_to_the_limit_and_nobody_is_below_the_floor(limit: int, demand_rates: list[float]) -> None:
    parts, floor = ideal_shares(limit, demand_rates)
    assert sum(parts) == limit
    assert min(parts) >= floor == limit // (4 * len(demand_rates))


@dataclass
class Process:
    """A gateway's process: goes by the newest share it has applied, until that has run out by its own clock. A call that runs goes on."""

    id: UUID = field(default_factory=uuid4)
    stream: UUID = field(default_factory=uuid4)
    number: int = 0
    applied: int = 0
    share: Amounts = NOTHING
    valid_until: datetime = START
    running: int = 0
    requests: list[tuple[ShareRequest, Demand, datetime]] = field(default_factory=list)  # on their way up
    answers: list[tuple[int, Amounts, datetime]] = field(default_factory=list)  # on their way down

    def goes_by(self, now: datetime) -> Amounts:
        share = self.share if now < self.valid_until else NOTHING
        return share[0], share[1], max(share[2], self.running)


class Fleet:
    """The server's side is the pure rule over a store; messages are queues that may stop, be cut or be answered late."""

    def __init__(self, limit: Amounts, processes: int) -> None:
        self.now, self.limit = START, Amounts(*limit)
        self.store: dict[UUID, ProcessShare] = {}
        self.processes = [Process() for _ in range(processes)]

    def step(self, kind: str, which: int, size: int) -> None:
        """Something happens to one process, or time goes on."""
        process = self.processes[which % len(self.processes)]
        match kind:
            case "write":
                self.write(process, size)
            case "serve":
                self.serve(process)
            case "apply":
                self.apply(process)
            case "unapplied":  # answered, and the answer is still on its way
                self.write(process, size)
                self.serve(process)
            case "talk":
                self.write(process, size)
                while process.requests:
                    self.serve(process)
                while process.answers:
                    self.apply(process)
            case "cut":  # what is on its way is lost, a new stream begins
                process.stream, process.number, process.applied = uuid4(), 0, 0
                process.requests, process.answers = [], []
            case "restart":  # kill -9: its calls end; what it had lapses
                self.processes[which % len(self.processes)] = Process()
            case "call":
                if self.now < process.valid_until:
                    process.running = max(process.running, min(process.running + size, process.share[2]))
            case "hang up":
                process.running = max(0, process.running - size)
            case "wait":
                self.wait(timedelta(milliseconds=[1, 300, 1_000, 1_000, 1_000, 2_500, 5_000, 61_000][size % 8]))

    def write(self, process: Process, size: int) -> None:
        process.number += 1
        request = ShareRequest("gw", process.id, process.stream, process.number, process.applied)
        demand = Demand(LIMIT, size * 5, size * 5, max(size, process.running), process.running)
        process.requests.append((request, demand, self.now))

    def serve(self, process: Process) -> None:
        """The control plane reads the oldest message and answers."""
        if not process.requests:
            return
        request, demand, sent = process.requests.pop(0)
        live = {id: part for id, part in self.store.items() if part.lapses_at > self.now}
        before = live.get(process.id) or first_share(request, self.now)
        others = [part for id, part in live.items() if id != process.id]
        after = allocate(self.limit, with_message(before, demand, request, self.now), others, request, self.now)
        self.store = live | {process.id: after}
        process.answers.append((request.number, after.granted, sent + timedelta(milliseconds=after.valid_ms)))

    def apply(self, process: Process) -> None:
        if process.answers:
            process.applied, process.share, process.valid_until = process.answers.pop(0)

    def wait(self, time: timedelta) -> None:
        """A process whose share has run out has no calls in this model, and says nothing old: they are not bounded (docs/reference/limits)."""
        self.now += time
        for process in self.processes:
            if self.now >= process.valid_until:
                process.running, process.requests = 0, []

    def check(self) -> None:
        live = [part for part in self.store.values() if part.lapses_at > self.now]
        for dimension in range(3):
            assert sum(part.held[dimension] for part in live) <= self.limit[dimension]
            assert sum(process.goes_by(self.now)[dimension] for process in self.processes) <= self.limit[dimension]


KINDS = ["talk"] * 6 + ["unapplied"] * 3 + ["wait"] * 3 + ["write", "serve", "apply", "cut", "restart", "call", "call", "hang up"]
steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.integers(0, 8)), min_size=30, max_size=60)


@settings(max_examples=400, deadline=None)
@given(limit=st.tuples(st.integers(4, 50), st.integers(0, 50), st.integers(2, 8)), processes=st.integers(2, 3), steps=steps)
def test_the_shares_never_exceed_the_limit(limit: Amounts, processes: int, steps: list[tuple[str, int, int]]) -> None:
    """Neither what the control plane holds to be granted, nor what processes really go by, at any moment of any interleaving."""
    fleet = Fleet(limit, processes)
    for step in steps:
        fleet.step(*step)
        fleet.check()


def _turn(
    store: dict[UUID, ProcessShare], process: UUID, stream: UUID, number: int, now: datetime, limit: Amounts, **demand: int
) -> ProcessShare:
    request = ShareRequest("gw", process, stream, number, number - 1)
    part = with_message(store.get(process) or first_share(request, now), Demand(LIMIT, **demand), request, now)
    store[process] = allocate(Amounts(*limit), part, [other for id, other in store.items() if id != process], request, now)
    return store[process]


def test_what_was_used_of_the_last_minute_is_not_given_to_another() -> None:
    """A process alone has used all of it when a second one comes: that one gets what the first has not used, and the rest as it grows old."""
    store: dict[UUID, ProcessShare] = {}
    first, second, streams = uuid4(), uuid4(), (uuid4(), uuid4())
    now = START
    _turn(store, first, streams[0], 1, now, (100, 0, 0), requests=80)
    for number, used in ((2, 80), (3, 80), (4, 80), (5, 30), (6, 0)):
        now += timedelta(seconds=1)
        kept = _turn(store, first, streams[0], number, now, (100, 0, 0), requests=1, used_requests=used)
        got = _turn(store, second, streams[1], number - 1, now, (100, 0, 0), requests=90)
        assert max(kept.granted[0], used) + got.granted[0] <= 100
    assert got.granted[0] > 50


def test_a_process_alone_has_the_whole_limit_at_once() -> None:
    assert _turn({}, uuid4(), uuid4(), 1, START, (60, 1_000, 4)).granted == (60, 1_000, 4)


def test_an_idle_process_is_not_forgotten_when_the_answer_that_woke_it_is_lost() -> None:
    """It was granted a share for a minute, and goes by that part until then."""
    store: dict[UUID, ProcessShare] = {}
    idle, other, stream = uuid4(), uuid4(), uuid4()
    assert _turn(store, idle, stream, 1, START, (100, 0, 0)).valid_ms == 60_000
    now = START + timedelta(seconds=1)
    assert _turn(store, idle, stream, 2, now, (100, 0, 0), requests=9).valid_ms == 5_000
    now += timedelta(seconds=7)
    assert store[idle].lapses_at > now
    assert _turn(store, other, uuid4(), 1, now, (100, 0, 0), requests=9).granted[0] == 0


def test_a_busy_process_gets_the_part_of_idle_ones_within_seconds() -> None:
    """Three idle and one busy, each writing once a second: the busy one ends with all but the others' floors."""
    store: dict[UUID, ProcessShare] = {}
    ids = [uuid4() for _ in range(4)]
    streams = {id: uuid4() for id in ids}
    now = START
    for second in range(1, 9):
        for id in ids:
            _turn(store, id, streams[id], second, now, (400, 0, 0), requests=100 if id == ids[0] else 0)
        now += timedelta(seconds=1)
    assert store[ids[0]].granted[0] >= 400 - 3 * (400 // 16) - 5
    assert all(store[id].granted[0] >= 400 // 16 for id in ids)


def test_a_newcomer_is_not_starved_by_full_shares() -> None:
    store: dict[UUID, ProcessShare] = {}
    old, new = uuid4(), uuid4()
    streams = {old: uuid4(), new: uuid4()}
    now = START
    for second in range(1, 8):
        for id in (old, new) if second > 3 else (old,):
            _turn(store, id, streams[id], second if id == old else second - 3, now, (100, 0, 10), requests=50, concurrency=8, running=0)
        now += timedelta(seconds=1)
    assert min(store[old].granted[0], store[new].granted[0]) >= 100 // 8
    assert store[new].granted[2] >= 1


def test_concurrency_waits_for_the_calls_that_still_run() -> None:
    """A smaller part is confirmed, but ten calls run on: nobody else may have theirs."""
    store: dict[UUID, ProcessShare] = {}
    busy, other = uuid4(), uuid4()
    streams = {busy: uuid4(), other: uuid4()}
    now = START
    for second in range(1, 7):
        _turn(store, busy, streams[busy], second, now, (0, 0, 10), concurrency=10, running=10)
        if second > 2:
            _turn(store, other, streams[other], second - 2, now, (0, 0, 10), concurrency=10, running=0)
        now += timedelta(seconds=1)
    assert store[busy].granted[2] < 10
    assert store[other].granted[2] == 0
    for second in range(7, 10):
        _turn(store, busy, streams[busy], second, now, (0, 0, 10), concurrency=2, running=2)
        _turn(store, other, streams[other], second - 2, now, (0, 0, 10), concurrency=10, running=0)
        now += timedelta(seconds=1)
    assert store[other].granted[2] >= 4
