"""`tenon gateway`: look before a start, and restart without losing a call. The gateway's own binary does the work."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from tenon.entrypoints.cli import installation as installations
from tenon.entrypoints.cli.up import console, gateway_binary, gateway_environment, gateway_process, running
from tenon.kit.errors import TenonError
from tenon.kit.settings import load_settings

RESTART_SECONDS_MAX = 60


def query_gateway(argument: str) -> int:
    """Run the gateway's binary with this argument and the environment that a start would have; its exit code."""
    installation = installations.locate()
    try:
        environment = gateway_environment(installation, load_settings(installation.config_file))
        return subprocess.run([str(gateway_binary()), argument], env={**os.environ, **environment}, check=False).returncode
    except TenonError as error:
        console.print(error.message, highlight=False)
        return 1


def restart() -> int:
    """Have the supervisor start a successor, and wait until it serves; the exit code."""
    installation = installations.locate()
    supervisor = running(installation)
    if supervisor is None:
        console.print("Tenon is not running here.")
        return 1
    settings = load_settings(installation.config_file)
    before = gateway_process(settings)
    os.kill(supervisor, signal.SIGUSR1)
    deadline = time.monotonic() + RESTART_SECONDS_MAX
    while time.monotonic() < deadline:
        now = gateway_process(settings)
        if now is not None and now != before:
            console.print(f"The gateway is process {now} now; {before} finishes what it began.", highlight=False)
            return 0
        time.sleep(0.1)
    console.print(f"No successor took over; the gateway that ran goes on. Look at {installation.logs / 'gateway.log'}.", highlight=False)
    return 1
