"""A gateway of a test's own against the installation's control plane: another data directory, other ports, killed and started at will."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from tenon.entrypoints.cli.installation import GATEWAY_ID
from tenon.entrypoints.cli.up import gateway_binary
from tests.conftest import Stack
from tools.testing.ports import free_port

START_SECONDS = 30.0


class Gateway:
    """One gateway process; its log and its addresses outlive it."""

    def __init__(self, stack: Stack, directory: Path, **environment: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        settings = stack.settings
        self.directory = directory
        self.listen, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._environment = os.environ | {
            "TENON_GATEWAY_LISTEN": self.listen, "TENON_GATEWAY_ADMIN_LISTEN": self.admin,
            "TENON_GATEWAY_CONTROL_URL": f"http://{settings.sync_listen}", "TENON_GATEWAY_ID": GATEWAY_ID,
            "TENON_GATEWAY_TOKEN_FILE": str(settings.state_dir / "gateway.token"),
            "TENON_GATEWAY_SEALING_KEY_FILE": str(settings.sealing_key_file), "TENON_GATEWAY_DATA_DIR": str(directory / "data"),
            "TENON_GATEWAY_THREADS": "1",
        } | environment  # fmt: skip
        self._log = (directory / "gateway.log").open("ab")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Gateway:
        """Start it, and wait until it has received the control plane's snapshot."""
        return self._start("ready")

    def start_stale(self) -> Gateway:
        """Start it without a control plane, on what it last received."""
        return self._start("stale")

    def start_listening(self) -> Gateway:
        """Start one that the control plane will refuse."""
        return self._start("not")

    def _start(self, state: str) -> Gateway:
        self.process = subprocess.Popen([str(gateway_binary())], env=self._environment, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.readiness() == state:
                return self
            assert self.process.poll() is None, f"the gateway exited at start\n{self.log()}"
            time.sleep(0.01)
        pytest.fail(f"the gateway did not become {state}\n{self.log()}")

    def readiness(self) -> str:
        """First word of /readyz, or nothing where nobody answers."""
        try:
            return httpx2.get(f"http://{self.admin}/readyz", timeout=2).text.split()[0].rstrip(":")
        except (httpx2.TransportError, IndexError):
            return ""

    def metric(self, name: str) -> float:
        """The value of a metric, labels included in the name as they are printed."""
        for line in httpx2.get(f"http://{self.admin}/metrics", timeout=5).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        pytest.fail(f"no metric {name}")

    def log(self) -> str:
        """The end of what it wrote."""
        return (self.directory / "gateway.log").read_text(errors="replace")[-3000:]

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT and the like."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Ask it to stop; it ships what it has."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self._log.close()

    def client(self, key: str) -> httpx2.Client:
        """An HTTP client with a key."""
        return httpx2.Client(base_url=f"http://{self.listen}", headers={"Authorization": f"Bearer {key}"}, timeout=60)
