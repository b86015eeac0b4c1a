"""The four calls of contracts/gateway.proto. Whoever gets here was authenticated by the interceptor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from tenon.core.identity import is_key_id
from tenon.inference.gateway_sync.enrolment import GATEWAY_ID
from tenon.inference.gateway_sync.feed import Feed, SubscriberTooSlow
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.inference.gateway_sync.generated.gateway_pb2_grpc import GatewayControlServicer
from tenon.inference.gateway_sync.leases import LeaseStream, Malformed
from tenon.inference.gateway_sync.messages import usage_claim
from tenon.inference.usage import UsageStore
from tenon.kit.database import Database

BATCHES_AT_ONCE = 4  # a stream; more wait, and the transport makes the gateway wait
RECORDS_A_BATCH_MAX = 10_000
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class GatewayControl(GatewayControlServicer):
    """Wiring of the feed, the usage store and the leases to the wire. `lease`: the login that leases and shares are granted by."""

    def __init__(self, feed: Feed, store: UsageStore, lease: Database) -> None:
        self._feed = feed
        self._store = store
        self._lease = lease

    async def Subscribe(self, request: wire.SubscribeRequest, context: ServicerContext) -> None:  # type: ignore[override]
        """Updates until either side ends it."""
        if request.gateway_id != gateway_of(context):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "gateway_id is not the enrolled gateway's")
        try:
            async with aclosing(self._feed.updates(request.known_revision, request.snapshot_origin)) as updates:  # type: ignore[type-var]
                async for update in updates:
                    await context.write(update)
        except SubscriberTooSlow:
            await context.abort(grpc.StatusCode.ABORTED, "too slow: subscribe again from the revision you are at")

    async def ResolveKey(self, request: wire.ResolveKeyRequest, context: ServicerContext) -> wire.ResolveKeyResponse:
        """One key as it is now; or, with `issuer_id`, have the issuer's keys fetched."""
        if request.issuer_id:
            await self._feed.request_issuer_keys(request.issuer_id)
            return wire.ResolveKeyResponse(exists=False)
        if not is_key_id(request.key_id):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "key_id is 10 base62 characters")
        return await self._feed.resolve(request.key_id)

    async def ShipUsage(self, request_iterator: AsyncIterator[wire.UsageBatch], context: ServicerContext) -> None:  # type: ignore[override]
        """Store batches side by side and acknowledge each after its commit; the first that fails ends the stream, unacknowledged."""
        await context.send_initial_metadata(())
        gateway, slots, writing = gateway_of(context), asyncio.Semaphore(BATCHES_AT_ONCE), asyncio.Lock()

        async def store(batch: wire.UsageBatch) -> None:
            try:
                receipt = await self._store.store(gateway, [usage_claim(record) for record in batch.records])
            finally:
                slots.release()
            async with writing:  # one write at a time is all a call can take
                await context.write(
                    wire.UsageAck(
                        batch_id=batch.batch_id, stored=receipt.stored, duplicates=receipt.duplicates, quarantined=receipt.quarantined
                    )
                )

        async with asyncio.TaskGroup() as storing:
            async for batch in request_iterator:
                if len(batch.records) > RECORDS_A_BATCH_MAX:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a batch has at most {RECORDS_A_BATCH_MAX} records")
                await slots.acquire()
                storing.create_task(store(batch))

    async def Lease(self, request_iterator: AsyncIterator[wire.LeaseRequest], context: ServicerContext) -> None:  # type: ignore[override]
        """Answer each message of a process after its commit, in order."""
        await context.send_initial_metadata(())
        stream = LeaseStream(self._lease, gateway_of(context))
        async for request in request_iterator:
            try:
                answer = await stream.answer(request)
            except Malformed as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            await context.write(answer)


def gateway_of(context: ServicerContext) -> str:
    """The enrolled gateway's id, which the interceptor has proven."""
    metadata = {name: value for name, value in context.invocation_metadata() or ()}
    return str(metadata[GATEWAY_ID])
