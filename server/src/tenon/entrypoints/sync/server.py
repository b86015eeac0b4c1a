"""Wire the feed, the usage store and the interceptor into one gRPC server."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from tenon.entrypoints.sync.tls import server_credentials
from tenon.inference.gateway_sync import AuthenticationInterceptor, Enrolment, Feed, GatewayControl
from tenon.inference.gateway_sync.generated.gateway_pb2_grpc import add_GatewayControlServicer_to_server
from tenon.inference.usage import UsageStore
from tenon.kit.database import Database
from tenon.kit.errors import Conflict, ErrorCode, Unavailable
from tenon.kit.settings import Settings

STOP_SECONDS_MAX = 5
MESSAGE_BYTES_MAX = 16 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),  # a snapshot may be large
    ("grpc.so_reuseport", 0),  # a second process on the port is a mistake that must be noticed
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 4_000),  # gateways ping every 5 s
    ("grpc.http2.max_ping_strikes", 0),
]


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[int]:
    """Serve while the block runs; the port. Raises Conflict `port_taken`, Unavailable `sync_needs_loopback`."""
    _check_address(settings)
    sync, usage = Database(settings.database, "sync", pool_size=4), Database(settings.database, "usage", pool_size=8)
    lease = Database(settings.database, "lease", pool_size=4)
    feed, store = Feed(sync), UsageStore(usage)
    server = grpc.aio.server(interceptors=[AuthenticationInterceptor(Enrolment(settings.gateway_tokens))], options=_OPTIONS)
    add_GatewayControlServicer_to_server(GatewayControl(feed, store, lease), server)
    port = _bind(server, settings)
    polling = asyncio.create_task(feed.run())
    try:
        await server.start()
        yield port
    finally:
        feed.close()
        await server.stop(STOP_SECONDS_MAX)
        await polling
        await sync.close()
        await usage.close()
        await lease.close()


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    address, credentials = settings.sync_listen, server_credentials(settings)
    try:
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        raise Conflict(ErrorCode.PORT_TAKEN, f"{address} cannot be listened on: something else does.", path="sync_listen") from None


def _check_address(settings: Settings) -> None:
    """In production tokens and key hashes must not leave the machine in plain sight."""
    if settings.sync_tls_cert_file:
        return
    host = settings.sync_listen.rpartition(":")[0].strip("[]")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if settings.environment == "production" and not loopback:
        raise Unavailable(
            ErrorCode.SYNC_NEEDS_LOOPBACK,
            f"In production sync_listen must be a loopback address, or sync_tls_cert_file be set; it is {settings.sync_listen}.",
        )
