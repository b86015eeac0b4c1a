"""`python -m tenon.entrypoints.worker`: run every background loop, and serve /livez and /metrics."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

from prometheus_client import start_http_server

from tenon.entrypoints.worker.tasks import loops
from tenon.kit import telemetry
from tenon.kit.settings import load_settings


async def run() -> None:
    """Until SIGTERM: all loops side by side; one that fails does not stop the others."""
    settings = load_settings()
    telemetry.configure("worker", settings)
    host, _, port = settings.worker_listen.rpartition(":")
    start_http_server(int(port), host)  # answers /metrics at every path, /livez too: the process and its threads live
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with AsyncExitStack() as opened:
        telemetry.logger().info("worker.started")
        async with asyncio.TaskGroup() as group:
            for loop in loops(settings, opened):
                group.create_task(loop.run(stopping))


if __name__ == "__main__":
    asyncio.run(run())
