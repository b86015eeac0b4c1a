"""A gateway's view of the control plane: a real gRPC server on a real database."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import grpc
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenon.core import identity
from tenon.core.identity import KeyKind
from tenon.core.identity.api_keys import sha256
from tenon.core.identity.federation import issuers
from tenon.entrypoints.sync.server import serving
from tenon.inference import limits, models
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.inference.gateway_sync.generated.gateway_pb2_grpc import GatewayControlStub
from tenon.inference.limits.contracts import LimitDraft, Subject
from tenon.kit import clock
from tenon.kit.errors import Conflict, Unavailable
from tenon.kit.ids import uuid7

TOKEN = secrets.token_urlsafe(32)
DEADLINE_SECONDS = 20
HEARTBEAT_SECONDS_MAX = 5


@dataclass
class Server:
    port: int
    stub: GatewayControlStub

    def metadata(self, token: str = TOKEN, gateway: str = "gw-1") -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {token}"), ("tenon-gateway-id", gateway))

    def subscribe(self, known: int = 0, origin: str = "", gateway: str = "gw-1") -> Stream:
        request = wire.SubscribeRequest(gateway_id=gateway, known_revision=known, snapshot_origin=origin)
        return Stream(self.stub.Subscribe(request, metadata=self.metadata()))


class Stream:
    """Updates as a gateway reads them; `revisions` are those of all that came."""

    def __init__(self, call) -> None:
        self.call = call
        self.revisions: list[int] = []

    async def next(self) -> wire.Update:
        update = await asyncio.wait_for(self.call.read(), DEADLINE_SECONDS)
        assert update is not grpc.aio.EOF
        self.revisions.append(update.revision)
        return update

    async def until(self, is_expected: Callable[[wire.Update], bool]) -> wire.Update:
        async with asyncio.timeout(DEADLINE_SECONDS):  # heartbeats would keep it alive without end
            while not is_expected(update := await self.next()):
                pass
        return update

    async def caught_up(self) -> Stream:
        """After the first snapshot: what comes now are changes."""
        await self.until(lambda update: update.HasField("heartbeat"))
        return self

    async def key(self, key_id: str, is_expected: Callable[[wire.KeyRecord], bool] = lambda _: True) -> wire.KeyRecord:
        return (await self.until(lambda update: update.key.key_id == key_id and is_expected(update.key))).key

    async def key_in_snapshot(self, key_id: str) -> wire.KeyRecord:
        return next(key for key in (await self.next()).snapshot.keys if key.key_id == key_id)


@pytest.fixture(scope="module")
async def server(settings) -> AsyncIterator[Server]:
    hashed = {"gw-1": hashlib.sha256(TOKEN.encode()).hexdigest(), "gw-2": hashlib.sha256(b"other").hexdigest()}
    own = settings.model_copy(update={"sync_listen": "127.0.0.1:0", "gateway_tokens": hashed})
    async with serving(own) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Server(port, GatewayControlStub(channel))


@pytest.fixture
async def key(issue_key, tenant_a):
    return await issue_key(tenant_a.context("operator"), tenant_a.context("editor"))


# --- who a gateway is ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("tenon-gateway-id", "gw-1"),),
        (("authorization", f"Bearer {TOKEN}"),),
        (("authorization", "Bearer wrong"), ("tenon-gateway-id", "gw-1")),
        (("authorization", f"Basic {TOKEN}"), ("tenon-gateway-id", "gw-1")),
        (("authorization", f"Bearer {TOKEN}"), ("tenon-gateway-id", "gw-2")),  # another gateway's id
        (("authorization", f"Bearer {TOKEN}"), ("tenon-gateway-id", "gw-3")),
        (("authorization", f"Bearer {TOKEN}"), ("tenon-gateway-id", "gw-1"), ("tenon-gateway-id", "gw-2")),
        (("authorization", "Bearer wrong"), ("authorization", f"Bearer {TOKEN}"), ("tenon-gateway-id", "gw-1")),
    ],
)
async def test_whoever_is_not_enrolled_is_refused_everywhere(server, metadata) -> None:
    calls = [
        server.stub.ResolveKey(wire.ResolveKeyRequest(key_id="0" * 10), metadata=metadata),
        server.stub.Subscribe(wire.SubscribeRequest(gateway_id="gw-1"), metadata=metadata),
        server.stub.ShipUsage(metadata=metadata),
    ]
    for call in calls:
        assert await asyncio.wait_for(call.code(), DEADLINE_SECONDS) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_gateway_speaks_only_for_itself(server) -> None:
    stream = server.subscribe(gateway="gw-2")
    assert await stream.call.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_no_exception_text_leaves_the_process(server, monkeypatch) -> None:
    async def broken(*_args: object) -> None:
        raise RuntimeError("canary: password=hunter2")

    monkeypatch.setattr("tenon.core.identity.find_gateway_key", broken)
    call = server.stub.ResolveKey(wire.ResolveKeyRequest(key_id="0" * 10), metadata=server.metadata())
    assert await call.code() is grpc.StatusCode.INTERNAL
    assert "canary" not in (await call.details()) + str(await call.trailing_metadata())


# --- the stream ---------------------------------------------------------------------------------------------------------------------


async def test_the_first_message_is_a_snapshot_with_the_keys_record(server, tenant_a, key) -> None:
    update = await server.subscribe().next()
    record = next(record for record in update.snapshot.keys if record.key_id == key.key_id)
    editor = tenant_a.context("editor")
    assert record.secret_sha256 == sha256(key.text)
    assert (record.tenant_id, record.principal_id, record.project_id) == (str(editor.tenant), str(editor.principal), str(editor.project))
    assert (record.kind, record.may_call_models, record.revoked, record.session_id) == (wire.KEY_KIND_USER, True, False, "")
    assert 0 < record.revision <= update.revision
    assert update.snapshot.origin


async def test_who_may_call_models_is_policy(server, issue_key, tenant_a) -> None:
    operator = tenant_a.context("operator")
    viewer = await issue_key(operator, tenant_a.context("viewer"))
    base = await issue_key(operator, tenant_a.context("agent"), KeyKind.AGENT)
    snapshot = (await server.subscribe().next()).snapshot
    records = {record.key_id: record for record in snapshot.keys}
    assert not records[viewer.key_id].may_call_models
    assert not records[base.key_id].may_call_models
    assert records[base.key_id].kind == wire.KEY_KIND_AGENT


async def test_a_revocation_reaches_a_subscribed_gateway_within_a_second(server, database, tenant_a, issue_key, record_property) -> None:
    operator, stream, took = tenant_a.context("operator"), await server.subscribe().caught_up(), []
    for _ in range(10):
        key = await issue_key(operator, tenant_a.context("editor"))
        assert not (await stream.key(key.key_id)).revoked
        async with database.tenant(operator.identity) as session:
            await identity.revoke_key(session, operator, key.key_id)
        committed = time.perf_counter()
        assert (await stream.key(key.key_id)).revoked
        took.append(time.perf_counter() - committed)
    record_property("revocation_seconds", sorted(took))
    print(f"revocation seen after commit: median {sorted(took)[5]:.3f} s, worst {max(took):.3f} s")
    assert sorted(took)[5] < 1, "pushed, not polled"
    assert stream.revisions == sorted(stream.revisions)


async def test_a_principals_roles_and_disabling_reach_the_gateways(server, database, tenant_a, key, issue_key) -> None:
    operator, editor = tenant_a.context("operator"), tenant_a.context("editor")
    base = await issue_key(operator, tenant_a.context("agent"), KeyKind.AGENT)
    stream = await server.subscribe().caught_up()

    async def change(sql: str) -> None:
        async with database.tenant(operator.identity) as session:
            await session.execute(f"update tenon.principal set {sql} where id = :id", {"id": editor.principal})

    await change("roles = '{viewer}'")
    await stream.key(key.key_id, lambda record: not record.may_call_models and not record.revoked)
    await change("disabled_at = now()")
    # The agent acts for the editor: its keys end with its owner's.
    both = {(await stream.until(lambda update: update.key.revoked)).key.key_id for _ in range(2)}
    assert both == {key.key_id, base.key_id}
    await change("disabled_at = null, roles = '{editor}'")
    await stream.key(key.key_id, lambda record: record.may_call_models and not record.revoked)


async def test_a_known_revision_is_continued_and_another_origin_is_not(server, database, tenant_a, key, issue_key) -> None:
    operator = tenant_a.context("operator")
    first = server.subscribe()
    snapshot = await first.next()
    first.call.cancel()
    later = await issue_key(operator, tenant_a.context("editor"))
    async with database.tenant(operator.identity) as session:
        await identity.revoke_key(session, operator, key.key_id)
    again = server.subscribe(snapshot.revision, snapshot.snapshot.origin)
    updates = [await again.next() for _ in range(3)]
    assert [(update.key.key_id, update.key.revoked) for update in updates[:2]] == [(later.key_id, False), (key.key_id, True)]
    assert updates[2].HasField("heartbeat")
    assert again.revisions == sorted(again.revisions)
    for known, origin in ((snapshot.revision, "elsewhere"), (0, snapshot.snapshot.origin)):
        assert (await server.subscribe(known, origin).next()).HasField("snapshot")


async def test_a_database_that_went_back_gets_another_origin(server) -> None:
    origin = (await server.subscribe().next()).snapshot.origin
    rewound = await server.subscribe(2**60, origin).next()
    assert rewound.HasField("snapshot")
    assert rewound.snapshot.origin != origin


async def test_a_large_snapshot_is_finished_by_ordinary_changes(server, tenant_a, issue_key, monkeypatch) -> None:
    monkeypatch.setattr("tenon.inference.gateway_sync.feed.SNAPSHOT_KEYS_MAX", 2)
    monkeypatch.setattr("tenon.inference.gateway_sync.feed.PAGE_KEYS_MAX", 2)
    keys = [await issue_key(tenant_a.context("operator"), tenant_a.context("editor")) for _ in range(5)]
    stream = server.subscribe()
    first = await stream.next()
    assert len(first.snapshot.keys) == 2
    seen = {record.key_id for record in first.snapshot.keys}
    while not (update := await stream.next()).HasField("heartbeat"):
        seen.add(update.key.key_id)
    assert {key.key_id for key in keys} <= seen
    assert stream.revisions == sorted(stream.revisions)


async def test_no_change_is_lost_between_catching_up_and_following(server, issue_key, tenant_a) -> None:
    """Keys that are created while gateways subscribe reach each of them."""
    operator, editor = tenant_a.context("operator"), tenant_a.context("editor")
    issuing = asyncio.gather(*(issue_key(operator, editor) for _ in range(30)))
    streams = []
    for _ in range(10):
        streams.append(server.subscribe())
        await asyncio.sleep(0.02)
    issued = {key.key_id for key in await issuing}
    for stream in streams:
        seen: set[str] = set()
        while not issued <= seen:
            update = await stream.next()
            seen |= {record.key_id for record in update.snapshot.keys} | {update.key.key_id}
        assert stream.revisions == sorted(stream.revisions)


async def test_heartbeats_come_at_least_every_five_seconds(server) -> None:
    stream = server.subscribe()
    await stream.until(lambda update: update.HasField("heartbeat"))
    started = time.monotonic()
    beat = await stream.until(lambda update: update.HasField("heartbeat"))
    assert time.monotonic() - started < HEARTBEAT_SECONDS_MAX
    assert abs(beat.heartbeat.server_time_unix_ms / 1_000 - clock.now().timestamp()) < 5


# --- keys on demand -----------------------------------------------------------------------------------------------------------------


async def test_a_key_is_resolved_with_the_revision_at_which_it_was_true(server, key) -> None:
    answer = await server.stub.ResolveKey(wire.ResolveKeyRequest(key_id=key.key_id), metadata=server.metadata())
    assert answer.exists
    assert answer.key.key_id == key.key_id
    assert answer.revision >= answer.key.revision > 0
    unknown = await server.stub.ResolveKey(wire.ResolveKeyRequest(key_id="0" * 10), metadata=server.metadata())
    assert (unknown.exists, unknown.revision >= answer.revision) == (False, True)
    malformed = server.stub.ResolveKey(wire.ResolveKeyRequest(key_id="' or 1"), metadata=server.metadata())
    assert await malformed.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_long_expired_keys_are_not_sent(server, database, tenant_a, issue_key) -> None:
    operator = tenant_a.context("operator")
    old = await issue_key(operator, tenant_a.context("editor"), expires_at=clock.now() - timedelta(days=2))
    assert old.key_id not in {record.key_id for record in (await server.subscribe().next()).snapshot.keys}


async def test_a_tenant_cannot_choose_a_revision(server, database, tenant_a, key) -> None:
    """Else it could jump the stream, and everybody's revocations behind it would never be sent."""
    operator = tenant_a.context("operator")
    stream = await server.subscribe().caught_up()
    async with database.tenant(operator.identity) as session:
        await session.execute("update tenon.api_key set revision = 9000000000000 where key_id = :key", {"key": key.key_id})
        await session.execute("insert into tenon.routing (tenant_id, revision) values (:t, 9000000000001)", {"t": operator.tenant})
    await stream.key(key.key_id)
    assert (await stream.until(lambda update: update.HasField("routing"))).revision < 9_000_000


