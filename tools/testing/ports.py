"""Ports of loopback for servers that tests start: no two test processes ever hold the same one.

A port that was free a moment ago may be taken by the time a server binds it: by another test, or by the kernel for an outgoing connection.
So ports come from below the kernel's own range, and each is locked by a file for as long as the process that drew it lives.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Below 32,768: the kernel gives those above to outgoing connections and to sockets bound to port 0.
# NVIDIA Dynamo also reads a port into sixteen signed bits.
FIRST, LAST = 15_000, 32_000
_FOLDER = Path(tempfile.gettempdir()) / f"tenon-ports-{os.getuid()}"
_draw = random.Random()
_locks: list[int] = []  # open until the process ends: closing a descriptor gives its port back


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on and that no other test process draws before this one ends."""
    _FOLDER.mkdir(exist_ok=True)
    for port in _draw.sample(range(FIRST, LAST), LAST - FIRST):
        lock = os.open(_FOLDER / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended long ago do not count
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _locks.append(lock)
        return port
    raise RuntimeError(f"no free port between {FIRST} and {LAST}")
