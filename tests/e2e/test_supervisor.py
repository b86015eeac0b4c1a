"""`tenon up` as a person meets it: starting twice, taken ports, killed parts, Ctrl-C. Without the demo's data, so that it is quick."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tenon.kit.database import embedded
from tests.conftest import TENON, Stack
from tests.supervised_processes import supervised
from tools.testing.ports import free_port


@pytest.fixture
def bare() -> Iterator[Stack]:
    stack = Stack.fresh()
    yield stack
    stack.remove()


def processes_of(stack: Stack) -> list[str]:
    """Command lines of every process that belongs to this installation."""
    commands, marks = [], [str(stack.directory), *stack.environment.values()]
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") if entry.name.isdigit() else ""
            environment = (entry / "environ").read_bytes().decode(errors="replace") if command else ""
        except OSError:
            continue
        if command and str(os.getpid()) != entry.name and (any(mark in command for mark in marks) or str(stack.directory) in environment):
            commands.append(command)
    return commands


def is_gone(stack: Stack, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while processes_of(stack) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes_of(stack)


def test_up_twice_and_down(bare: Stack) -> None:
    first = bare.tenon("up", "--detach", "--no-demo")
    assert "Tenon is up" in first.stdout
    again = bare.tenon("up", "--detach", "--no-demo", check=False)
    assert (again.returncode, "runs here already" in again.stdout, "make down" in again.stdout) == (1, True, True)
    assert "stopped" in bare.tenon("down").stdout
    assert is_gone(bare)
    started = time.monotonic()
    bare.tenon("up", "--detach", "--no-demo")
    assert time.monotonic() - started < 60
    assert "not running" in (bare.tenon("down"), bare.tenon("down"))[1].stdout


def test_ctrl_c_leaves_nothing(bare: Stack) -> None:
    process = subprocess.Popen([str(TENON), "up", "--no-demo"], env=os.environ | bare.environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    process.stdout.close()
    assert is_gone(bare)


@pytest.mark.parametrize("moment_seconds", [0.5, 2.0, 4.0])
def test_a_killed_start_leaves_nothing_and_the_next_one_works(bare: Stack, moment_seconds: float) -> None:
    process = subprocess.Popen([str(TENON), "up", "--no-demo"], env=os.environ | bare.environment, stdout=subprocess.DEVNULL)
    time.sleep(moment_seconds)
    process.kill()
    process.wait()
    assert is_gone(bare)
    bare.tenon("up", "--detach", "--no-demo")


def test_a_taken_port_is_named_with_the_way_out(bare: Stack) -> None:
    host, _, port = bare.environment["TENON_API_LISTEN"].rpartition(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        refused = bare.tenon("up", "--detach", "--no-demo", check=False)
    assert refused.returncode == 1
    assert f"{host}:{port}" in refused.stdout
    assert "TENON_API_LISTEN=" in refused.stdout
    assert is_gone(bare)


def test_a_killed_process_is_started_again(bare: Stack) -> None:
    bare.tenon("up", "--detach", "--no-demo")
    os.kill(supervised(bare, "worker"), signal.SIGKILL)
    deadline = time.monotonic() + 30
    with bare.client(None, f"http://{bare.settings.worker_listen}") as worker:
        while time.monotonic() < deadline:
            try:
                if worker.get("/livez").is_success:
                    return
            except httpx2.TransportError:
                time.sleep(0.2)
    pytest.fail("the worker did not come back")


def test_the_gateway_is_restarted_without_a_refused_connection(bare: Stack) -> None:
    bare.tenon("up", "--detach", "--no-demo")
    assert "can start" in bare.tenon("gateway", "check").stdout
    assert "nothing would change" in bare.tenon("gateway", "diff").stdout
    failed: list[Exception] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                assert httpx2.get(f"http://{bare.settings.gateway_listen}/v1/models").status_code == 401
            except Exception as error:
                failed.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    for _ in range(2):
        assert "finishes what it began" in bare.tenon("gateway", "restart").stdout
    stop.set()
    caller.join()
    assert not failed
    bare.tenon("down")
    assert is_gone(bare)


def test_an_external_postgres_is_used_and_left_running(bare: Stack) -> None:
    server = embedded.start(bare.directory / "external", free_port(), fast_and_unsafe=True)
    try:
        bare.environment["TENON_DATABASE_URL"] = f"postgresql://postgres:{server.password}@127.0.0.1:{server.port}/postgres"
        assert "Tenon is up" in bare.tenon("up", "--detach", "--no-demo").stdout
        assert not (bare.directory / "state" / "postgres").exists()
        assert server.password not in (bare.directory / "state" / "tenon.json").read_text()
        bare.tenon("down")
        assert server.process.poll() is None
    finally:
        server.stop()


def test_a_full_disk_is_named(bare: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tenon.entrypoints.cli import up

    monkeypatch.setattr(up, "DISK_BYTES_MIN", 1 << 60)
    for name, value in bare.environment.items():
        monkeypatch.setenv(name, value)
    assert up.up(detach=False, demo=False) == 1
    assert "MiB free" in capsys.readouterr().out
