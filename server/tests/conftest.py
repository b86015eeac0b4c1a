"""Real parts for every test: one embedded PostgreSQL a run, one installation and database a worker, fresh tenants a test."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import pytest

from tenon.core import identity, tenancy
from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, SessionId
from tenon.core.tenancy import Tenant
from tenon.kit.database import Database, bootstrap, embedded, migrate
from tenon.kit.ids import uuid7
from tenon.kit.settings import DatabaseSettings, Settings
from tools.testing.cleaner import Cleaner
from tools.testing.ports import free_port

ALL_MARKINGS = frozenset({"fleet_confidential", "pii", "secret"})


class Scratch:
    """Folders of this run, removed when it ends, also when it is killed."""

    def __init__(self) -> None:
        self._cleaner = Cleaner()

    def folder(self, name: str) -> Path:
        """A new one that the unprivileged user whom PostgreSQL runs as can enter, also when we are root."""
        folder = Path(tempfile.mkdtemp(prefix=f"tenon-test-{name}-"))
        folder.chmod(0o755)
        self._cleaner.remember("folder", str(folder))
        return folder

    def close(self) -> None:
        self._cleaner.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that no worker runs one alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Scratch]:
    folders = Scratch()
    yield folders
    folders.close()


@pytest.fixture(scope="session")
def cluster(scratch: Scratch, worker_id: str) -> Iterator[embedded.Embedded]:
    """A running PostgreSQL for this worker; `.admin_conninfo` is the superuser."""
    settings = ("shared_buffers=128MB", "pg_stat_statements.track=all")
    server = embedded.start(scratch.folder(worker_id), free_port(), fast_and_unsafe=True, extra=settings)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """pytest-xdist's worker, `main` without it."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def make_settings(cluster: embedded.Embedded, folder: Path) -> Settings:
    """A new installation in its own database on the cluster, migrated to head."""
    installation = secrets.token_hex(4)
    passwords = bootstrap.new_passwords()
    database = DatabaseSettings(port=cluster.port, name=f"tenon_{installation}", installation=installation, passwords=passwords)
    bootstrap.prepare(cluster.admin_conninfo, bootstrap.Bootstrap(installation, database.name, passwords))
    migrate.upgrade(database)
    for name in ("sealing.key", "signing.key"):
        (folder / name).write_bytes(secrets.token_bytes(32))
    (folder / "checkpoints").mkdir()
    return Settings(
        database=database, state_dir=folder, sealing_key_file=folder / "sealing.key", signing_key_file=folder / "signing.key",
        checkpoint_dir=folder / "checkpoints",
    )  # fmt: skip


@pytest.fixture(scope="session")
def settings(cluster: embedded.Embedded, scratch: Scratch, worker_id: str) -> Settings:
    """This worker's installation."""
    return make_settings(cluster, scratch.folder(worker_id))


@pytest.fixture(scope="session")
async def login(settings: Settings) -> AsyncIterator[Callable[[str], Database]]:
    """`login("usage")` -> Database of that system login."""
    opened: dict[str, Database] = {}

    def get(name: str) -> Database:
        if name not in opened:
            opened[name] = Database(settings.database, name)
        return opened[name]

    yield get
    for database in opened.values():
        await database.close()


@pytest.fixture(scope="session")
def database(login: Callable[[str], Database]) -> Database:
    """The login `api`: what requests run on."""
    return login("api")


@dataclass
class TenantFixture:
    """A tenant with one principal a role and an agent owned by the editor."""

    tenant: Tenant
    contexts: dict[str, Context] = field(default_factory=dict)

    @property
    def tenant_id(self) -> UUID:
        return self.tenant.id

    def context(self, role: str) -> Context:
        """The context of the principal with this role: viewer, editor, approver, operator."""
        return replace(self.contexts[role], request_id=str(uuid7()))

    def agent_session_context(self, ceiling: frozenset[str] = frozenset()) -> Context:
        """The agent inside a session with this ceiling; there is no row of the session."""
        agent = self.contexts["agent"]
        return replace(agent, clearance=ceiling, session=SessionId(uuid7()), opens_sessions_only=False, request_id=str(uuid7()))


async def make_tenant(login: Callable[[str], Database], name: str | None = None) -> TenantFixture:
    """A fresh tenant with its principals."""
    tenant = await tenancy.create_tenant(login("provision"), login("migrate"), name or f"test-{secrets.token_hex(6)}")
    operator = await identity.first_operator(login("provision"), tenant.id, tenant.project, name="operator", clearance=ALL_MARKINGS)
    fixture = TenantFixture(tenant, {"operator": operator})
    async with login("api").tenant(operator.identity) as session:
        for role in ("viewer", "editor", "approver"):
            principal = await identity.create_principal(
                session, operator, name=role, kind=PrincipalKind.USER, roles=frozenset({role}), clearance=ALL_MARKINGS
            )
            fixture.contexts[role] = replace(operator, chain=(Actor(principal.id, principal.kind, role),), roles=principal.roles)
        editor = fixture.contexts["editor"].chain[0]
        agent = await identity.create_principal(
            session, operator, name="agent", kind=PrincipalKind.AGENT, roles=frozenset({"agent"}), clearance=ALL_MARKINGS,
            owner=PrincipalId(editor.principal),
        )  # fmt: skip
    chain = (Actor(agent.id, PrincipalKind.AGENT, "agent"), editor)
    fixture.contexts["agent"] = replace(operator, chain=chain, roles=agent.roles, opens_sessions_only=True)
    return fixture


@pytest.fixture
async def tenant_a(login: Callable[[str], Database]) -> TenantFixture:
    """A fresh tenant."""
    return await make_tenant(login)


@pytest.fixture
async def tenant_b(login: Callable[[str], Database]) -> TenantFixture:
    """Another fresh tenant, for what must not cross."""
    return await make_tenant(login)
