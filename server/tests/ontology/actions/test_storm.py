"""The storm days on the real flights of 8 and 9 February 2013, without REST (tests/e2e/test_storm_cancellation.py has them): about a minute."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from actions_tenant import ActionsTenant, create_actions_tenant
from test_stale import approved, execute

from tenon.kit.settings import Settings
from tenon.ontology import ingestion

AIRLINE = Path(__file__).parents[4] / "examples" / "airline"
STORM = {"from": "2013-02-08T05:00:00Z", "until": "2013-02-10T05:00:00Z", "reason": "Blizzard"}
pytestmark = pytest.mark.slow


@pytest.fixture
async def year(login: Any, tenant_a: Any, settings: Settings, tmp_path: Path) -> ActionsTenant:
    """The whole year, loaded."""
    sys.path.insert(0, str(AIRLINE))
    import fetch

    tenant = await create_actions_tenant(login, tenant_a)
    folders = ingestion.LoadFolders(await asyncio.to_thread(fetch.fetch), tmp_path / "work", tmp_path / "rejects")
    reports = await ingestion.load_all(login("ingest"), tenant.context("operator"), (AIRLINE / "mapping.yaml").read_text(), folders)
    assert sum(report.accepted for report in reports) > 360_000
    return tenant


async def test_the_storm_is_cancelled_and_taken_back(year: ActionsTenant, capsys: pytest.CaptureFixture[str]) -> None:
    start = await year.business_hash()
    sizes = {}
    for airport in ("JFK", "LGA", "EWR"):
        began = time.perf_counter()
        proposal = await year.propose("cancel_departures", airport={"code": airport}, **STORM)
        proposed = time.perf_counter() - began
        assert await year.business_hash() == start
        began = time.perf_counter()
        executed = await year.approve(proposal)
        sizes[airport] = (proposal["summary"]["objects"], round(proposed, 3), round(time.perf_counter() - began, 3))
        assert executed["state"] == "executed"
        assert executed["diff"] == proposal["diff"]
        await _holds(year, executed)
        inverse = await year.approve(await year.roll_back(executed))
        assert inverse["state"] == "executed", inverse["reason"]
        assert await year.business_hash() == start
    assert sum(size for size, _, _ in sizes.values()) > 500
    with capsys.disabled():
        print({airport: f"{size} objects, propose {p} s, approve and execute {e} s" for airport, (size, p, e) in sizes.items()})

    # Something in between: the same flight delayed by somebody else; then one of two cancellations of the same window.
    storm = await approved(year, await year.propose("cancel_departures", airport={"code": "JFK"}, **STORM))
    twin = await approved(year, await year.propose("cancel_departures", airport={"code": "JFK"}, **STORM))
    flight = next(change["id"] for change in storm["diff"] if change["type"] == "flight")
    delay = await year.approve(await year.propose("delay_flight", flight=flight, minutes=77, notice="Wait."))
    assert (await execute(year, storm))["reason"]["code"] == "diff_changed"
    await year.approve(await year.roll_back(delay))
    both = await asyncio.gather(execute(year, twin), execute(year, await approved(year, await _again(year))))
    assert sorted(each["state"] for each in both) == ["executed", "stale"]


async def _again(year: ActionsTenant) -> dict[str, Any]:
    return await year.propose("cancel_departures", airport={"code": "JFK"}, **STORM)


async def _holds(year: ActionsTenant, executed: dict[str, Any]) -> None:
    """Every changed object now has exactly the values of the diff."""
    for change in executed["diff"][::10]:
        row = await year.read(change["type"], UUID(change["id"])) or {}
        for name, value in change["after"].items():
            stored = row[name]
            assert (stored.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if hasattr(stored, "strftime") else stored) == value