# --- routing ------------------------------------------------------------------------------------------------------------------------


async def test_routing_is_sent_as_a_whole_with_the_credential_sealed(server, database, settings, tenant_a) -> None:
    operator, installation = tenant_a.context("operator"), models.EndpointSettings.of(settings)
    stream = await server.subscribe().caught_up()
    async with database.tenant(operator.identity) as session:
        draft = models.EndpointDraft(
            "engine", "http://127.0.0.1:8000/v1/", credential="sk-upstream", cleared_markings=frozenset({"pii"}),
            timeouts=models.Timeouts(first_token_ms=30_000),
        )  # fmt: skip
        endpoint = await models.create_endpoint(session, operator, draft, installation)
        await models.put_model(session, operator, models.Model("org/tiny", (models.Route(endpoint.id, "tiny-v1", 3),)))
    table = (await stream.until(lambda update: update.routing.tenant_id == str(operator.tenant))).routing
    (received,), (model,) = table.endpoints, table.models
    assert (received.endpoint_id, received.base_url, list(received.cleared_markings)) == (
        str(endpoint.id),
        "http://127.0.0.1:8000/v1",
        ["pii"],
    )
    assert (received.first_token_timeout_ms, received.total_timeout_ms, received.protocol) == (30_000, 0, wire.PROTOCOL_OPENAI)
    sealed, key = received.sealed_credential, AESGCM(settings.sealing_key_file.read_bytes())
    assert key.decrypt(sealed[:12], sealed[12:], str(endpoint.id).encode()) == b"sk-upstream"
    assert (model.name, model.routes[0].upstream_model, model.routes[0].weight) == ("org/tiny", "tiny-v1", 3)
    async with database.tenant(operator.identity) as session:
        await models.delete_model(session, operator, "org/tiny")
        await models.delete_endpoint(session, operator, endpoint.id)
    gone = (await stream.until(lambda update: update.routing.tenant_id == str(operator.tenant))).routing
    assert (len(gone.endpoints), len(gone.models), gone.revision > table.revision) == (0, 0, True)


