"""The Lease call: messages of a gateway's process into leases on budgets and shares of limits, and back."""

from __future__ import annotations

from uuid import UUID, uuid4

from tenon.inference import billing, limits
from tenon.inference.billing import GatewayProcess, LeaseAnswer, LeaseReport, LeaseRequest
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.inference.limits import Demand, Share, ShareRequest
from tenon.kit.database import Database

ITEMS_MAX = 20_000  # of each kind in a message
NANO_MAX = 2**62


class Malformed(Exception):
    """The message cannot be understood; its text names what is wrong and holds nothing else."""


class LeaseStream:
    """One stream of one process: answers its messages in order, one each. All lasting state is in the database, so any replica may serve."""

    def __init__(self, lease: Database, gateway: str) -> None:
        self._lease = lease
        self._gateway = gateway
        self._id = uuid4()
        self._number = 0
        self._process: UUID | None = None

    async def answer(self, request: wire.LeaseRequest) -> wire.LeaseResponse:
        """The answer to the next message. Raises Malformed."""
        if max(len(request.wants), len(request.reports), len(request.demands), len(request.shipped_process_ids)) > ITEMS_MAX:
            raise Malformed(f"a message has at most {ITEMS_MAX} of each kind")
        process = _id(request.process_id, "process_id")
        if self._process not in {None, process}:
            raise Malformed("a stream belongs to one process")
        self._process = process
        shipped = [_id(text, "shipped_process_ids") for text in request.shipped_process_ids]
        self._number += 1
        leases = await self._leases(request, process, shipped)
        shares = await self._shares(request, process, shipped)
        return _response(self._number, leases, shares)

    async def _leases(self, request: wire.LeaseRequest, process: UUID, shipped: list[UUID]) -> LeaseAnswer:
        requests = [LeaseRequest(_id(want.budget_id, "budget_id"), want.amount_nano) for want in request.wants]
        reports = [
            LeaseReport(_id(report.lease_id, "lease_id"), _nano(report.spent_nano), _nano(report.reserved_nano), report.close)
            for report in request.reports
        ]
        async with self._lease.system() as session:
            now = await session.scalar("select clock_timestamp()")
            sender = GatewayProcess(self._gateway, process, now, first_message=self._number == 1)
            return await billing.exchange_leases(session, sender, requests, reports, shipped)

    async def _shares(self, request: wire.LeaseRequest, process: UUID, shipped: list[UUID]) -> list[Share]:
        demands = [
            Demand(
                limit=_id(demand.limit_id, "limit_id"),
                requests=demand.requests,
                tokens=demand.tokens,
                concurrency=demand.concurrency,
                running=demand.running,
                used_requests=demand.used_requests,
                used_tokens=demand.used_tokens,
            )
            for demand in request.demands
        ]
        share_request = ShareRequest(
            gateway=self._gateway, process=process, stream=self._id, number=self._number, applied=request.applied_number
        )
        gone = [each for each in shipped if each != process]
        async with self._lease.system() as session:
            return await limits.exchange_shares(session, share_request, demands, gone)


def _response(number: int, leases: LeaseAnswer, shares: list[Share]) -> wire.LeaseResponse:
    return wire.LeaseResponse(
        leases=[
            wire.Lease(lease_id=str(grant.lease), budget_id=str(grant.budget), amount_nano=grant.amount_nano, valid_ms=grant.valid_ms)
            for grant in leases.grants
        ],
        denied=[
            wire.LeaseDenied(
                budget_id=str(denial.budget), remaining_nano=denial.remaining_nano, retry_after_ms=denial.retry_after_ms
            )
            for denial in leases.denials
        ],
        shares=[
            wire.Share(
                limit_id=str(share.limit), requests_per_minute=share.requests_per_minute, tokens_per_minute=share.tokens_per_minute,
                concurrency=share.concurrency, valid_ms=share.valid_ms,
            )
            for share in shares
        ],
        closed_lease_ids=[str(lease) for lease in leases.closed],
        number=number,
    )  # fmt: skip


def _id(text: str, name: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Malformed(f"{name} is a UUID") from None


def _nano(amount: int) -> int:
    if not 0 <= amount <= NANO_MAX:
        raise Malformed("an amount is 0 to 2^62")
    return amount
