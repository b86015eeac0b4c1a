"""Operators' commands: plan and apply ontologies, load data, create tenants. Run on the installation's own machine, with its logins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tenon.core import identity, tenancy
from tenon.core.context import Context
from tenon.core.identity import KeyKind, KeyRequest
from tenon.entrypoints.cli import example_data
from tenon.entrypoints.cli import installation as installations
from tenon.kit.database import Database, RoleNames
from tenon.kit.errors import ErrorCode, NotFound, TenonError
from tenon.kit.settings import Settings, load_settings
from tenon.ontology.actions import check_actions
from tenon.ontology.schema import service as schema
from tenon.ontology.schema.tables.change_plan import Plan

OPERATOR = "operator"
console = Console()


@dataclass(frozen=True, slots=True)
class Desk:
    """An operator at work: the logins of the installation, opened for one command."""

    settings: Settings
    names: RoleNames
    api: Database
    migrate: Database
    provision: Database

    async def operator_of(self, tenant_name: str) -> Context:
        """The tenant's first operator. Raises NotFound."""
        tenant = await tenancy.find_tenant(self.provision, tenant_name)
        if tenant is None:
            raise NotFound(ErrorCode.TENANT_NOT_FOUND, f"There is no tenant {tenant_name}.", repair="`tenon tenant create NAME` makes one.")
        return await identity.first_operator(self.provision, tenant.id, tenant.project, name=OPERATOR, clearance=frozenset())


def at_desk(settings: Settings, work: Callable[[Desk], Awaitable[int]]) -> int:
    """Run `work` with open logins; refusals become a sentence and exit code 1."""

    async def run() -> int:
        async with AsyncExitStack() as opened:
            bases = {}
            for login in ("api", "migrate", "provision"):
                bases[login] = Database(settings.database, login, pool_size=2)
                opened.push_async_callback(bases[login].close)
            return await work(Desk(settings, RoleNames(settings.database.installation), **bases))

    return asyncio.run(run())


def _command(work: Callable[[Desk], Awaitable[int]]) -> int:
    try:
        return at_desk(load_settings(installations.locate().config_file), work)
    except TenonError as error:
        console.print(f"[bold red]{error.message}[/]", highlight=False)
        for problem in error.details.get("problems", []):
            console.print(f"  {problem['path']}: {problem['message']}", highlight=False)
        if error.repair:
            console.print(error.repair, highlight=False)
        return 1


def plan(document: Path, tenant_name: str) -> int:
    """Show what applying the document would change."""

    async def work(desk: Desk) -> int:
        ctx = await desk.operator_of(tenant_name)
        async with desk.migrate.system() as session:
            made = await schema.plan(session, ctx, document.read_text(), names=desk.names, check_actions=check_actions)
        show_plan(made)
        return 1 if made.problems else 0

    return _command(work)


def apply(document: Path, tenant_name: str) -> int:
    """Publish the document."""

    async def work(desk: Desk) -> int:
        ctx = await desk.operator_of(tenant_name)
        async with desk.migrate.system() as session:
            done = await schema.apply(session, ctx, document.read_text(), names=desk.names, check_actions=check_actions)
        if done.changed:
            show_plan(done.plan)
        console.print(f"Version {done.ontology.version} is published." if done.changed else "Nothing to change.", highlight=False)
        return 0

    return _command(work)


def show_plan(made: Plan) -> None:
    """What changes, in sentences, each with the statements it runs."""
    if made.empty and not made.problems:
        console.print("Nothing to change.")
    for change in made.changes:
        console.print(f"[green]+[/] {change.sentence}", highlight=False)
        for statement in change.statements:
            console.print(f"    [dim]{statement}[/]", highlight=False, soft_wrap=True)
    for problem in made.problems:
        console.print(f"[red]✗[/] {problem.path}: {problem.message}", highlight=False)


def create_tenant(name: str, clearance: frozenset[str]) -> int:
    """A tenant, its operator and the operator's key, shown once."""

    async def work(desk: Desk) -> int:
        tenant = await tenancy.create_tenant(desk.provision, desk.migrate, name)
        ctx = await identity.first_operator(desk.provision, tenant.id, tenant.project, name=OPERATOR, clearance=clearance)
        async with desk.api.tenant(ctx.identity) as session:
            key = await identity.create_key(session, ctx, KeyRequest(ctx.principal, tenant.project, KeyKind.USER, "first key"))
        console.print(f"Tenant {name} ({tenant.id}). The operator's key, shown this once:\n{key.text}", highlight=False, soft_wrap=True)
        return 0

    return _command(work)


def load(mapping: Path, tenant_name: str, data: Path | None, *, again: bool = False) -> int:
    """Run a mapping's loads; the airline example fetches its own files."""

    async def work(desk: Desk) -> int:
        ctx = await desk.operator_of(tenant_name)
        folder = data or (example_data.fetch_airline() if mapping.resolve().parent == example_data.AIRLINE else mapping.resolve().parent)
        try:
            reports = await example_data.run_loads(desk.settings, ctx, mapping, folder, console, again=again)
        except asyncio.CancelledError:
            console.print("Interrupted; what was committed stays. The same command goes on from there.")
            return 130
        example_data.show_reports(console, reports)
        return 0

    return _command(work)