# --- usage --------------------------------------------------------------------------------------------------------------------------


def usage(holder, key_id: str, **changes) -> wire.UsageRecord:
    fields = {
        "record_id": uuid7().bytes, "request_id": "r", "gateway_id": "gw-1", "tenant_id": str(holder.tenant),
        "project_id": str(holder.project), "principal_id": str(holder.principal), "key_id": key_id, "model": "tiny",
        "operation": wire.OPERATION_CHAT, "outcome": wire.OUTCOME_COMPLETED, "http_status": 200,
        "usage_source": wire.USAGE_SOURCE_ENGINE, "input_tokens": 7, "output_tokens": 3,
        "started_at_unix_us": int(clock.now().timestamp() * 1e6), "duration_us": 1_000, "attempt": 1,
    }  # fmt: skip
    return wire.UsageRecord(**(fields | changes))


async def test_batches_are_acknowledged_after_their_commit_any_number_in_flight(server, login, tenant_a, key) -> None:
    holder = tenant_a.context("editor")
    records = [usage(holder, key.key_id) for _ in range(200)]
    batches = [wire.UsageBatch(batch_id=f"b{n}", records=records[n * 10 : n * 10 + 10]) for n in range(20)]
    batches += [wire.UsageBatch(batch_id="again", records=records[:50])]
    call = server.stub.ShipUsage(metadata=server.metadata())
    for batch in batches:
        await call.write(batch)
    acks = [await asyncio.wait_for(call.read(), DEADLINE_SECONDS) for _ in batches]
    await call.done_writing()
    assert {ack.batch_id for ack in acks} == {batch.batch_id for batch in batches}
    assert sum(ack.stored for ack in acks) == 200
    assert sum(ack.duplicates for ack in acks) == 50
    async with login("usage").system() as session:
        stored = await session.row(
            "select count(*) as calls, sum(input_tokens) as tokens, min(outcome) as outcome, min(operation) as operation"
            " from tenon.usage_record where key_id = :key", {"key": key.key_id},
        )  # fmt: skip
    assert dict(stored) == {"calls": 200, "tokens": 1_400, "outcome": "completed", "operation": "chat"}


