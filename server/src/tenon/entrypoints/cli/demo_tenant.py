"""The demo tenant: principals with a role each, their keys, the embedded model, the airline ontology and its data. Safe to repeat."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

from rich.console import Console

from tenon.core import identity, tenancy
from tenon.core.context import Context, PrincipalId, PrincipalKind
from tenon.core.identity import KeyKind, KeyRequest
from tenon.entrypoints.cli import installation as installations
from tenon.entrypoints.cli.demo_model import ensure_model
from tenon.entrypoints.cli.example_data import AIRLINE, fetch_airline, run_loads, show_reports
from tenon.entrypoints.cli.installation import Installation
from tenon.entrypoints.cli.operator_commands import OPERATOR, OperatorContext, run_as_operator
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, NotFound
from tenon.kit.settings import Settings
from tenon.ontology.actions import check_actions
from tenon.ontology.schema import service as schema

TENANT = "demo"
CLEARANCE = frozenset({"fleet_confidential"})
ROLES = ("viewer", "editor", "approver")


def prepare_demo(installation: Installation, settings: Settings, console: Console, stop: threading.Event) -> dict[str, str]:
    """Everything the demo stands on; name -> API key."""
    keys = installations.load_demo(installation)

    async def work(operator: OperatorContext) -> int:
        ctx = await _tenant(operator)
        if not keys:
            keys.update(await _principals(operator, ctx))
            installations.save_demo(installation, keys)
        await ensure_model(operator, ctx)
        async with operator.migrate.system() as session:
            source = (AIRLINE / "ontology.yaml").read_text()
            done = await schema.apply(session, ctx, source, names=operator.names, check_actions=check_actions)
        console.print(f"[green]✓[/] Tenant {TENANT}, ontology version {done.ontology.version}", highlight=False)
        return 0

    async def fill(operator: OperatorContext) -> int:
        try:
            reports = await run_loads(operator.settings, await _tenant(operator), AIRLINE / "mapping.yaml", fetch_airline(), console)
        except asyncio.CancelledError:
            stop.set()
            return 130
        show_reports(console, [report for report in reports if not report.skipped])
        console.print(f"[green]✓[/] {sum(report.accepted for report in reports):,} objects of the airline example", highlight=False)
        return 0

    run_as_operator(settings, work)
    if not stop.is_set():
        run_as_operator(settings, fill)
    return keys


async def _tenant(operator: OperatorContext) -> Context:
    tenant = await tenancy.find_tenant(operator.provision, TENANT) or await tenancy.create_tenant(
        operator.provision, operator.migrate, TENANT
    )
    return await identity.first_operator(operator.provision, tenant.id, tenant.project, name=OPERATOR, clearance=CLEARANCE)


async def _principals(operator: OperatorContext, ctx: Context) -> dict[str, str]:
    """One principal a role, an agent owned by the editor, and a key for each. Principals left by a half-done start are taken over."""
    keys = {}
    async with operator.api.tenant(ctx.identity) as session:
        people = {OPERATOR: ctx.principal}
        for role in ROLES:
            people[role] = await _principal(session, ctx, role, PrincipalKind.USER, None)
        people["agent"] = await _principal(session, ctx, "agent", PrincipalKind.AGENT, people["editor"])
        for name, principal in people.items():
            kind = KeyKind.AGENT if name == "agent" else KeyKind.USER
            if ctx.project is None:
                raise NotFound(ErrorCode.PROJECT_NOT_FOUND, "The demo tenant has no project.")
            key = await identity.create_key(session, ctx, KeyRequest(principal, ctx.project, kind, "demo"), environment="dev")
            keys[name] = key.text
    return keys


async def _principal(session: WriteSession, ctx: Context, name: str, kind: PrincipalKind, owner: PrincipalId | None) -> PrincipalId:
    try:
        return (await identity.find_principal(session, ctx, name=name)).id
    except NotFound:
        principal = await identity.create_principal(
            session, replace(ctx, request_id="demo"), name=name, kind=kind, roles=frozenset({name}), clearance=CLEARANCE, owner=owner
        )
        return principal.id
