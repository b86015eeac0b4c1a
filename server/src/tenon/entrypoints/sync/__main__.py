"""`python -m tenon.entrypoints.sync`: serve the gateways until SIGTERM."""

from __future__ import annotations

import asyncio
import signal

from tenon.entrypoints.sync.server import serving
from tenon.kit import telemetry
from tenon.kit.settings import load_settings


async def run() -> None:
    settings = load_settings()
    telemetry.configure("sync", settings)
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with serving(settings) as port:
        telemetry.logger().info("sync.started", port=port)
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(run())