async def test_nothing_is_acknowledged_when_it_cannot_be_stored(server, tenant_a, key, monkeypatch) -> None:
    async def broken(*_args: object) -> None:
        raise ConnectionError("canary")

    monkeypatch.setattr("tenon.inference.usage.repository.store", broken)
    call = server.stub.ShipUsage(metadata=server.metadata())
    await call.write(wire.UsageBatch(batch_id="b", records=[usage(tenant_a.context("editor"), key.key_id)]))
    assert await asyncio.wait_for(call.code(), DEADLINE_SECONDS) is grpc.StatusCode.UNAVAILABLE
    assert "canary" not in await call.details()


async def test_unknown_enumerations_and_strangers_are_quarantined_not_fatal(server, tenant_a, tenant_b, key) -> None:
    holder = tenant_a.context("editor")
    records = [
        usage(holder, key.key_id, outcome=99), usage(holder, key.key_id, gateway_id="gw-2"),
        usage(tenant_b.context("editor"), key.key_id), usage(holder, key.key_id, output_tokens=2**64 - 1), usage(holder, key.key_id),
    ]  # fmt: skip
    call = server.stub.ShipUsage(metadata=server.metadata())
    await call.write(wire.UsageBatch(batch_id="b", records=records))
    ack = await asyncio.wait_for(call.read(), DEADLINE_SECONDS)
    assert (ack.stored, ack.duplicates, ack.quarantined) == (1, 0, 4)


