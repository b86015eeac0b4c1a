"""`tenon up`: bring an installation up, keep it up, take it down cleanly. Plain and visible: a list of steps, then a list of children."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console

from tenon.entrypoints.cli import installation as installations
from tenon.entrypoints.cli.demo_tenant import prepare_demo
from tenon.entrypoints.cli.installation import CHECKOUT, GATEWAY_ID, Installation
from tenon.entrypoints.cli.processes import Child, answers, listens, require_free
from tenon.entrypoints.cli.summary import print_summary
from tenon.kit.database import RoleNames, bootstrap, embedded, migrate
from tenon.kit.errors import Conflict, ErrorCode, TenonError, Unavailable
from tenon.kit.settings import Settings

DISK_BYTES_MIN = 1 << 30
RESTARTS_MAX = 5
RESTART_WINDOW_SECONDS = 60.0
console = Console()


def up(*, detach: bool, demo: bool) -> int:
    """Run everything in the foreground until Ctrl-C or `tenon down`; the exit code."""
    installation = installations.locate()
    try:
        if detach:
            return _detach(installation, demo)
        with _only_one(installation) as lock:
            return _run(installation, lock, demo)
    except TenonError as error:
        console.print(f"[bold red]{error.message}[/]", highlight=False)
        if error.repair:
            console.print(error.repair, highlight=False)
        return 1


def down() -> int:
    """Stop a running installation and wait until it is gone."""
    installation = installations.locate()
    pid = running(installation)
    if pid is None:
        console.print("Tenon is not running here.")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while running(installation) is not None:
        if time.monotonic() > deadline:
            console.print(f"Process {pid} does not stop; look at {installation.logs}.")
            return 1
        time.sleep(0.1)
    console.print("Tenon is stopped. Its data stays; `make reset` removes it.")
    return 0


def reset() -> int:
    """Stop and remove this installation's whole state."""
    if code := down():
        return code
    installation = installations.locate()
    if installation.directory.exists() and not (installation.config_file.exists() or installation.lock_file.exists()):
        console.print(f"{installation.directory} does not look like an installation; nothing was removed.")
        return 1
    shutil.rmtree(installation.directory, ignore_errors=True)
    console.print(f"Removed {installation.directory}.")
    return 0


def running(installation: Installation) -> int | None:
    """The supervisor's process id when one holds the lock; a lock file left by a killed one holds nobody."""
    if not installation.lock_file.exists():
        return None
    with installation.lock_file.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0) or None
    return None


@contextmanager
def _only_one(installation: Installation) -> Iterator[IO[str]]:
    """Hold the installation's lock; the kernel frees it however we die."""
    installation.directory.mkdir(parents=True, exist_ok=True)
    with installation.lock_file.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                ErrorCode.ALREADY_RUNNING, f"Tenon runs here already (process {running(installation)}).", repair="`make down` stops it."
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield file


def _run(installation: Installation, lock: IO[str], demo: bool) -> int:
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # there is no gateway yet that could have a successor
    started = time.monotonic()
    _require_disk(installation)
    settings = installations.configure(installation)
    installation.logs.mkdir(exist_ok=True)
    server: embedded.Embedded | None = None
    children: list[Child] = []
    try:
        server = _step_database(installation, settings)
        keys = prepare_demo(installation, settings, console, stop) if demo and not stop.is_set() else {}
        if not stop.is_set():
            children = _children(installation, settings)
            _start_all(children, settings, stop)
        if not stop.is_set():
            print_summary(console, settings, keys, time.monotonic() - started)
            _watch(children, server, stop, settings)
        return 0
    finally:
        _stop_all(children, server)


def _require_disk(installation: Installation) -> None:
    free = shutil.disk_usage(installation.directory).free
    if free < DISK_BYTES_MIN:
        raise Unavailable(
            ErrorCode.DISK_FULL, f"{installation.directory} has {free >> 20} MiB free; Tenon needs {DISK_BYTES_MIN >> 20} MiB to start.",
            repair="Free some space, or set TENON_STATE_DIR to another disk.",
        )  # fmt: skip


