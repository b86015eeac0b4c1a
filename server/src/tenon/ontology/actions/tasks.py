"""The worker's task: execute what was approved and not yet executed, and end what is past its expiry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenon.core.context import Context, TenantId
from tenon.kit import clock, telemetry
from tenon.kit.database import Database
from tenon.kit.errors import TenonError
from tenon.kit.ids import uuid7
from tenon.ontology.actions.proposals import expiry
from tenon.ontology.actions.proposals.contracts import DueProposal

BATCH = 50
POLL_INTERVAL_SECONDS = 1.0


def proposals_task(relay: Database, api: Database) -> Callable[[], Awaitable[int]]:
    """The task for the worker's loop, every POLL_INTERVAL_SECONDS. Two workers never execute one proposal twice: its row is locked."""

    async def run() -> int:
        return await settle_due(relay, api)

    return run


async def settle_due(relay: Database, api: Database) -> int:
    """Execute approved proposals and end expired ones, over all tenants; how many ended."""
    settled = 0
    for proposal in await expiry.list_due(relay, now=clock.now(), limit=BATCH):
        try:
            settled += await _settle(api, proposal)
        except TenonError as refusal:  # for example `objects_busy`: tried again next time
            telemetry.logger().info("proposal.not_settled", proposal=str(proposal.id), code=refusal.code)
        except Exception:  # one broken proposal does not stop the others
            telemetry.logger().exception("proposal.settling_failed", proposal=str(proposal.id))
    return settled


async def _settle(api: Database, proposal: DueProposal) -> bool:
    # As the proposer, without any rights: execution looks up the proposer's rights again.
    ctx = Context(TenantId(proposal.tenant), proposal.proposer, frozenset(), frozenset(), request_id=f"worker-{uuid7()}")
    if proposal.expires_at <= clock.now():
        return await expiry.expire(api, ctx, proposal.id)
    return await expiry.execute(api, ctx, proposal.id)