# --- the process --------------------------------------------------------------------------------------------------------------------


async def test_a_taken_port_is_said_and_production_needs_loopback(server, settings) -> None:
    with pytest.raises(Conflict, match="cannot be listened on"):
        async with serving(settings.model_copy(update={"sync_listen": f"127.0.0.1:{server.port}"})):
            pass
    with pytest.raises(Unavailable, match="loopback"):
        async with serving(settings.model_copy(update={"sync_listen": "0.0.0.0:0", "environment": "production"})):
            pass


async def test_stopping_ends_open_streams_at_once(settings) -> None:
    own = settings.model_copy(update={"sync_listen": "127.0.0.1:0", "gateway_tokens": {"gw-1": hashlib.sha256(TOKEN.encode()).hexdigest()}})
    async with serving(own) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = Server(port, GatewayControlStub(channel)).subscribe()
        await stream.next()
        started = time.monotonic()
    assert time.monotonic() - started < DEADLINE_SECONDS / 2


# --- credentials ------------------------------------------------------------------------------------------------------------------------


async def test_a_successor_counts_as_its_predecessor_and_both_are_sent(server, database, tenant_a, issue_key) -> None:
    operator = tenant_a.context("operator")
    key = await issue_key(operator, tenant_a.context("editor"))
    async with database.tenant(operator.identity) as session:
        await limits.create_limit(session, operator, LimitDraft(Subject.KEY, key.key_id, requests_per_minute=10))
    stream = await server.subscribe().caught_up()
    successors: list[str] = []
    for before in (key.key_id, None):
        async with database.tenant(operator.identity) as session:
            rotated = await identity.rotate_key(session, operator, before or successors[-1], overlap_seconds=60)
        successors.append(rotated.key_id)
        update = await stream.until(lambda update: update.HasField("governance"))
        assert list(update.governance.limits[0].also_keys) == sorted(successors)
    assert (await server.subscribe().key_in_snapshot(key.key_id)).replaced_by == successors[0]


