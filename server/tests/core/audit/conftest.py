"""An audit log of its own for a test: a fresh installation, so that other tests' entries do not mix in."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tenon.core import audit
from tenon.core.audit import tasks
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.kit.database import Database
from tenon.kit.settings import Settings

TABLES = ("audit_entry", "audit_payload", "audit_log", "audit_tree", "audit_leaf", "audit_checkpoint")


@dataclass
class Log:
    """The worker's part, under a test's control. Checkpoints' one-second rule is taken back by `tick`, not by waiting."""

    settings: Settings
    database: Database
    sequencer: Database
    contexts: list[Context]

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new worker process."""
        self.task: Any = tasks.sequencer_task(self.sequencer, self.settings)

    @property
    def directory(self) -> Path:
        return self.settings.checkpoint_dir

    @property
    def public_key(self) -> str:
        return (self.directory / "log.pub").read_text()

    async def write(self, ctx: Context, count: int = 1, **event: Any) -> list[Any]:
        """Record entries, each in its own transaction."""
        ids = []
        for n in range(count):
            async with self.database.tenant(ctx.identity) as session:
                fields = {"payload": {"n": n, "note": secrets.token_hex(4)}} | event
                ids.append(await audit.record(session, ctx, AuditEvent("thing.change", "Thing", f"t-{n}", **fields)))
        return ids

    async def tick(self) -> int:
        """One run, as if a second had passed since the last."""
        done = await self.task()
        async with self.sequencer.system() as session:
            await session.execute("update tenon.audit_tree set signed_at = null where signed_at is not null")
        return int(done + await self.task())

    async def signed(self, ctx: Context, count: int) -> list[Any]:
        """Entries under a signed checkpoint."""
        ids = await self.write(ctx, count)
        await self.tick()
        return ids


@pytest.fixture(scope="session")
async def installation(request: pytest.FixtureRequest, cluster: Any, tmp_path_factory: Any) -> AsyncIterator[Log]:
    """An installation that only audit tests use, with two tenants' auditors."""
    conftest = request.config.pluginmanager.get_plugin(str(Path(__file__).parents[2] / "conftest.py"))
    assert conftest is not None
    own = conftest.make_settings(cluster, tmp_path_factory.mktemp("audit"))
    logins = {name: Database(own.database, name) for name in ("api", "sequencer", "provision", "migrate")}
    tenants = [await conftest.make_tenant(logins.__getitem__) for _ in range(2)]
    yield Log(own, logins["api"], logins["sequencer"], [tenant.context("operator") for tenant in tenants])
    for opened in logins.values():
        await opened.close()


@pytest.fixture
def audit_log(installation: Log, cluster: Any, tmp_path: Path) -> Log:
    """An empty log with an empty checkpoint directory."""
    with psycopg.connect(cluster.admin_conninfo, dbname=installation.settings.database.name, autocommit=True) as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute("truncate " + ", ".join(f"tenon.{table}" for table in TABLES))
    settings = installation.settings.model_copy(update={"checkpoint_dir": tmp_path / "checkpoints"})
    return Log(settings, installation.database, installation.sequencer, installation.contexts)
