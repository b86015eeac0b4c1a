"""Cleans up after a test run, however the run ends: a process of its own that outlives a killed one.

Whoever starts it holds its standard input and writes lines: `folder PATH` or `mark TEXT` to remember, `done TEXT` to forget. When the input
ends, the run is over. Every process that still names one of them in its command line or environment is stopped; folders are removed.

    cleaner = Cleaner()
    cleaner.remember("folder", "/tmp/tenon-e2e-x1")
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE_SECONDS = 10.0


class Cleaner:
    """The end that a test run holds."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C reaches the run, not its cleaner.
        command = [sys.executable, str(Path(__file__).resolve())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def remember(self, what: str, name: str) -> None:
        """`what` is `folder` or `mark`; a mark is a text in the environment of processes. Remember it before they start."""
        self._write(f"{what} {name}")

    def forget(self, name: str) -> None:
        """The run has removed it itself."""
        self._write(f"done {name}")

    def close(self) -> None:
        """Clean up now what is left, and wait for it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def processes_naming(text: str) -> list[int]:
    """Ids of all processes with this text in their command line or environment, ourselves left out."""
    mark, named = os.fsencode(text), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes():
                named.append(int(entry.name))
    return named


def stop_processes(text: str) -> None:
    """Ask each process that names it to end, insist after the grace period."""
    deadline = time.monotonic() + GRACE_SECONDS
    for pid in processes_naming(text):
        with suppress(OSError):
            os.kill(pid, signal.SIGCONT)  # a test may have stopped it
            os.kill(pid, signal.SIGTERM)
    while (left := processes_naming(text)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Listen until the run ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    remembered: dict[str, str] = {}
    for line in sys.stdin:
        what, _, name = line.strip().partition(" ")
        if what == "done":
            remembered.pop(name, None)
        else:
            remembered[name] = what
    # Marks first: a test runner that still lives would start again what we stop.
    for name, what in sorted(remembered.items(), key=lambda item: item[1] != "mark"):
        stop_processes(name)
        if what == "folder":
            shutil.rmtree(name, ignore_errors=True)


if __name__ == "__main__":
    main()
