"""The tenant wall of fixed tables, for migrations: no table is made without it, and a catalogue test looks (DESIGN §4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tenon.kit.database.roles import RoleNames


@dataclass(frozen=True, slots=True)
class Wall:
    """Who may do what with one fixed table.

    `tenants`: privileges of every tenant's role on its own rows, as in GRANT (`"select, insert"`, `"select (id, name)"`); None = no access.
    `system`: login -> privileges on all rows. `migrate` always has an explicit policy: without one an owner's backfill under FORCE RLS
    changes 0 rows and says nothing.
    """

    table: str  # "tenon.proposal"
    tenants: str | None = None
    system: Mapping[str, str] = field(default_factory=dict)
    tenant_column: str = "tenant_id"


def raise_wall(execute: Callable[[str], object], names: RoleNames, wall: Wall) -> None:
    """Enable and force row-level security on the table and write its policies and grants. Names are ours, never input."""
    table, short = wall.table, wall.table.rsplit(".", 1)[-1]
    execute(f"alter table {table} enable row level security")
    execute(f"alter table {table} force row level security")
    execute(f"create policy {short}_migrate on {table} to {names.login('migrate')} using (true) with check (true)")
    if wall.tenants:
        # `(select …)` makes it an InitPlan, evaluated once a statement.
        own = f"{wall.tenant_column} = (select tenon.current_tenant())"
        execute(f"create policy {short}_tenants on {table} to {names.tenants} using ({own}) with check ({own})")
        execute(f"grant {wall.tenants} on {table} to {names.tenants}")
    for login, privileges in wall.system.items():
        role = names.login(login)
        execute(f"create policy {short}_{login} on {table} to {role} using (true) with check (true)")
        execute(f"grant {privileges} on {table} to {role}")
