"""Settings of every process: one JSON file (mode 0600) written by the supervisor or the operator, named by `TENON_CONFIG`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import URL

from tenon.kit.errors import ErrorCode, Unavailable


class _Strict(BaseModel):
    # A field's docstring is its description; docs/reference/settings.md is generated from them.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DatabaseSettings(_Strict):
    """Where PostgreSQL is, and each system login's password."""

    host: str = "127.0.0.1"
    """PostgreSQL's host name or address."""
    port: int
    """PostgreSQL's port."""
    name: str = "tenon"
    """The database's name."""
    installation: str = Field(pattern=r"^[0-9a-f]{8}$")
    """Eight hexadecimal digits, part of the name of every role of this installation."""
    passwords: dict[str, str] = Field(repr=False)
    """The password of each system login, by the login's name without its prefix."""
    sslmode: str = "prefer"
    """libpq's `sslmode`."""

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
    """`production` refuses plain HTTP to identity providers and loopback addresses, and gRPC for gateways beyond loopback without TLS."""
    database: DatabaseSettings
    """Where PostgreSQL is; the fields are in the next table."""
    state_dir: Path
    """Folder of everything this installation keeps outside the database."""
    api_listen: str = "127.0.0.1:8080"
    """The API: REST, GraphQL, MCP, events, `/metrics`, `/livez`, `/readyz`."""
    sync_listen: str = "127.0.0.1:8082"
    """gRPC for the gateways."""
    sync_tls_cert_file: Path | None = None
    """PEM certificate; with it and its key the gRPC listener speaks TLS."""
    sync_tls_key_file: Path | None = None
    """PEM key of that certificate."""
    sync_tls_client_ca_file: Path | None = None
    """PEM authorities; with it a gateway must also show a certificate that one of them issued."""
    worker_listen: str = "127.0.0.1:8083"
    """`/metrics` and `/livez` of the worker."""
    gateway_listen: str = "127.0.0.1:8090"
    """Where `tenon up` lets the gateway listen for callers."""
    gateway_admin_listen: str = "127.0.0.1:8091"
    """Where `tenon up` lets the gateway serve `/readyz`, `/metrics` and `/config`."""
    engine_listen: str = "127.0.0.1:8095"
    """Where `tenon up` lets the demo model listen."""
    gateway_tokens: dict[str, str] = Field(default_factory=dict, repr=False)
    """SHA-256 (hexadecimal) of each gateway's enrolment token, by gateway id."""
    sealing_key_file: Path
    """File with 32 bytes that seal the upstream credentials sent to gateways."""
    signing_key_file: Path
    """File with the raw Ed25519 private key (32 bytes) that signs audit checkpoints."""
    checkpoint_dir: Path
    """Folder of each audit log's last signed checkpoint, kept outside the database."""
    issuer_networks: tuple[str, ...] = ()
    """Private networks (CIDR) that the keys of identity providers may be fetched from."""
    otlp_endpoint: str | None = None
    """OpenTelemetry collector (OTLP over HTTP); without it no spans are sent."""
    trace_sample_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of requests that are traced when the caller's `traceparent` does not decide."""


def load_settings(path: Path | None = None) -> Settings:
    """The settings at `path`, or at $TENON_CONFIG. Raises Unavailable with a sentence when there are none."""
    where = path or Path(os.environ.get("TENON_CONFIG", ""))
    if not where.is_file():
        raise Unavailable(ErrorCode.NO_CONFIGURATION, "TENON_CONFIG does not name a configuration file. Run `make up` first, or set it.")
    return Settings.model_validate_json(where.read_bytes())
