"""The worker's care of the outbox: its watermark and epoch, partitions made ahead and dropped after their time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge
from sqlalchemy.engine import RowMapping

from tenon.core.events import service
from tenon.kit import clock, telemetry
from tenon.kit.database import Database
from tenon.kit.errors import ErrorCode, Unavailable
from tenon.kit.settings import Settings

POLL_INTERVAL_SECONDS = 1.0
PARTITION_SECONDS = 600.0
PARTITIONS_AHEAD_DAYS = 3  # every partition costs each read some planning; the default partition catches a worker that was away longer
RETENTION_DAYS = 14
EPOCH = Gauge("tenon_outbox_epoch", "The outbox's epoch; it grows when the database was restored.")
WATERMARK_LAG = Gauge(
    "tenon_outbox_watermark_lag_transactions", "Transactions between the watermark and the newest: what one open one holds back."
)
PARTITIONS = Counter("tenon_outbox_partitions_total", "Daily partitions created and dropped.", ["what"])


class OutboxMaintenance:
    """One run keeps the watermark, and now and then the partitions. The last epoch and transaction id are also kept outside the database."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._path = directory / "outbox.json"
        self._partitions_at = -PARTITION_SECONDS

    async def __call__(self) -> int:
        """0: nothing is ever left waiting."""
        outside = self._outside()
        async with self._database.system() as session:
            state = await service.epoch_state(session)
            following = next_epoch(state, outside)
            if following is not None:
                await service.advance_epoch(session, following, state["found_identifier"])
                telemetry.logger().warning("events.epoch_advanced", epoch=following)
            else:
                await service.keep_watermark(session, state["epoch"], state["lowest"])
        epoch = following or state["epoch"]
        self._keep_outside(epoch, int(state["next_xid"]))
        EPOCH.set(epoch)
        WATERMARK_LAG.set(int(state["next_xid"]) - int(state["lowest"]))
        if time.monotonic() - self._partitions_at >= PARTITION_SECONDS:
            await self._turn_partitions()
        return 0

    async def _turn_partitions(self) -> None:
        today = clock.now().date()
        async with self._database.system() as session:
            created, dropped = await service.turn_partitions(
                session, first=today - timedelta(days=1), days=PARTITIONS_AHEAD_DAYS, before=today - timedelta(days=RETENTION_DAYS)
            )
        self._partitions_at = time.monotonic()
        PARTITIONS.labels("created").inc(created)
        PARTITIONS.labels("dropped").inc(dropped)

    def _outside(self) -> dict[str, Any]:
        if not self._path.exists():
            return {"epoch": 0, "next_xid": 0}
        try:
            kept = json.loads(self._path.read_text())
            return {"epoch": int(kept["epoch"]), "next_xid": int(kept["next_xid"])}
        except (ValueError, KeyError, TypeError):
            raise Unavailable(
                ErrorCode.OUTBOX_STATE_DAMAGED, f"{self._path} is damaged. Remove it only if the database was never restored."
            ) from None

    def _keep_outside(self, epoch: int, next_xid: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}.new")
        temporary.write_text(json.dumps({"epoch": epoch, "next_xid": next_xid}))
        temporary.replace(self._path)


def next_epoch(state: RowMapping | dict[str, Any], outside: dict[str, Any]) -> int | None:
    """The epoch to begin, or None: a new cluster, transaction ids behind what was seen here or outside, or an epoch from the future."""
    same_cluster = state["system_identifier"] == state["found_identifier"]
    seen = max(int(state["watermark"]), outside["next_xid"] if outside["epoch"] >= state["epoch"] else 0)
    if same_cluster and int(state["next_xid"]) >= seen and outside["epoch"] <= state["epoch"]:
        return None
    return int(max(state["epoch"], outside["epoch"])) + 1


def outbox_task(database: Database, settings: Settings) -> Callable[[], Awaitable[int]]:
    """The task for the worker's loop, every POLL_INTERVAL_SECONDS. `database` has login `relay`."""
    return OutboxMaintenance(database, settings.checkpoint_dir)
