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
class OperatorContext:
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


def run_as_operator(settings: Settings, work: Callable[[OperatorContext], Awaitable[int]]) -> int:
    """Run `work` with open logins; refusals become a sentence and exit code 1."""

    async def run() -> int:
        async with AsyncExitStack() as opened:
            bases = {}
            for login in ("api", "migrate", "provision"):
                bases[login] = Database(settings.database, login, pool_size=2)
                opened.push_async_callback(bases[login].close)
            return await work(OperatorContext(settings, RoleNames(settings.database.installation), **bases))

    return asyncio.run(run())


def _command(work: Callable[[OperatorContext], Awaitable[int]]) -> int:
    try:
        return run_as_operator(load_settings(installations.locate().config_file), work)
    except TenonError as error:
        console.print(f"[bold red]{error.message}[/]", highlight=False)
        for problem in error.details.get("problems", []):
            console.print(f"  {problem['path']}: {problem['message']}", highlight=False)
        if error.repair:
            console.print(error.repair, highlight=False)
        return 1


def plan(document: Path, tenant_name: str) -> int:
    """Show what applying the document would change."""

    async def work(operator: OperatorContext) -> int:
        ctx = await operator.operator_of(tenant_name)
        async with operator.migrate.system() as session:
            plan = await schema.plan(session, ctx, document.read_text(), names=operator.names, check_actions=check_actions)
        show_plan(plan)
        return 1 if plan.problems else 0

    return _command(work)


def apply(document: Path, tenant_name: str) -> int:
    """Publish the document."""

    async def work(operator: OperatorContext) -> int:
        ctx = await operator.operator_of(tenant_name)
        async with operator.migrate.system() as session:
            done = await schema.apply(session, ctx, document.read_text(), names=operator.names, check_actions=check_actions)
        if done.changed:
            show_plan(done.plan)
        console.print(f"Version {done.ontology.version} is published." if done.changed else "Nothing to change.", highlight=False)
        return 0

    return _command(work)


def show_plan(plan: Plan) -> None:
    """What changes, in sentences, each with the statements it runs."""
    if plan.empty and not plan.problems:
        console.print("Nothing to change.")
    for change in plan.changes:
        console.print(f"[green]+[/] {change.sentence}", highlight=False)
        for statement in change.statements:
            console.print(f"    [dim]{statement}[/]", highlight=False, soft_wrap=True)
    for problem in plan.problems:
        console.print(f"[red]✗[/] {problem.path}: {problem.message}", highlight=False)


def create_tenant(name: str, clearance: frozenset[str]) -> int:
    """A tenant, its operator and the operator's key, shown once."""

    async def work(operator: OperatorContext) -> int:
        tenant = await tenancy.create_tenant(operator.provision, operator.migrate, name)
        ctx = await identity.first_operator(operator.provision, tenant.id, tenant.project, name=OPERATOR, clearance=clearance)
        async with operator.api.tenant(ctx.identity) as session:
            key = await identity.create_key(session, ctx, KeyRequest(ctx.principal, tenant.project, KeyKind.USER, "first key"))
        console.print(f"Tenant {name} ({tenant.id}). The operator's key, shown this once:\n{key.text}", highlight=False, soft_wrap=True)
        return 0

    return _command(work)


def load(mapping: Path, tenant_name: str, data: Path | None, *, again: bool = False) -> int:
    """Run a mapping's loads; the airline example fetches its own files."""

    async def work(operator: OperatorContext) -> int:
        ctx = await operator.operator_of(tenant_name)
        folder = data or (example_data.fetch_airline() if mapping.resolve().parent == example_data.AIRLINE else mapping.resolve().parent)
        try:
            reports = await example_data.run_loads(operator.settings, ctx, mapping, folder, console, again=again)
        except asyncio.CancelledError:
            console.print("Interrupted; what was committed stays. The same command goes on from there.")
            return 130
        example_data.show_reports(console, reports)
        return 0

    return _command(work)
