"""A background loop: runs a task again and again, backs off when it fails, ends when the process stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from tenon.kit import clock, telemetry

RUNS = Counter("tenon_worker_runs_total", "Runs of a background task.", ["task", "outcome"])
LAST_SUCCESS = Gauge("tenon_worker_last_success_unix_seconds", "When a background task last succeeded.", ["task"])
BACKOFF_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Loop:
    """`task` returns how much it did; after a run that did nothing the loop rests for `poll_interval_seconds`, else it runs again at once."""

    name: str
    task: Callable[[], Awaitable[int]]
    poll_interval_seconds: float

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until `stopping` is set; a failing task is logged, counted and tried again, later each time."""
        backoff = self.poll_interval_seconds
        while not stopping.is_set():
            try:
                done = await self.task()
            except Exception:
                telemetry.logger().exception("worker.task_failed", task=self.name)
                RUNS.labels(self.name, "failed").inc()
                backoff = min(max(backoff * 2, 0.2), BACKOFF_SECONDS_MAX)
                await _pause(stopping, backoff)
                continue
            backoff = self.poll_interval_seconds
            RUNS.labels(self.name, "succeeded").inc()
            LAST_SUCCESS.labels(self.name).set(clock.now().timestamp())
            await _pause(stopping, 0 if done else self.poll_interval_seconds)


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than the process lives."""
    try:
        await asyncio.wait_for(stopping.wait(), max(seconds, 0.001))
    except TimeoutError:
        return
