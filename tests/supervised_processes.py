"""The processes of a running installation, looked up by their parent, so that a test stops one of its own and no other's."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Stack


def supervised(stack: Stack, name: str) -> int:
    """The process id of the supervisor's child whose command names `name`."""
    (supervisor,) = [path.read_text() for path in (stack.directory / "state").glob("*.lock")]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = (entry / "stat").read_text().rsplit(") ", 1)[1].split()[1]
            command = (entry / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if parent == supervisor.strip() and any(part.rsplit(".", 1)[-1] == name or part == name for part in command):
            return int(entry.name)
    raise AssertionError(f"no process {name} under the supervisor {supervisor}")
