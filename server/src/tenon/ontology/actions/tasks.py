"""The worker's part: execute what was approved and not yet executed, and end what is past its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy.engine import RowMapping

from tenon.core.context import Context, TenantId
from tenon.kit import clock, telemetry
from tenon.kit.database import Database
from tenon.kit.errors import TenonError
from tenon.kit.ids import uuid7
from tenon.ontology.actions import overdue

BATCH = 50
REST_SECONDS = 1.0


def proposals_task(relay: Database, api: Database) -> Callable[[], Awaitable[int]]:
    """The task for the worker's loop, every REST_SECONDS. Two workers never execute one proposal twice: its row is locked."""

    async def run() -> int:
        return await settle_due(relay, api)

    return run


async def settle_due(relay: Database, api: Database) -> int:
    """Execute approved proposals and expire overdue ones, over all tenants; how many came to an end."""
    settled = 0
    for row in await overdue.due(relay, now=clock.now(), limit=BATCH):
        try:
            settled += await _settle(api, row)
        except TenonError as refusal:  # busy: next time
            telemetry.logger().info("proposal.not_settled", proposal=str(row["id"]), code=refusal.code)
        except Exception:  # one broken proposal does not stop the others
            telemetry.logger().exception("proposal.settling_failed", proposal=str(row["id"]))
    return settled


async def _settle(api: Database, row: RowMapping) -> bool:
    chain = overdue.chain_of(row)
    # In the proposer's name, with no rights of its own: execution derives the proposer's rights again.
    ctx = Context(TenantId(row["tenant_id"]), chain, frozenset(), frozenset(), request_id=f"worker-{uuid7()}")
    if row["expires_at"] <= clock.now():
        return await overdue.expire(api, ctx, row["id"])
    return await overdue.execute(api, ctx, row["id"])
