"""A tenant with the airline ontology, and shortcuts to write its objects and to run actions on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from tenon.core.context import Context
from tenon.kit.database import Database
from tenon.ontology import actions
from tenon.ontology.actions import ActionRequest, check_actions
from tenon.ontology.schema import Ontology, object_id
from tenon.ontology.schema import service as schema

AIRLINE = (Path(__file__).parents[4] / "examples/airline/ontology.yaml").read_text()
MIDNIGHT = datetime(2013, 2, 8, 5, tzinfo=UTC)


def new_key() -> str:
    """A fresh idempotency key."""
    return str(uuid4())


@dataclass
class ActionsTenant:
    """One tenant: its principals, its objects and its actions."""

    tenant: Any
    login: Callable[[str], Database]
    ontology: Ontology

    @property
    def api(self) -> Database:
        return self.login("api")

    def context(self, role: str) -> Context:
        return self.tenant.context(role)

    def _caller(self, caller: Context | str) -> Context:
        return self.context(caller) if isinstance(caller, str) else caller

    async def apply(self, text: str) -> None:
        """Publish another version of the ontology."""
        migrate = self.login("migrate")
        async with migrate.system() as session:
            applied = await schema.apply(session, self.context("operator"), text, names=migrate.names, check_actions=check_actions)
        self.ontology = applied.ontology

    async def insert(self, type_: str, **values: Any) -> UUID:
        """One object, written as ingestion would."""
        object_type = self.ontology.object_types[type_]
        id_ = object_id(self.tenant.tenant_id, object_type, values)
        columns = ["id", "version", *(object_type.properties[name].column for name in values)]
        placeholders = [":id", "1", *(f":{name}" for name in values)]
        async with self.api.tenant(self.context("operator").identity) as session:
            await session.execute(
                f"insert into {self.ontology.schema}.{object_type.table} ({', '.join(columns)}) values ({', '.join(placeholders)})",
                {"id": id_, **values},
            )
        return id_

    async def flight(self, number: int, **values: Any) -> UUID:
        """A flight of carrier UA from JFK, `number` minutes after midnight."""
        at = MIDNIGHT + timedelta(minutes=number)
        defaults = {
            "scheduled_hour": at.replace(minute=0),
            "carrier": "UA",
            "flight_number": number,
            "origin": "JFK",
            "destination": "BOS",
            "tail_number": f"N{number:05}",
            "scheduled_departure": at,
            "status": "departed",
            "actual_departure": at + timedelta(minutes=3),
            "departure_delay_minutes": 3,
        }
        return await self.insert("flight", **(defaults | values))

    async def read(self, type_: str, id_: UUID) -> dict[str, Any] | None:
        """An object's properties and version, or None."""
        object_type = self.ontology.object_types[type_]
        async with self.api.tenant(self.context("operator").identity) as session:
            row = await session.row(f"select * from {self.ontology.schema}.{object_type.table} where id = :id", {"id": id_})
        return (
            None if row is None else {"version": row["version"]} | {name: row[item.column] for name, item in object_type.properties.items()}
        )

    async def write(self, type_: str, id_: UUID, **values: Any) -> None:
        """Change an object without an action, as ingestion would."""
        object_type = self.ontology.object_types[type_]
        sets = ", ".join(f"{object_type.properties[name].column} = :{name}" for name in values)
        async with self.api.tenant(self.context("operator").identity) as session:
            await session.execute(
                f"update {self.ontology.schema}.{object_type.table} set {sets}, version = version + 1 where id = :id", {"id": id_, **values}
            )

    async def business_hash(self) -> str:
        """A hash over every business property of every object: what a rollback must restore."""
        digest = hashlib.sha256()
        async with self.api.tenant(self.context("operator").identity) as session:
            for name, object_type in sorted(self.ontology.object_types.items()):
                rows = "string_agg(md5((to_jsonb(o) - 'version')::text), '' order by id)"
                rows_digest = await session.scalar(f"select md5({rows}) from {self.ontology.schema}.{object_type.table} o")
                digest.update(f"{name}{rows_digest}".encode())
        return digest.hexdigest()

    async def count(self, table: str) -> int:
        async with self.api.tenant(self.context("operator").identity) as session:
            return int(await session.scalar(f"select count(*) from {table}"))

    async def audit_codes(self) -> list[tuple[str, str, str | None]]:
        """(action, decision, code) of every entry, oldest first."""
        async with self.api.tenant(self.context("operator").identity) as session:
            rows = await session.rows("select action, decision, code from tenon.audit_entry order by occurred_at, id")
        return [(row["action"], row["decision"], row["code"]) for row in rows]

    async def simulate(self, action_type: str, /, caller: Context | str = "editor", **parameters: Any) -> dict[str, Any]:
        ctx = self._caller(caller)
        return await actions.simulate(self.api, ctx, ActionRequest(action_type, parameters))

    async def propose(self, action_type: str, /, caller: Context | str = "editor", **parameters: Any) -> dict[str, Any]:
        ctx = self._caller(caller)
        return (await actions.propose(self.api, ctx, ActionRequest(action_type, parameters), key=new_key()))[1]

    async def approve(self, proposal: dict[str, Any], caller: Context | str = "approver", hash_: str | None = None) -> dict[str, Any]:
        ctx = self._caller(caller)
        seen = bytes.fromhex(hash_ or proposal["hash"])
        return (await actions.approve(self.api, ctx, UUID(proposal["id"]), hash=seen, key=new_key()))[1]

    async def roll_back(self, proposal: dict[str, Any], caller: Context | str = "editor") -> dict[str, Any]:
        ctx = self._caller(caller)
        return (await actions.roll_back(self.api, ctx, UUID(proposal["id"]), key=new_key()))[1]

    async def get(self, proposal: dict[str, Any], role: str = "viewer") -> dict[str, Any]:
        return await actions.get(self.api, self.context(role), UUID(proposal["id"]))

    async def disable(self, role: str) -> None:
        async with self.api.tenant(self.context("operator").identity) as session:
            await session.execute("update tenon.principal set disabled_at = now() where id = :id", {"id": self.context(role).principal})

    async def set_roles(self, role: str, *roles: str) -> None:
        async with self.api.tenant(self.context("operator").identity) as session:
            await session.execute(
                "update tenon.principal set roles = :roles where id = :id", {"id": self.context(role).principal, "roles": list(roles)}
            )

    async def set_clearance(self, role: str, *markings: str) -> None:
        async with self.api.tenant(self.context("operator").identity) as session:
            await session.execute(
                "update tenon.principal set clearance = :markings where id = :id",
                {"id": self.context(role).principal, "markings": list(markings)},
            )

    def with_clearance(self, role: str, *markings: str) -> Context:
        return replace(self.context(role), clearance=frozenset(markings))


async def create_actions_tenant(login: Callable[[str], Database], tenant: Any, text: str = AIRLINE) -> ActionsTenant:
    airline = ActionsTenant(tenant, login, Ontology(tenant.tenant_id, 0, "", "", {}, ()))
    await airline.apply(text)
    return airline
