"""An audit log of its own for a test: a fresh installation, so that other tests' entries do not mix in."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tenon.core import audit
from tenon.core.audit import tasks
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, TenantId
from tenon.kit.database import Database
from tenon.kit.ids import uuid7
from tenon.kit.settings import Settings


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
                told = {"payload": {"n": n, "note": secrets.token_hex(4)}} | event
                ids.append(await audit.record(session, ctx, AuditEvent("thing.change", "Thing", f"t-{n}", **told)))
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


@pytest.fixture
async def audit_log(request: pytest.FixtureRequest, cluster: Any, tmp_path: Path) -> AsyncIterator[Log]:
    """An empty log in an installation of its own, with two tenants' auditors."""
    conftest = request.config.pluginmanager.get_plugin(str(Path(__file__).parents[2] / "conftest.py"))
    assert conftest is not None
    own = conftest.make_settings(cluster, tmp_path)
    database, sequencer, provision, migrate = (Database(own.database, name) for name in ("api", "sequencer", "provision", "migrate"))
    logins = {"provision": provision, "migrate": migrate, "api": database}
    tenants = [await conftest.make_tenant(logins.__getitem__) for _ in range(2)]
    yield Log(own, database, sequencer, [tenant.context("operator") for tenant in tenants])
    for opened in (database, sequencer, provision, migrate):
        await opened.close()


def stranger(ctx: Context) -> Context:
    """Another principal of the same tenant, with no roles."""
    return Context(
        TenantId(ctx.tenant), (Actor(PrincipalId(uuid7()), PrincipalKind.USER, "stranger"),), frozenset(), frozenset(), str(uuid7())
    )
