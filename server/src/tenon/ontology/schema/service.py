"""Publish and find ontologies. `plan` and `apply` run on a session of the login `migrate`, which owns the object tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg import errors as postgres
from sqlalchemy.exc import DBAPIError

from tenon.core import audit, events, policy
from tenon.core.context import Context
from tenon.core.policy import Action, Resource
from tenon.kit import clock
from tenon.kit.database import RoleNames, WriteSession
from tenon.ontology.schema import repository
from tenon.ontology.schema.cache import remember, remembered
from tenon.ontology.schema.contracts import Ontology, Problem
from tenon.ontology.schema.documents.parsing import parse_document
from tenon.ontology.schema.errors import busy, incompatible, invalid, no_ontology
from tenon.ontology.schema.tables import ddl
from tenon.ontology.schema.tables.change_plan import Change, Plan
from tenon.ontology.schema.tables.change_plan import plan as make_plan
from tenon.ontology.schema.tables.physical_names import numbers_of, resolve

LOCK_TIMEOUT = "2s"
ActionChecker = Callable[[Ontology], Sequence[Problem]]


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did. `changed` is False when the document was published already."""

    ontology: Ontology
    plan: Plan
    changed: bool


async def current(session: WriteSession, tenant: UUID) -> Ontology:
    """The tenant's published ontology as this transaction sees it. Raises NotFound `no_ontology`."""
    version = await repository.newest_version(session, tenant)
    if version is None:
        raise no_ontology()
    ontology = remembered(tenant, version)
    if ontology is None:
        published = await repository.newest(session, tenant)
        if published is None:
            raise no_ontology()
        ontology = remember(published.ontology)
    return ontology


async def plan(session: WriteSession, ctx: Context, source: str, *, names: RoleNames, check_actions: ActionChecker | None = None) -> Plan:
    """What `apply` would do. Raises Invalid when the document is wrong; what the stored objects cannot follow is in `problems`."""
    policy.authorize(ctx, Action.MANAGE_ONTOLOGY, Resource("Tenant", str(ctx.tenant)))
    return (await _prepare(session, ctx, source, names, check_actions))[0]


async def apply(
    session: WriteSession, ctx: Context, source: str, *, names: RoleNames, check_actions: ActionChecker | None = None
) -> Applied:
    """Publish the document: tables, catalogue, audit entry and event in this one transaction. A document published already changes nothing.

    Raises Invalid (`ontology_invalid`, `ontology_incompatible`) with every problem, Conflict `ontology_busy` when tables are in use.
    """
    policy.authorize(ctx, Action.MANAGE_ONTOLOGY, Resource("Tenant", str(ctx.tenant)))
    await repository.lock(session, ctx.tenant)
    plan, number_last = await _prepare(session, ctx, source, names, check_actions)
    if plan.problems:
        raise incompatible(plan.problems)
    if plan.empty:
        return Applied(plan.ontology, plan, changed=False)
    await session.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
    for change in plan.changes:
        await _run(session, change)
    await repository.insert(session, plan.ontology, source, number_last, ctx.principal)
    await _record_and_publish(session, ctx, plan)
    return Applied(plan.ontology, plan, changed=True)


async def _prepare(
    session: WriteSession, ctx: Context, source: str, names: RoleNames, check_actions: ActionChecker | None
) -> tuple[Plan, int]:
    definition = parse_document(source)
    published = await repository.newest(session, ctx.tenant)
    old = published.ontology if published else None
    numbers = numbers_of(old, published.number_last if published else 0)
    new = resolve(definition, numbers, ctx.tenant, old.version + 1 if old else 1)
    problems = list(check_actions(new)) if check_actions else []
    if problems:
        raise invalid(problems)
    return make_plan(old, new, names, clock.now().date()), numbers.last


async def _run(session: WriteSession, change: Change) -> None:
    for statement in change.statements:
        try:
            # exec_driver_sql: a colon in a pattern is no parameter.
            await session.connection.exec_driver_sql(statement.replace("%", "%%"))
        except DBAPIError as error:
            match error.orig:
                case postgres.LockNotAvailable():
                    raise busy() from error
                case postgres.CheckViolation() | postgres.NotNullViolation():
                    sentence = "Stored objects do not meet this; correct them first, or loosen it."
                    raise incompatible([Problem("stored_objects_violate", change.path, sentence)]) from error
            raise


async def _record_and_publish(session: WriteSession, ctx: Context, plan: Plan) -> None:
    facts = {"version": plan.ontology.version, "digest": plan.ontology.digest, "changes": len(plan.changes)}
    sentences = [change.sentence for change in plan.changes]
    await audit.record(
        session, ctx, audit.AuditEvent("ontology.apply", "Ontology", str(plan.ontology.version), payload={**facts, "sentences": sentences})
    )
    await events.publish(session, ctx, events.Event("tenon.ontology.applied.v1", f"ontology/{plan.ontology.version}", facts))


async def make_history_partitions(session: WriteSession, tenant: UUID, names: RoleNames) -> int:
    """Make the months' partitions of history that are missing, on a session of `migrate`; how many. For the worker, once a day."""
    ontology = await current(session, tenant)
    existing = {
        row["relname"]
        for row in await session.rows(
            "select relname from pg_class where relnamespace = to_regnamespace(:schema)::oid and relkind = 'r'", {"schema": ontology.schema}
        )
    }
    partitions = 0
    for object_type in ontology.object_types.values():
        for month in ddl.months(clock.now().date(), ddl.HISTORY_MONTHS_AHEAD):
            if f"{ddl.history_table(object_type)}_{month:%Y%m}" not in existing:
                for statement in ddl.month_statements(ontology, object_type, names, month):
                    await session.connection.exec_driver_sql(statement)
                partitions += 1
    return partitions