async def test_an_issuer_and_its_subject_are_sent(server, database, login, tenant_a) -> None:
    operator, holder = tenant_a.context("operator"), tenant_a.context("editor")
    stream = await server.subscribe().caught_up()
    trusted = identity.IssuerRequest("idp", "https://idp.example", ("tenon",), "ES256", "https://127.0.0.1:9/")
    async with database.tenant(operator.identity) as session:
        issuer = (await identity.create_issuer(session, operator, trusted, http_allowed=True))["id"]
    received = (await stream.until(lambda update: update.HasField("issuer"))).issuer
    assert (received.issuer_id, list(received.audiences), received.algorithm, received.jwks) == (
        str(issuer),
        ["tenon"],
        "ES256",
        b'{"keys":[]}',
    )
    scope = identity.KeyScope(("chat",), ("10.0.0.0/8",), b"c" * 32, identity.Priority.LOW)
    request = identity.KeyRequest(
        holder.principal, holder.project, KeyKind.USER, "f", scope=scope, federation=identity.Federation(issuer, "robot")
    )
    async with database.tenant(operator.identity) as session:
        key_id = await identity.create_federated_credential(session, operator, request)
    key = await stream.key(key_id)
    assert (key.federation.issuer_id, key.federation.subject, key.secret_sha256) == (str(issuer), "robot", b"")
    assert (list(key.allowed_operations), list(key.source_networks), key.certificate_sha256) == (["chat"], ["10.0.0.0/8"], b"c" * 32)
    assert key.priority == wire.PRIORITY_LOW
    for id in (str(issuer), "nonsense", str(uuid7())):
        answered = await server.stub.ResolveKey(wire.ResolveKeyRequest(issuer_id=id), metadata=server.metadata())
        assert not answered.exists
    async with login("sync").system() as session:
        await issuers.keep_failure(session, tenant_a.tenant_id, issuer, "")
        due = await issuers.claim_due_issuers(session, least=0, every=1e6, again=1e6, limit=100)
        assert issuer in [row["id"] for row in due]
        assert await issuers.claim_due_issuers(session, least=0, every=1e6, again=1e6, limit=100) == []
        await issuers.keep_jwks(session, tenant_a.tenant_id, issuer, '{"keys":[1]}')
    changed = await stream.until(lambda update: update.HasField("issuer"))
    assert (changed.issuer.jwks, changed.revision > received.revision) == (b'{"keys":[1]}', True)
    assert abs(changed.committed_at_unix_ms - clock.now().timestamp() * 1_000) < 5_000
    async with database.tenant(operator.identity) as session:
        await identity.disable_issuer(session, operator, issuer)
    assert (await stream.until(lambda update: update.HasField("issuer"))).issuer.disabled
    snapshot = (await server.subscribe().next()).snapshot
    assert any(each.issuer_id == str(issuer) and each.disabled for each in snapshot.issuers)
