"""Settings of every process: one JSON file (mode 0600) written by the supervisor or the operator, named by `TENON_CONFIG`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import URL

from tenon.kit.errors import ErrorCode, Unavailable


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(_Strict):
    """Where PostgreSQL is, and each system login's password. `installation` is 8 hex characters and part of every role's name."""

    host: str = "127.0.0.1"
    port: int
    name: str = "tenon"
    installation: str = Field(pattern=r"^[0-9a-f]{8}$")
    passwords: dict[str, str] = Field(repr=False)  # login name without prefix -> password
    sslmode: str = "prefer"

    def url(self, role: str) -> URL:
        """The SQLAlchemy URL for a login, given by its full role name."""
        short = role.removeprefix(f"tn_{self.installation}_")
        return URL.create(
            "postgresql+psycopg", role, self.passwords[short], self.host, self.port, self.name, query={"sslmode": self.sslmode}
        )

    def conninfo(self, role: str) -> str:
        """The libpq connection string for a login, given by its full role name."""
        short = role.removeprefix(f"tn_{self.installation}_")
        parts = {
            "host": self.host,
            "port": self.port,
            "dbname": self.name,
            "user": role,
            "password": self.passwords[short],
            "sslmode": self.sslmode,
        }
        return " ".join(f"{name}='{value}'" for name, value in parts.items())


class Settings(_Strict):
    """All a process needs to start. Addresses are `host:port`, directories absolute."""

    environment: Literal["development", "production"] = "development"
    database: DatabaseSettings
    state_dir: Path
    api_listen: str = "127.0.0.1:8080"
    sync_listen: str = "127.0.0.1:8082"
    sync_tls_cert_file: Path | None = None  # PEM; with it and its key the gateways' listener speaks TLS
    sync_tls_key_file: Path | None = None
    sync_tls_client_ca_file: Path | None = None  # PEM; with it a gateway must show a certificate of these authorities, beside its token
    worker_listen: str = "127.0.0.1:8083"  # /metrics, /livez of the worker
    gateway_listen: str = "127.0.0.1:8090"
    gateway_admin_listen: str = "127.0.0.1:8091"
    engine_listen: str = "127.0.0.1:8095"
    gateway_tokens: dict[str, str] = Field(default_factory=dict, repr=False)  # gateway id -> SHA-256 of its enrolment token, hex
    sealing_key_file: Path  # 32 bytes, seals upstream credentials for the gateways
    signing_key_file: Path  # Ed25519 private key (raw 32 bytes), signs audit checkpoints
    checkpoint_dir: Path  # the last signed checkpoint of each log, outside the database
    issuer_networks: tuple[str, ...] = ()  # private networks (CIDR) that issuers' keys may be fetched from
    otlp_endpoint: str | None = None
    trace_sample_ratio: float = Field(default=0.01, ge=0, le=1)


def load_settings(path: Path | None = None) -> Settings:
    """The settings at `path`, or at $TENON_CONFIG. Raises Unavailable with a sentence when there are none."""
    where = path or Path(os.environ.get("TENON_CONFIG", ""))
    if not where.is_file():
        raise Unavailable(ErrorCode.NO_CONFIGURATION, "TENON_CONFIG does not name a configuration file. Run `make up` first, or set it.")
    return Settings.model_validate_json(where.read_bytes())
