"""What the tests of reads stand on: a shop with customers, purchases, and a naive memory of what was stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tenon.core.context import Context
from tenon.kit.database import Database
from tenon.kit.database.lane import Lane
from tenon.ontology.objects import Objects
from tenon.ontology.objects.graphql_language.service import GraphQL, GraphQLRequest
from tenon.ontology.schema import Ontologies, Ontology, object_id, service
from tenon.ontology.schema.contracts import PropertyType

ONTOLOGY = """
ontology: 1
markings: [pii, secret]
object_types:
  customer:
    primary_key: code
    title: name
    properties:
      code: {type: text, length_max: 40}
      name: {type: text, length_max: 500, indexed: true}
      email: {type: text, length_max: 4000, markings: [pii]}
      region: {type: text, length_max: 40, markings: [secret]}
      active: {type: boolean}
      since: {type: date}
      tier: {type: enum, enum: [gold, silver, "top-1"]}
      note: {type: text, length_max: 4000, filterable: false}
  region_info:
    plural: region_infos
    primary_key: code
    properties:
      code: {type: text, length_max: 40}
      label: {type: text, length_max: 100}
  purchase:
    primary_key: [customer_code, number]
    properties:
      customer_code: {type: text, length_max: 40}
      number: {type: integer}
      placed: {type: timestamp, indexed: true}
      amount: {type: decimal, scale: 2, indexed: true}
      rate: {type: decimal, scale: 4}
      weight: {type: float}
      tracking: {type: uuid}
      priority: {type: integer, required: true, indexed: true}
links:
  purchase.customer: {target: customer, via: {customer_code: code}, inverse: purchases, dangling: keep}
  customer.region_info: {target: region_info, via: {region: code}, inverse: customers, dangling: keep}
"""


@dataclass
class Shop:
    """One tenant's reads and what was stored."""

    tenant: Any
    login: Callable[[str], Database]
    ontology: Ontology
    objects: Objects
    graphql: GraphQL
    stored: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def ctx(self) -> Context:
        return self.tenant.context("viewer")

    async def insert(self, type_name: str, **values: Any) -> UUID:
        """Store one object as a load would."""
        object_type = self.ontology.object_types[type_name]
        object_id_ = object_id(self.ontology.tenant, object_type, values)
        columns = {
            object_type.properties[name].column: _physical(object_type.properties[name].scale, value, object_type.properties[name].type)
            for name, value in values.items()
        }
        names = ", ".join(["id", "version", *columns])
        marks = ", ".join([":id", "1", *(f":{column}" for column in columns)])
        async with self.login("api").tenant(self.ctx.identity) as session:
            await session.execute(
                f"insert into {self.ontology.schema}.{object_type.table} ({names}) values ({marks})", {"id": object_id_, **columns}
            )
        row = {name: values.get(name) for name in object_type.properties}
        self.stored.setdefault(type_name, []).append({"id": str(object_id_), "version": 1, **row})
        return object_id_

    async def query(self, text: str, variables: dict[str, Any] | None = None, ctx: Context | None = None) -> Any:
        """A GraphQL answer's data."""
        return json.loads(await self.graphql.execute(ctx or self.ctx, GraphQLRequest(text, variables or {})))["data"]


def _physical(scale: int, value: Any, object_type: PropertyType) -> Any:
    return int(Decimal(value).scaleb(scale)) if object_type is PropertyType.DECIMAL and value is not None else value


def rendered(object_type: Any, row: dict[str, Any]) -> dict[str, Any]:
    """What a read should answer for a stored object."""
    return {name: value if name in ("id", "version") else render(object_type.properties[name], value) for name, value in row.items()}


def render(item: Any, value: Any) -> Any:
    """One value as JSON, by the rules of the documentation and not by the code's."""
    match value:
        case datetime():
            return f"{value.year:04}-{value:%m-%dT%H:%M:%S.%fZ}"
        case date() | UUID():
            return str(value)
        case Decimal():
            return format(value.quantize(Decimal(1).scaleb(-item.scale)), "f")
        case _:
            return value


async def make_shop(login: Callable[[str], Database], lane: Lane, tenant: Any, source: str) -> Shop:
    """Apply an ontology for a tenant."""
    async with login("migrate").system() as session:
        applied = await service.apply(session, tenant.context("operator"), source, names=login("migrate").names)
    objects = Objects(lane, Ontologies(login("api")))
    return Shop(tenant, login, applied.ontology, objects, GraphQL(objects))


async def fill(shop: Shop) -> None:
    """Two customers, five purchases, one of them dangling."""
    await shop.insert("region_info", code="north", label="The North")
    await shop.insert(
        "customer",
        code="c1",
        name="Ada",
        email="ada@example.org",
        region="north",
        active=True,
        since=date(2020, 2, 29),
        tier="gold",
        note="x",
    )
    await shop.insert("customer", code="c2", name="Zoë", tier="top-1")
    await shop.insert(
        "purchase", customer_code="c1", number=1, placed=datetime(2024, 1, 1, 12, tzinfo=UTC), amount=Decimal("12.50"), priority=1
    )
    await shop.insert(
        "purchase",
        customer_code="c1",
        number=2,
        placed=datetime(2024, 1, 2, 12, 0, 0, 5, tzinfo=UTC),
        amount=Decimal("0.07"),
        weight=0.1,
        priority=2,
    )
    await shop.insert("purchase", customer_code="c1", number=3, amount=None, rate=Decimal("-1.0001"), priority=2)
    await shop.insert(
        "purchase", customer_code="c2", number=1, placed=datetime(2024, 1, 1, 23, 59, tzinfo=UTC), amount=Decimal("100"), priority=3
    )
    await shop.insert("purchase", customer_code="gone", number=9007199254740993, priority=9)