def _step_database(installation: Installation, settings: Settings) -> embedded.Embedded | None:
    """PostgreSQL up, prepared and migrated. None when it is somebody else's server."""
    names, server = RoleNames(settings.database.installation), None
    if installation.uses_external_database:
        admin = installations.admin_conninfo_external()
    else:
        require_free({"PostgreSQL": f"127.0.0.1:{settings.database.port}"})
        with console.status("Starting PostgreSQL …"):
            server = embedded.start(installation.directory / "postgres", settings.database.port)
        admin = server.admin_conninfo
    try:
        with console.status("Preparing the database …"):
            plan = bootstrap.Bootstrap(settings.database.installation, settings.database.name, settings.database.passwords)
            bootstrap.prepare(admin, plan)
            migrate.upgrade(settings.database)
        problems = bootstrap.check(settings.database.conninfo(names.login("api")), names)
        if problems:
            raise Unavailable(
                ErrorCode.WALLS_DOWN, " ".join(problems), repair="docs/how-to/external-postgres.md says what the server must allow."
            )
    except BaseException:
        if server:
            server.stop()
        raise
    console.print(f"[green]✓[/] PostgreSQL on port {settings.database.port}, schema {migrate.head()}", highlight=False)
    return server


def _children(installation: Installation, settings: Settings) -> list[Child]:
    """Every process, in the order they start; they stop in the reverse order."""
    config = {"TENON_CONFIG": str(installation.config_file)}
    python = [sys.executable, "-m"]
    gateway = gateway_binary()
    return [
        Child("engine", [*python, "tenon.entrypoints.cli.engine", settings.engine_listen], {},
              answers(f"http://{settings.engine_listen}/health"), installation.logs / "engine.log"),
        Child("sync", [*python, "tenon.entrypoints.sync"], config, listens(settings.sync_listen), installation.logs / "sync.log"),
        Child("api", [*python, "tenon.entrypoints.api"], config, answers(f"http://{settings.api_listen}/readyz"), installation.logs / "api.log"),
        Child("worker", [*python, "tenon.entrypoints.worker"], config, answers(f"http://{settings.worker_listen}/livez"),
              installation.logs / "worker.log"),
        Child("gateway", [str(gateway)], gateway_environment(installation, settings), answers(f"http://{settings.gateway_admin_listen}/readyz"),
              installation.logs / "gateway.log"),
    ]  # fmt: skip


def gateway_binary() -> Path:
    """The built gateway: $TENON_GATEWAY_BINARY, or where `make gateway` puts it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    target = Path(os.environ.get("CARGO_TARGET_DIR", cache / "tenon" / "cargo-target"))
    binary = Path(os.environ.get("TENON_GATEWAY_BINARY", target / "release" / "tenon-gateway"))
    if not binary.is_file():
        raise Unavailable(ErrorCode.GATEWAY_NOT_BUILT, f"The gateway is not built ({binary} is missing).", repair="Run `make gateway`.")
    return binary


def gateway_environment(installation: Installation, settings: Settings) -> dict[str, str]:
    """What the gateway of this installation is configured with."""
    data = installation.directory / "gateway"
    data.mkdir(exist_ok=True)
    environment = {
        "TENON_GATEWAY_LISTEN": settings.gateway_listen,
        "TENON_GATEWAY_ADMIN_LISTEN": settings.gateway_admin_listen,
        "TENON_GATEWAY_CONTROL_URL": f"http://{settings.sync_listen}",
        "TENON_GATEWAY_ID": GATEWAY_ID,
        "TENON_GATEWAY_TOKEN_FILE": str(installation.token_file),
        "TENON_GATEWAY_SEALING_KEY_FILE": str(settings.sealing_key_file),
        "TENON_GATEWAY_DATA_DIR": str(data),
        "TENON_TRACE_SAMPLE_RATIO": str(settings.trace_sample_ratio),
    }
    return environment | ({"TENON_OTLP_ENDPOINT": settings.otlp_endpoint} if settings.otlp_endpoint else {})


def gateway_process(settings: Settings) -> int | None:
    """The process that answers at the gateway's admin address; None = none does."""
    try:
        with urllib.request.urlopen(f"http://{settings.gateway_admin_listen}/metrics", timeout=2) as answer:
            lines = answer.read().decode().splitlines()
    except (http.client.HTTPException, OSError):
        return None
    process_ids = [line.rpartition(" ")[2] for line in lines if line.startswith("tenon_gateway_process_id ")]
    return int(process_ids[0]) if process_ids else None


