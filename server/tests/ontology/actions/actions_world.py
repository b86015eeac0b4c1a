"""A tenant with the airline ontology and a small fleet of made-up flights; shortcuts along the road."""

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


def key() -> str:
    """A fresh idempotency key."""
    return str(uuid4())


@dataclass
class World:
    """One tenant's world: who acts, and what is there."""

    tenant: Any
    login: Callable[[str], Database]
    ontology: Ontology

    @property
    def api(self) -> Database:
        return self.login("api")

    def who(self, role: str) -> Context:
        return self.tenant.context(role)

    async def apply(self, text: str) -> None:
        """Publish another version of the ontology."""
        migrate = self.login("migrate")
        async with migrate.system() as session:
            done = await schema.apply(session, self.who("operator"), text, names=migrate.names, check_actions=check_actions)
        self.ontology = done.ontology

    async def insert(self, type_: str, **values: Any) -> UUID:
        """One object, written as ingestion would."""
        kind = self.ontology.object_types[type_]
        id_ = object_id(self.tenant.tenant_id, kind, values)
        columns = ["id", "version", *(kind.properties[name].column for name in values)]
        places = [":id", "1", *(f":{name}" for name in values)]
        async with self.api.tenant(self.who("operator").identity) as session:
            await session.execute(
                f"insert into {self.ontology.schema}.{kind.table} ({', '.join(columns)}) values ({', '.join(places)})",
                {"id": id_, **values},
            )
        return id_

    async def flight(self, number: int, **values: Any) -> UUID:
        """A flight of carrier UA from JFK, `number` minutes after midnight."""
        at = MIDNIGHT + timedelta(minutes=number)
        given = {
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
        return await self.insert("flight", **(given | values))

    async def read(self, type_: str, id_: UUID) -> dict[str, Any] | None:
        """An object's properties and version, or None."""
        kind = self.ontology.object_types[type_]
        async with self.api.tenant(self.who("operator").identity) as session:
            row = await session.row(f"select * from {self.ontology.schema}.{kind.table} where id = :id", {"id": id_})
        return None if row is None else {"version": row["version"]} | {name: row[item.column] for name, item in kind.properties.items()}

    async def write(self, type_: str, id_: UUID, **values: Any) -> None:
        """Change an object behind the actions' back, as ingestion would."""
        kind = self.ontology.object_types[type_]
        sets = ", ".join(f"{kind.properties[name].column} = :{name}" for name in values)
        async with self.api.tenant(self.who("operator").identity) as session:
            await session.execute(
                f"update {self.ontology.schema}.{kind.table} set {sets}, version = version + 1 where id = :id", {"id": id_, **values}
            )

    async def business_hash(self) -> str:
        """A hash over every business property of every object: what a rollback must restore."""
        digest = hashlib.sha256()
        async with self.api.tenant(self.who("operator").identity) as session:
            for name, kind in sorted(self.ontology.object_types.items()):
                rows = "string_agg(md5((to_jsonb(o) - 'version')::text), '' order by id)"
                found = await session.scalar(f"select md5({rows}) from {self.ontology.schema}.{kind.table} o")
                digest.update(f"{name}{found}".encode())
        return digest.hexdigest()

    async def count(self, table: str) -> int:
        async with self.api.tenant(self.who("operator").identity) as session:
            return int(await session.scalar(f"select count(*) from {table}"))

    async def audit_codes(self) -> list[tuple[str, str, str | None]]:
        """(action, decision, code) of every entry, oldest first."""
        async with self.api.tenant(self.who("operator").identity) as session:
            rows = await session.rows("select action, decision, code from tenon.audit_entry order by occurred_at, id")
        return [(row["action"], row["decision"], row["code"]) for row in rows]

    async def simulate(self, action_type: str, /, who: Context | str = "editor", **parameters: Any) -> dict[str, Any]:
        ctx = self.who(who) if isinstance(who, str) else who
        return await actions.simulate(self.api, ctx, ActionRequest(action_type, parameters))

    async def propose(self, action_type: str, /, who: Context | str = "editor", **parameters: Any) -> dict[str, Any]:
        ctx = self.who(who) if isinstance(who, str) else who
        return (await actions.propose(self.api, ctx, ActionRequest(action_type, parameters), key=key()))[1]

    async def approve(self, proposal: dict[str, Any], who: Context | str = "approver", hash_: str | None = None) -> dict[str, Any]:
        ctx = self.who(who) if isinstance(who, str) else who
        seen = bytes.fromhex(hash_ or proposal["hash"])
        return (await actions.approve(self.api, ctx, UUID(proposal["id"]), hash=seen, key=key()))[1]

    async def roll_back(self, proposal: dict[str, Any], who: Context | str = "editor") -> dict[str, Any]:
        ctx = self.who(who) if isinstance(who, str) else who
        return (await actions.roll_back(self.api, ctx, UUID(proposal["id"]), key=key()))[1]

    async def get(self, proposal: dict[str, Any], who: str = "viewer") -> dict[str, Any]:
        return await actions.get(self.api, self.who(who), UUID(proposal["id"]))

    async def disable(self, role: str) -> None:
        async with self.api.tenant(self.who("operator").identity) as session:
            await session.execute("update tenon.principal set disabled_at = now() where id = :id", {"id": self.who(role).principal})

    async def set_roles(self, role: str, *roles: str) -> None:
        async with self.api.tenant(self.who("operator").identity) as session:
            await session.execute(
                "update tenon.principal set roles = :roles where id = :id", {"id": self.who(role).principal, "roles": list(roles)}
            )

    async def set_clearance(self, role: str, *markings: str) -> None:
        async with self.api.tenant(self.who("operator").identity) as session:
            await session.execute(
                "update tenon.principal set clearance = :markings where id = :id",
                {"id": self.who(role).principal, "markings": list(markings)},
            )

    def with_clearance(self, role: str, *markings: str) -> Context:
        return replace(self.who(role), clearance=frozenset(markings))


async def make_world(login: Callable[[str], Database], tenant: Any, text: str = AIRLINE) -> World:
    world = World(tenant, login, Ontology(tenant.tenant_id, 0, "", "", {}, ()))
    await world.apply(text)
    return world
