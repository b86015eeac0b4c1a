"""The `tenon` command. Each command imports what it needs when it runs: the whole stack takes seconds, `--help` must not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False, help="Tenon: a governed backplane.")
ontology = typer.Typer(no_args_is_help=True, help="Plan and apply ontologies.")
audit = typer.Typer(no_args_is_help=True, help="Verify evidence.")
tenant = typer.Typer(no_args_is_help=True, help="Tenants and their first keys.")
gateway = typer.Typer(no_args_is_help=True, help="Look before a gateway starts, and restart it.")
app.add_typer(gateway, name="gateway")
app.add_typer(ontology, name="ontology")
app.add_typer(audit, name="audit")
app.add_typer(tenant, name="tenant")

TenantName = Annotated[str, typer.Option("--tenant", help="The tenant's name.")]


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Prepare the demo tenant and the airline example.")] = True,
) -> None:
    """Start everything; Ctrl-C stops it."""
    from tenon.entrypoints.cli.up import up as run

    sys.exit(run(detach=detach, demo=demo))


@app.command()
def down() -> None:
    """Stop a running installation."""
    from tenon.entrypoints.cli.up import down as run

    sys.exit(run())


@app.command()
def reset() -> None:
    """Stop and remove all state of this installation."""
    from tenon.entrypoints.cli.up import reset as run

    sys.exit(run())


@app.command()
def env() -> None:
    """Print the addresses and the demo keys as shell variables, for `eval "$(tenon env)"`."""
    from tenon.entrypoints.cli import installation as installations
    from tenon.entrypoints.cli.summary import environment
    from tenon.kit.settings import load_settings

    installation = installations.locate()
    typer.echo(environment(load_settings(installation.config_file), installations.load_demo(installation)))


@app.command()
def load(
    mapping: Path,
    tenant_name: TenantName = "demo",
    data: Annotated[Path | None, typer.Option(help="Folder of the source files.")] = None,
    again: Annotated[bool, typer.Option(help="Load files that were loaded before once more.")] = False,
) -> None:
    """Load a mapping's files; Ctrl-C interrupts, the same command resumes."""
    from tenon.entrypoints.cli import operator_commands

    sys.exit(operator_commands.load(mapping, tenant_name, data, again=again))


@gateway.command("check")
def gateway_check() -> None:
    """Say what a gateway's start would stumble over; starts nothing."""
    from tenon.entrypoints.cli import gateway

    sys.exit(gateway.query_gateway("check"))


@gateway.command("diff")
def gateway_diff() -> None:
    """Say what a restart would change in the gateway that runs."""
    from tenon.entrypoints.cli import gateway

    sys.exit(gateway.query_gateway("diff"))


@gateway.command("restart")
def gateway_restart() -> None:
    """Start a successor that takes the sockets over; no call is lost."""
    from tenon.entrypoints.cli import gateway

    sys.exit(gateway.restart())


@ontology.command("plan")
def ontology_plan(document: Path, tenant_name: TenantName = "demo") -> None:
    """Show what applying the document would change in the database."""
    from tenon.entrypoints.cli import operator_commands

    sys.exit(operator_commands.plan(document, tenant_name))


@ontology.command("apply")
def ontology_apply(document: Path, tenant_name: TenantName = "demo") -> None:
    """Publish the document."""
    from tenon.entrypoints.cli import operator_commands

    sys.exit(operator_commands.apply(document, tenant_name))


@audit.command("verify")
def audit_verify(
    pack: Path, key: Annotated[Path | None, typer.Option(help="The log's public key, from a source you trust.")] = None
) -> None:
    """Verify an evidence pack or a receipt, offline, without Tenon's database."""
    from tenon.core.audit.verification.evidence_packs import verify_command

    sys.exit(verify_command(pack, key))


@audit.command("check")
def audit_check() -> None:
    """Check this installation's audit rows against its signed trees; names every entry that was touched."""
    import asyncio

    from tenon.core.audit.verification.database_rows import verify_database_command
    from tenon.entrypoints.cli import installation as installations
    from tenon.kit.settings import load_settings

    sys.exit(asyncio.run(verify_database_command(load_settings(installations.locate().config_file))))


@tenant.command("create")
def tenant_create(
    name: str,
    clearance: Annotated[list[str] | None, typer.Option(help="A marking that the operator may see and load; repeat it for more.")] = None,
) -> None:
    """Create a tenant with a first operator; its key is shown once."""
    from tenon.entrypoints.cli import operator_commands

    sys.exit(operator_commands.create_tenant(name, frozenset(clearance or ())))


if __name__ == "__main__":
    app()
