"""Child processes of the supervisor: started with a parent-death signal, logged to files, waited for until ready, stopped in order."""

from __future__ import annotations

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tenon.kit.errors import Conflict, ErrorCode, Unavailable

STOP_SECONDS_MAX = 15
READY_SECONDS_MAX = 60
SUCCESSION_SECONDS_MAX = 45  # the gateway itself gives up after 30
_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """One program to keep running. `ready` answers whether it serves."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    ready: Callable[[], bool]
    log_file: Path
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)
    leaving: list[subprocess.Popen[bytes]] = field(default_factory=list)  # succeeded, and finishing what they began

    def succeed(self, serves: Callable[[int], bool]) -> bool:
        """Start a successor beside it, which takes its sockets over; whether it did. The old one goes on when the new one fails."""
        old, deadline = self.process, time.monotonic() + SUCCESSION_SECONDS_MAX
        self.start()
        new = self.process
        while new is not None and new.poll() is None and time.monotonic() < deadline:
            if serves(new.pid):
                self.leaving = [process for process in [*self.leaving, *([old] if old else [])] if process.poll() is None]
                return True
            time.sleep(0.05)
        if new is not None:
            new.kill()
            new.wait()
        self.process = old
        return False

    def start(self) -> None:
        """Start it; its output goes to its log file, appended."""
        self.starts.append(time.monotonic())
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.arguments, env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def wait_until_ready(self) -> None:
        """Return once it serves. Raises Unavailable with the end of its log when it exits or takes too long."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.exited():
                break
            if self.ready():
                return
            time.sleep(0.05)
        tail = "\n".join(self.log_file.read_text(errors="replace").splitlines()[-12:])
        raise Unavailable(ErrorCode.PROCESS_DID_NOT_START, f"{self.name} did not start. The end of {self.log_file}:\n{tail}")

    def exited(self) -> bool:
        """Whether it was started and is gone."""
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> None:
        """Ask it to finish; kill it when it does not."""
        for process in self.leaving:
            process.terminate()
        if self.process is None or self.exited():
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def answers(url: str) -> Callable[[], bool]:
    """A readiness check: 2xx from this URL."""

    def check() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310  (an address of our own configuration)
                return bool(200 <= answer.status < 300)
        except (http.client.HTTPException, OSError):  # no HTTP: a free port can connect to itself
            return False

    return check


def listens(address: str) -> Callable[[], bool]:
    """A readiness check: something accepts connections at host:port."""

    def check() -> bool:
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return True
        except OSError:
            return False

    return check


def require_free(addresses: dict[str, str]) -> None:
    """Raise Conflict naming the first address that somebody else already serves. `addresses`: what for -> host:port."""
    for purpose, address in addresses.items():
        host, _, port = address.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                raise Conflict(
                    ErrorCode.PORT_TAKEN,
                    f"{address}, wanted for {purpose}, cannot be used: {error.strerror}.",
                    repair=f"Stop what uses it (`ss -ltnp 'sport = :{port}'` shows it), or choose another address: {variable_of(purpose)}.",
                ) from None


def variable_of(purpose: str) -> str:
    """The environment variable that moves an address."""
    if purpose == "PostgreSQL":
        return "TENON_POSTGRES_PORT=54330 make up (before the first start)"
    return f"TENON_{purpose.upper().replace(' ', '_')}_LISTEN=127.0.0.1:PORT make up"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
