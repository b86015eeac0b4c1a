"""The supervisor's readiness checks."""

from __future__ import annotations

import socket
import threading

from tenon.entrypoints.cli.processes import answers


def test_whatever_does_not_speak_http_is_not_ready() -> None:
    """A check of a free local port can connect to itself and read its own request."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(4096))

        thread = threading.Thread(target=echo)
        thread.start()
        assert answers(f"http://127.0.0.1:{server.getsockname()[1]}/readyz")() is False
        thread.join()
