"""`python -m tenon.entrypoints.api`: serve the API."""

from __future__ import annotations

import uvicorn

from tenon.entrypoints.api.app import build
from tenon.kit import telemetry
from tenon.kit.settings import load_settings

# Open event streams would delay the exit without end; they are asked to end, and closed when they do not.
STOP_SECONDS_MAX = 5


def main() -> None:
    settings = load_settings()
    telemetry.configure("api", settings)
    host, _, port = settings.api_listen.rpartition(":")
    uvicorn.run(
        build(settings), host=host, port=int(port), http="httptools", loop="uvloop", access_log=False, log_config=None, log_level="warning",
        timeout_graceful_shutdown=STOP_SECONDS_MAX, server_header=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
