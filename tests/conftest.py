"""What crosses processes is tested on a whole installation: `tenon up` with the airline data, in a state directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tenon.kit.settings import Settings, load_settings
from tests.otlp_collector import Collector
from tools.testing.cleaner import Cleaner
from tools.testing.ports import free_port

ROOT = Path(__file__).parents[1]
TENON = ROOT / ".venv" / "bin" / "tenon"
LISTEN = ("API", "SYNC", "WORKER", "GATEWAY", "GATEWAY_GRPC", "GATEWAY_ADMIN", "ENGINE")


@cache
def cleaner() -> Cleaner:
    """What removes stacks when this run is killed; started with the first stack."""
    return Cleaner()


@dataclass
class Stack:
    """A running installation, or one that a test starts and stops itself."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def fresh(cls) -> Stack:
        """A state directory of its own (which PostgreSQL's user can enter when we are root) and free ports."""
        directory = Path(tempfile.mkdtemp(prefix="tenon-e2e-"))
        directory.chmod(0o755)
        cleaner().remember("folder", str(directory))  # a killed run leaves neither processes nor the folder behind
        environment = {"TENON_STATE_DIR": str(directory / "state"), "TENON_POSTGRES_PORT": str(free_port())}
        environment |= {f"TENON_{name}_LISTEN": f"127.0.0.1:{free_port()}" for name in LISTEN}
        return cls(directory, environment)

    def tenon(self, *arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a `tenon` command for this installation."""
        completed = subprocess.run(
            [str(TENON), *arguments], env=os.environ | self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert not check or completed.returncode == 0, completed.stdout + completed.stderr + self.logs_tail()
        return completed

    def logs_tail(self) -> str:
        """The end of every log, for a failing test's reader."""
        folder = self.directory / "state" / "logs"
        return "".join(f"\n== {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in sorted(folder.glob("*.log")))

    @property
    def settings(self) -> Settings:
        return load_settings(self.directory / "state" / "tenon.json")

    @property
    def keys(self) -> dict[str, str]:
        """The demo tenant's keys: viewer, editor, approver, operator, agent."""
        keys: dict[str, str] = json.loads((self.directory / "state" / "demo.json").read_text())
        return keys

    @property
    def superuser_conninfo(self) -> str:
        """To read what the API does not show; a test changes nothing with it."""
        password = (self.directory / "state" / "postgres" / "superuser.password").read_text()
        database = self.settings.database
        return f"host=127.0.0.1 port={database.port} dbname={database.name} user=postgres password='{password}'"

    def client(self, key: str | None, base: str | None = None) -> httpx2.Client:
        """An HTTP client of the API with a key."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(base_url=base or f"http://{self.settings.api_listen}", headers=headers, timeout=60)

    def remove(self) -> None:
        """Stop whatever runs and remove everything."""
        self.tenon("down", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        if not self.directory.exists():
            cleaner().forget(str(self.directory))


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the installation sends its spans."""
    receiver = Collector()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def stack(collector: Collector) -> Iterator[Stack]:
    """One installation with the demo tenant and the airline data for all tests that only use it."""
    running = Stack.fresh()
    running.environment["TENON_OTLP_ENDPOINT"] = collector.address
    try:
        running.tenon("up", "--detach")
        yield running
    finally:
        running.remove()


@pytest.fixture
def viewer(stack: Stack) -> Iterator[httpx2.Client]:
    with stack.client(stack.keys["viewer"]) as client:
        yield client


def answer(response: httpx2.Response) -> Any:
    """The JSON of an answer that must be good."""
    assert response.is_success, f"{response.status_code} {response.text}"
    return response.json()
