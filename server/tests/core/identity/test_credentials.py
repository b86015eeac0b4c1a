"""What keys are bound to, rotation with overlap, issuers, and callers that show a token instead of a key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from tenon.core import identity
from tenon.core.context import PrincipalKind
from tenon.core.identity import Authenticator, Federation, IssuerRequest, KeyKind, KeyRequest, KeyScope, Priority, key_scopes
from tenon.core.identity.federation import jwks_fetching
from tenon.core.identity.federation.jwks_fetching import FetchFailed, Networks
from tenon.core.identity.tasks import Issuers
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.kit import clock
from tenon.kit.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated

HERE = Networks(loopback_allowed=True)
KINDS = {PrincipalKind.USER: KeyKind.USER, PrincipalKind.AGENT: KeyKind.AGENT}


def request(tenant, role="viewer", **fields) -> KeyRequest:
    holder = tenant.context(role)
    return KeyRequest(holder.principal, holder.project, KINDS[holder.actor.kind], "test", **fields)


async def issue(database, tenant, **fields):
    ctx = tenant.context("operator")
    async with database.tenant(ctx.identity) as session:
        return await identity.create_key(session, ctx, request(tenant, **fields), environment="test")


# --- what a key is bound to -----------------------------------------------------------------------------------------------------------


def test_operations_are_those_of_the_contract() -> None:
    assert tuple(name.removeprefix("OPERATION_").lower() for name, number in wire.Operation.items() if number) == key_scopes.OPERATIONS


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        (KeyScope(operations=("chat", "telepathy")), "unknown_operation"),
        (KeyScope(networks=("10.0.0.1/8",)), "invalid_network"),
        (KeyScope(networks=("home",)), "invalid_network"),
        (KeyScope(networks=("fe80::%1/64",)), "invalid_network"),
        (KeyScope(networks=("10.0.0.0/8",) * 65), "too_many_networks"),
        (KeyScope(certificate_sha256=b"x" * 31), "invalid_certificate_hash"),
    ],
)
async def test_a_scope_that_means_nothing_is_refused(database, tenant_a, scope: KeyScope, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        await issue(database, tenant_a, scope=scope)
    assert refused.value.code == code


async def test_a_key_bound_to_a_network_works_from_there_alone(database, login, tenant_a) -> None:
    key = await issue(database, tenant_a, scope=KeyScope(networks=("10.0.0.0/8", "::ffff:192.0.2.0/120", "2001:db8::/32")))
    authenticator = Authenticator(login("auth"))
    for address in ("10.1.1.1", "::ffff:10.1.1.1", "192.0.2.7", "2001:db8::1", None):
        await authenticator.authenticate(key.text, request_id="r", address=address)
    for address in ("11.0.0.1", "2001:db9::1", "", "unix:"):
        with pytest.raises(Forbidden) as refused:
            await authenticator.authenticate(key.text, request_id="r", address=address)
        assert refused.value.code == "network_not_allowed"


async def test_a_key_bound_to_a_certificate_is_of_no_use_where_none_is_taken(database, login, tenant_a) -> None:
    key = await issue(database, tenant_a, scope=KeyScope(certificate_sha256=b"c" * 32))
    with pytest.raises(Forbidden) as refused:
        await Authenticator(login("auth")).authenticate(key.text, request_id="r")
    assert refused.value.code == "certificate_required"


# --- rotation -------------------------------------------------------------------------------------------------------------------------


async def test_a_rotated_key_and_its_successor_are_both_good_until_the_overlap_ends(database, login, tenant_a) -> None:
    ctx, authenticator = tenant_a.context("operator"), Authenticator(login("auth"))
    scope = KeyScope(("chat",), ("127.0.0.0/8",), None, Priority.HIGH)
    old = await issue(database, tenant_a, allowed_models=("tiny",), strict=True, scope=scope)
    async with database.tenant(ctx.identity) as session:
        new = await identity.rotate_key(session, ctx, old.key_id, overlap_seconds=1)
        rows = {row["key_id"]: row for row in await identity.list_keys(session, ctx)}
    assert rows[old.key_id]["replaced_by"] == new.key_id
    same = ("principal_id", "name", "strict", "allowed_models", "allowed_operations", "source_networks", "priority")
    assert all(rows[old.key_id][name] == rows[new.key_id][name] for name in same)
    seen = [(await authenticator.authenticate(key.text, request_id="r", address="127.0.0.1")).key_id for key in (old, new)]
    assert seen == [old.key_id, new.key_id]
    await asyncio.sleep(1.1)
    await authenticator.authenticate(new.text, request_id="r", address="127.0.0.1")
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(old.text, request_id="r", address="127.0.0.1")


async def test_rotation_never_lengthens_a_life_and_happens_once(database, tenant_a, tenant_b) -> None:
    ctx, end = tenant_a.context("operator"), clock.now() + timedelta(minutes=5)
    old, gone = await issue(database, tenant_a, expires_at=end), await issue(database, tenant_a)
    async with database.tenant(ctx.identity) as session:
        new = await identity.rotate_key(session, ctx, old.key_id, overlap_seconds=3_600)
        ends = {row["key_id"]: row["expires_at"] for row in await identity.list_keys(session, ctx)}
        assert ends[old.key_id] == ends[new.key_id] == end
        await identity.revoke_key(session, ctx, gone.key_id)
        for key_id in (old.key_id, gone.key_id):
            with pytest.raises(Conflict):
                await identity.rotate_key(session, ctx, key_id, overlap_seconds=0)
        with pytest.raises(Invalid):
            await identity.rotate_key(session, ctx, new.key_id, overlap_seconds=31 * 86_400)
        with pytest.raises(Forbidden):
            await identity.rotate_key(session, replace(tenant_a.context("editor"), key_id=new.key_id), new.key_id, overlap_seconds=0)
    stranger = tenant_b.context("operator")
    async with database.tenant(stranger.identity) as session:
        with pytest.raises(NotFound):
            await identity.rotate_key(session, stranger, new.key_id, overlap_seconds=0)


# --- issuers --------------------------------------------------------------------------------------------------------------------------


@dataclass
class Provider:
    """An identity provider: answers whatever `body` holds, and signs."""

    port: int
    key: ECKey
    status: int = 200
    body: bytes = b""
    requests: int = 0
    headers: bytes = b""

    def publish(self, *keys: ECKey) -> None:
        self.body = json.dumps({"keys": [key.as_dict(private=False) | {"kid": key.kid, "use": "sig"} for key in keys]}).encode()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks"

    def token(self, **claims: Any) -> str:
        now = int(clock.now().timestamp())
        claims_sent = {"iss": "https://idp.example", "aud": "tenon", "sub": "robot", "iat": now, "exp": now + 60} | claims
        return jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims_sent, self.key, algorithms=["ES256"])


def new_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    created = Provider(0, new_key("one"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        created.requests += 1
        head = f"HTTP/1.1 {created.status} X\r\ncontent-length: {len(created.body)}\r\nconnection: close\r\n".encode()
        writer.write(head + created.headers + b"\r\n" + created.body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    created.port = server.sockets[0].getsockname()[1]
    created.publish(created.key)
    yield created
    server.close()


async def trust(database, tenant, provider: Provider, **changes: Any):
    ctx = tenant.context("operator")
    issuer_request = replace(IssuerRequest("idp", "https://idp.example", ("tenon",), "ES256", provider.uri), **changes)
    async with database.tenant(ctx.identity) as session:
        return (await identity.create_issuer(session, ctx, issuer_request, http_allowed=True))["id"]


async def federate(database, tenant, issuer, subject="robot", **fields) -> str:
    ctx = tenant.context("operator")
    async with database.tenant(ctx.identity) as session:
        return await identity.create_federated_credential(
            session, ctx, request(tenant, "editor", federation=Federation(issuer, subject), **fields)
        )


async def test_a_token_of_a_trusted_issuer_is_its_subjects_principal_until_something_ends(database, login, tenant_a, provider) -> None:
    issuer, fetch, auth = await trust(database, tenant_a, provider, leeway_ms=0), Issuers(login("sync"), HERE), login("auth")
    await federate(database, tenant_a, issuer)
    await fetch()
    ctx = await Authenticator(auth).authenticate(provider.token(), request_id="r")
    assert (ctx.principal, ctx.valid_until is not None) == (tenant_a.context("editor").principal, True)
    assert await Authenticator(auth).still_valid(ctx)
    assert not await Authenticator(auth).still_valid(replace(ctx, valid_until=clock.now()))
    refused = [
        provider.token(sub="stranger"),
        provider.token(aud="other"),
        provider.token(exp=int(clock.now().timestamp()) - 1),
        provider.token()[:-8] + "AAAAAAAA",
        provider.token(sub="robot\0"),
    ]
    for token in [*refused, "a.b.c", "..", "\u00ff.\u0100."]:
        with pytest.raises(Unauthenticated):
            await Authenticator(auth).authenticate(token, request_id="r")
    operator = tenant_a.context("operator")
    async with database.tenant(operator.identity) as session:
        await identity.disable_issuer(session, operator, issuer)
    assert not await Authenticator(auth).still_valid(ctx)
    with pytest.raises(Unauthenticated):
        await Authenticator(auth).authenticate(provider.token(), request_id="r")


async def test_a_subject_of_two_tenants_is_nobody_and_its_own_audience_helps(database, login, tenant_a, tenant_b, provider) -> None:
    for tenant, audiences in ((tenant_a, ("tenon", "a")), (tenant_b, ("tenon",))):
        await federate(database, tenant, await trust(database, tenant, provider, audiences=audiences))
    await Issuers(login("sync"), HERE)()
    with pytest.raises(Unauthenticated):
        await Authenticator(login("auth")).authenticate(provider.token(), request_id="r")
    ctx = await Authenticator(login("auth")).authenticate(provider.token(aud=["a"]), request_id="r")
    assert ctx.tenant == tenant_a.tenant_id


async def test_keys_rotate_at_their_time_and_the_last_good_ones_stay_when_nothing_good_comes(
    database, login, tenant_a, provider, monkeypatch
) -> None:
    ctx, fetch = tenant_a.context("operator"), Issuers(login("sync"), HERE)
    issuer = await trust(database, tenant_a, provider)
    await federate(database, tenant_a, issuer)

    async def claims_sent() -> tuple[int, dict[str, Any]]:
        async with login("sync").system() as session:
            revision = next(each.revision for each in await identity.list_issuers_between(session, 0, 1 << 62) if each.id == issuer)
        async with database.tenant(ctx.identity) as session:
            return revision, next(row for row in await identity.list_issuers(session, ctx) if row["id"] == issuer)

    async def again() -> tuple[int, dict[str, Any]]:
        async with database.tenant(ctx.identity) as session:
            await identity.refresh_issuer(session, ctx, issuer)
        await fetch()
        return await claims_sent()

    await fetch()
    first, row = await claims_sent()
    assert (row["keys"], row["failure"]) == (1, "")
    requests = provider.requests
    await again()
    assert provider.requests == requests, "asked twice within ten seconds"
    monkeypatch.setattr("tenon.core.identity.tasks.LEAST_SECONDS", 0.0)
    assert (await again())[0] == first, "the same keys are no revision"
    for status, body in ((500, provider.body), (200, b"{"), (200, b'{"keys":[]}'), (200, b"x" * (300 << 10)), (302, b"")):
        good, provider.status, provider.body = provider.body, status, body
        revision, row = await again()
        assert (revision, row["keys"], bool(row["failure"])) == (first, 1, True)
        await Authenticator(login("auth")).authenticate(provider.token(), request_id="r")
        provider.status, provider.body = 200, good
    old, provider.key = provider.key, new_key("two")
    provider.publish(old, provider.key)
    revision, row = await again()
    assert (revision > first, row["keys"], row["failure"]) == (True, 2, "")
    await Authenticator(login("auth")).authenticate(provider.token(), request_id="r")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "My IdP"}, "invalid_issuer_name"),
        ({"issuer": " https://idp.example"}, "invalid_issuer"),
        ({"audiences": ()}, "invalid_audiences"),
        ({"audiences": ("a", "")}, "invalid_audiences"),
        ({"algorithm": "HS256"}, "unknown_algorithm"),
        ({"algorithm": "none"}, "unknown_algorithm"),
        ({"leeway_ms": 300_001}, "invalid_times"),
        ({"jwks_uri": "http://idp.example/jwks"}, "unsafe_jwks_uri"),
        ({"jwks_uri": "ftp://127.0.0.1/"}, "unsafe_jwks_uri"),
        ({"jwks_uri": "https://user:pw@idp.example/"}, "unsafe_jwks_uri"),
        ({"jwks_uri": "", "issuer": "urn:idp"}, "unsafe_jwks_uri"),
    ],
)
async def test_an_issuer_that_cannot_be_trusted_is_refused(database, tenant_a, provider, changes, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        await trust(database, tenant_a, provider, **changes)
    assert refused.value.code == code


async def test_only_operators_and_only_of_the_tenant(database, tenant_a, tenant_b, provider) -> None:
    issuer = await trust(database, tenant_a, provider)
    for role in ("viewer", "editor", "approver", "agent"):
        ctx = tenant_a.context(role)
        async with database.tenant(ctx.identity) as session:
            with pytest.raises(Forbidden):
                await identity.list_issuers(session, ctx)
    stranger = tenant_b.context("operator")
    async with database.tenant(stranger.identity) as session:
        assert await identity.list_issuers(session, stranger) == []
        for change in (identity.disable_issuer, identity.refresh_issuer):
            with pytest.raises(NotFound):
                await change(session, stranger, issuer)
    with pytest.raises(NotFound):
        await federate(database, tenant_b, issuer)
    await federate(database, tenant_a, issuer)
    with pytest.raises(Conflict):
        await federate(database, tenant_a, issuer)


# --- where keys are fetched from ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "fe80::1",
     "fd00::1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::", "::", "ff02::1", "fd00:ec2::254", "198.18.0.1"],
)  # fmt: skip
async def test_addresses_inside_are_not_asked(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(FetchFailed, match="may not be reached"):
        await jwks_fetching.fetch_jwks(f"https://{host}/jwks", "i", "ES256", Networks())


async def test_a_name_with_two_faces_is_not_asked(monkeypatch) -> None:
    async def resolve(*_: object, **__: object) -> list[Any]:
        return [(2, 1, 6, "", (address, 443)) for address in ("8.8.8.8", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    with pytest.raises(FetchFailed, match="may not be reached"):
        await jwks_fetching.fetch_jwks("https://idp.example/jwks", "i", "ES256", Networks())


async def test_the_discovery_document_must_name_the_issuer(provider) -> None:
    issuer = f"http://127.0.0.1:{provider.port}"
    provider.body = json.dumps({"issuer": issuer + "/other", "jwks_uri": provider.uri}).encode()
    with pytest.raises(FetchFailed, match="another issuer"):
        await jwks_fetching.fetch_jwks("", issuer, "ES256", HERE)
    with pytest.raises(FetchFailed, match="no key that can be used"):
        jwks_fetching.usable_set(b'{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}', "ES256")


def test_private_members_are_dropped(provider) -> None:
    provider.body = json.dumps({"keys": [provider.key.as_dict(private=True)]}).encode()
    assert '"d"' not in jwks_fetching.usable_set(provider.body, "ES256")
