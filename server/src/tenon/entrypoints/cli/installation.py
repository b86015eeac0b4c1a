"""One installation on this machine: its state directory, its configuration file, its secrets. Made once, found again afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from tenon.kit.database import bootstrap
from tenon.kit.database.roles import SYSTEM_LOGINS
from tenon.kit.errors import ErrorCode, Unavailable
from tenon.kit.settings import DatabaseSettings, Settings, load_settings

CHECKOUT = Path(__file__).parents[5]
GATEWAY_ID = "gateway-1"
# What an operator may move, and the setting it moves.
LISTEN_VARIABLES = {
    "TENON_API_LISTEN": "api_listen",
    "TENON_SYNC_LISTEN": "sync_listen",
    "TENON_WORKER_LISTEN": "worker_listen",
    "TENON_GATEWAY_LISTEN": "gateway_listen",
    "TENON_GATEWAY_ADMIN_LISTEN": "gateway_admin_listen",
    "TENON_ENGINE_LISTEN": "engine_listen",
}
POSTGRES_PORT_DEFAULT = 54329


@dataclass(frozen=True, slots=True)
class Installation:
    """Where everything of one installation lives."""

    directory: Path

    @property
    def config_file(self) -> Path:
        return self.directory / "tenon.json"

    @property
    def lock_file(self) -> Path:
        return self.directory / "supervisor.lock"

    @property
    def token_file(self) -> Path:
        return self.directory / "gateway.token"

    @property
    def demo_file(self) -> Path:
        return self.directory / "demo.json"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def uses_external_database(self) -> bool:
        return bool(os.environ.get("TENON_DATABASE_URL"))


def locate() -> Installation:
    """The installation of this checkout, or of $TENON_STATE_DIR."""
    if chosen := os.environ.get("TENON_STATE_DIR"):
        return Installation(Path(chosen).resolve())
    if os.geteuid() == 0:  # PostgreSQL runs as another user then, who cannot enter a checkout under /root
        name = f"{CHECKOUT.name}-{hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]}"
        return Installation(Path("/var/lib/tenon") / name)
    return Installation(CHECKOUT / ".tenon")


def configure(installation: Installation) -> Settings:
    """The settings of the installation; made on first use, with listen addresses from the environment at every use."""
    installation.directory.mkdir(parents=True, exist_ok=True)
    if not installation.config_file.exists():
        _make(installation)
    settings = load_settings(installation.config_file)
    changes: dict[str, Any] = {field: os.environ[name] for name, field in LISTEN_VARIABLES.items() if name in os.environ}
    if "TENON_OTLP_ENDPOINT" in os.environ:
        changes["otlp_endpoint"] = os.environ["TENON_OTLP_ENDPOINT"]
    if SYSTEM_LOGINS.keys() - settings.database.passwords.keys():  # made by an older release
        passwords = bootstrap.new_passwords() | settings.database.passwords
        changes["database"] = settings.database.model_dump() | {"passwords": passwords}
    if changes:
        settings = Settings.model_validate(settings.model_dump() | changes)
        _write_private(installation.config_file, settings.model_dump_json(indent=1))
    return settings


def admin_conninfo_external() -> str:
    """The administrator's connection string of an external PostgreSQL."""
    return os.environ["TENON_DATABASE_URL"]


def _make(installation: Installation) -> None:
    directory = installation.directory
    for name in ("sealing.key", "signing.key"):
        if not (directory / name).exists():
            _write_private(directory / name, secrets.token_bytes(32))
    token = secrets.token_urlsafe(32)
    _write_private(installation.token_file, token)
    (directory / "checkpoints").mkdir(exist_ok=True)
    settings = Settings(
        database=_database(),
        state_dir=directory,
        gateway_tokens={GATEWAY_ID: hashlib.sha256(token.encode()).hexdigest()},
        sealing_key_file=directory / "sealing.key",
        signing_key_file=directory / "signing.key",
        checkpoint_dir=directory / "checkpoints",
    )
    _write_private(installation.config_file, settings.model_dump_json(indent=1))


def _database() -> DatabaseSettings:
    identity = secrets.token_hex(4)
    if not os.environ.get("TENON_DATABASE_URL"):
        port = int(os.environ.get("TENON_POSTGRES_PORT", POSTGRES_PORT_DEFAULT))
        return DatabaseSettings(port=port, installation=identity, passwords=bootstrap.new_passwords())
    parts = conninfo_to_dict(admin_conninfo_external())
    return DatabaseSettings(
        host=str(parts.get("host") or "127.0.0.1"),
        port=int(parts.get("port") or 5432),
        installation=identity,
        passwords=bootstrap.new_passwords(),
        sslmode=str(parts.get("sslmode") or "prefer"),
    )


def _write_private(path: Path, content: str | bytes) -> None:
    """Write whole or not at all, readable by the owner only."""
    raw = content.encode() if isinstance(content, str) else content
    scratch = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, raw)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(scratch, path)


def save_demo(installation: Installation, demo: dict[str, str]) -> None:
    """Remember the demo tenant's keys for the next start: development only, mode 0600."""
    _write_private(installation.demo_file, json.dumps(demo, indent=1))


def load_demo(installation: Installation) -> dict[str, str]:
    """The demo tenant's keys, empty when there are none yet."""
    if not installation.demo_file.exists():
        return {}
    demo = json.loads(installation.demo_file.read_text())
    if not isinstance(demo, dict):
        raise Unavailable(ErrorCode.DEMO_FILE_DAMAGED, f"{installation.demo_file} is damaged. `make reset` starts over.")
    return {str(name): str(value) for name, value in demo.items()}