def _start_all(children: list[Child], settings: Settings, stop: threading.Event) -> None:
    addresses = {"engine": settings.engine_listen, "sync": settings.sync_listen, "api": settings.api_listen,
                 "worker": settings.worker_listen, "gateway": settings.gateway_listen, "gateway admin": settings.gateway_admin_listen}  # fmt: skip
    require_free(addresses)
    with console.status("Starting the processes …"):
        *others, gateway = children
        # The gateway last: one that finds no control plane yet waits longer before it asks again.
        for together in (others, [gateway]):
            for child in together:
                child.start()
            for child in together:
                if stop.is_set():
                    return
                child.wait_until_ready()
    console.print(f"[green]✓[/] {', '.join(child.name for child in children)} are ready", highlight=False)


def _watch(children: list[Child], server: embedded.Embedded | None, stop: threading.Event, settings: Settings) -> None:
    """Restart what dies, a few times; give up with the reason when it keeps dying. SIGUSR1 = a successor for the gateway."""
    upgrade_requested = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: upgrade_requested.set())
    while not stop.wait(0.5):
        if upgrade_requested.is_set():
            upgrade_requested.clear()
            gateway = next(child for child in children if child.name == "gateway")
            succeeded = gateway.succeed(lambda pid: gateway_process(settings) == pid)
            console.print(
                "The gateway has a successor." if succeeded else f"[yellow]![/] the gateway's successor failed; see {gateway.log_file}"
            )
        if server and server.process.poll() is not None:
            raise Unavailable(
                ErrorCode.POSTGRES_DIED, "PostgreSQL stopped by itself.", repair="Look at postgres/postgres.log; `make up` starts again."
            )
        for child in children:
            if not child.exited():
                continue
            recent = [at for at in child.starts if at > time.monotonic() - RESTART_WINDOW_SECONDS]
            if len(recent) >= RESTARTS_MAX:
                raise Unavailable(
                    ErrorCode.PROCESS_KEEPS_DYING, f"{child.name} died {RESTARTS_MAX} times in a minute; see {child.log_file}."
                )
            console.print(f"[yellow]![/] {child.name} stopped (exit code {child.process and child.process.returncode}); starting it again")
            child.start()


def _stop_all(children: list[Child], server: embedded.Embedded | None) -> None:
    """Reverse order: nobody loses what it still needs. PostgreSQL last."""
    for child in reversed(children):
        child.stop()
    if server:
        server.stop()
    if children or server:
        console.print("Stopped.")


def _detach(installation: Installation, demo: bool) -> int:
    """Start in the background, show its output until it is ready, and leave it running."""
    if pid := running(installation):
        raise Conflict(ErrorCode.ALREADY_RUNNING, f"Tenon runs here already (process {pid}).", repair="`make down` stops it.")
    installation.logs.mkdir(parents=True, exist_ok=True)
    output = installation.logs / "up.log"
    output.write_text("")
    with output.open("ab") as log:
        arguments = [sys.executable, "-m", "tenon.entrypoints.cli", "up", *([] if demo else ["--no-demo"])]
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=CHECKOUT)
    with output.open() as shown:
        while process.poll() is None:
            line = shown.read()
            sys.stdout.write(line)
            sys.stdout.flush()
            if "Ctrl-C" in line:  # the summary's last line
                return 0
            time.sleep(0.1)
        sys.stdout.write(shown.read())
    return process.returncode or 1
