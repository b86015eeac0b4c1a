"""Issuers a tenant trusts, and credentials that are a subject of theirs. Part of the identity service."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core import audit
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.core.identity import repository
from tenon.core.identity.contracts import IssuerRequest, TrustedIssuer
from tenon.core.identity.federation.token_verification import ALGORITHMS, SUBJECT_BYTES_MAX
from tenon.core.policy import Action, Resource, authorize
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound
from tenon.kit.ids import uuid7

ISSUERS_MAX = 100  # a tenant
LEEWAY_MS_MAX = 300_000
LIFETIME_MS_MAX = 86_400_000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


async def create_issuer(session: WriteSession, ctx: Context, request: IssuerRequest, *, http_allowed: bool) -> dict[str, Any]:
    """Trust an identity provider; its keys are fetched within seconds. `http_allowed`: loopback addresses in development."""
    authorize(ctx, Action.MANAGE_ISSUERS, Resource("Tenant", str(ctx.tenant)))
    _check(request, http_allowed)
    held = await repository.issuers(session, ctx.tenant)
    if len(held) >= ISSUERS_MAX:
        raise Invalid(ErrorCode.TOO_MANY_ISSUERS, f"A tenant has at most {ISSUERS_MAX} issuers.")
    if any(row["name"] == request.name for row in held):
        raise Conflict(ErrorCode.ISSUER_NAME_TAKEN, f"There is an issuer named {request.name} already.")
    id = uuid7()
    await repository.insert_issuer(session, ctx.tenant, id, request)
    payload = {"issuer": request.issuer, "audiences": list(request.audiences), "algorithm": request.algorithm, "jwks_uri": request.jwks_uri}
    await audit.record(session, ctx, AuditEvent("issuer.create", "Issuer", str(id), payload=payload))
    return {"id": id, "name": request.name, **payload}


async def list_issuers(session: WriteSession, ctx: Context) -> list[dict[str, Any]]:
    """The tenant's issuers by name: when their keys were last fetched, and what failed since."""
    authorize(ctx, Action.MANAGE_ISSUERS, Resource("Tenant", str(ctx.tenant)))
    return await repository.issuers(session, ctx.tenant)


async def disable_issuer(session: WriteSession, ctx: Context, issuer: UUID) -> None:
    """Accept its tokens no longer, permanently: calls that run with one end within a second."""
    authorize(ctx, Action.MANAGE_ISSUERS, Resource("Tenant", str(ctx.tenant)))
    if not await repository.disable_issuer(session, ctx.tenant, issuer):
        raise issuer_not_found()
    await audit.record(session, ctx, AuditEvent("issuer.disable", "Issuer", str(issuer)))


async def refresh_issuer(session: WriteSession, ctx: Context, issuer: UUID) -> None:
    """Have its keys fetched now instead of at their time: after a rotation that could not wait."""
    authorize(ctx, Action.MANAGE_ISSUERS, Resource("Tenant", str(ctx.tenant)))
    if not await repository.request_issuer_refresh(session, ctx.tenant, issuer):
        raise issuer_not_found()
    await audit.record(session, ctx, AuditEvent("issuer.refresh", "Issuer", str(issuer)))


async def check_subject(session: WriteSession, ctx: Context, issuer: UUID, subject: str) -> None:
    """Raises NotFound for an issuer that is not the tenant's or is disabled, Conflict for a subject that has a credential."""
    if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX or not subject.isprintable():
        raise Invalid(ErrorCode.INVALID_SUBJECT, f"A subject is 1 to {SUBJECT_BYTES_MAX} bytes of printable text.", path="subject")
    enabled_issuers = [row for row in await repository.issuers(session, ctx.tenant) if row["id"] == issuer and row["disabled_at"] is None]
    if not enabled_issuers:
        raise issuer_not_found()
    if await repository.has_subject(session, ctx.tenant, issuer, subject):
        raise Conflict(ErrorCode.SUBJECT_TAKEN, "This subject has a credential already. Revoke it first.")


async def list_issuers_between(session: WriteSession, after: int, upto: int) -> list[TrustedIssuer]:
    """All tenants' issuers with revision in (after, upto], in revision order; disabled ones too. For the login `sync`."""
    rows = await session.rows(repository.ISSUERS_BETWEEN, {"after": after, "upto": upto})
    return [
        TrustedIssuer(
            row["tenant_id"], row["id"], row["revision"], row["changed_at"], row["disabled_at"] is not None, row["issuer"],
            tuple(row["audiences"]), row["algorithm"], row["jwks"], row["leeway_ms"], row["lifetime_max_ms"],
        )
        for row in rows
    ]  # fmt: skip


async def request_key_refresh(session: WriteSession, issuer: UUID) -> None:
    """A gateway met a token with a key that it does not know: fetch before the time, but not again and again. For the login `sync`."""
    await session.execute(repository.REQUEST_KEY_REFRESH, {"id": issuer})


async def claim_due_issuers(session: WriteSession, *, least: float, every: float, again: float, limit: int) -> list[RowMapping]:
    """Issuers whose keys are to be fetched now, claimed for the caller; all times in seconds. For the login `sync`."""
    return await session.rows(repository.CLAIM_DUE_ISSUERS, {"least": least, "every": every, "again": again, "limit": limit})


async def keep_jwks(session: WriteSession, tenant: UUID, issuer: UUID, jwks: str) -> None:
    """What was fetched is in force from the commit on; the same text as before makes no revision. For the login `sync`."""
    await session.execute(repository.KEEP_JWKS, {"tenant": tenant, "id": issuer, "jwks": jwks})


async def keep_failure(session: WriteSession, tenant: UUID, issuer: UUID, failure: str) -> None:
    """The last good keys stay in force. For the login `sync`."""
    await session.execute(repository.KEEP_FAILURE, {"tenant": tenant, "id": issuer, "failure": failure})


def issuer_not_found() -> NotFound:
    """It does not exist, or is another tenant's."""
    return NotFound(ErrorCode.ISSUER_NOT_FOUND, "There is no such issuer.")


def _check(request: IssuerRequest, http_allowed: bool) -> None:
    if not _NAME.fullmatch(request.name):
        raise Invalid(ErrorCode.INVALID_ISSUER_NAME, "A name is 1 to 63 lower-case letters, digits and . _ -", path="name")
    if not 1 <= len(request.issuer) <= 500 or not request.issuer.isprintable() or request.issuer != request.issuer.strip():
        raise Invalid(ErrorCode.INVALID_ISSUER, "The issuer is what its tokens say in `iss`, 1 to 500 printable characters.", path="issuer")
    audiences = request.audiences
    if not 1 <= len(audiences) <= 16 or not all(1 <= len(each) <= 500 and each.isprintable() for each in audiences):
        raise Invalid(ErrorCode.INVALID_AUDIENCES, "Name 1 to 16 audiences; a token must be for one of them.", path="audiences")
    if request.algorithm not in ALGORITHMS:
        raise Invalid(ErrorCode.UNKNOWN_ALGORITHM, f"An issuer has one algorithm of {', '.join(ALGORITHMS)}.", path="algorithm")
    if not 0 <= request.leeway_ms <= LEEWAY_MS_MAX or not 0 <= request.lifetime_max_ms <= LIFETIME_MS_MAX:
        raise Invalid(ErrorCode.INVALID_TIMES, "The leeway is at most five minutes, the longest lifetime at most a day.", path="leeway_ms")
    check_address(request.jwks_uri or request.issuer, http_allowed, path="jwks_uri" if request.jwks_uri else "issuer")


def check_address(uri: str, http_allowed: bool, *, path: str = "jwks_uri") -> None:
    """https, and in development http to this machine. What its name resolves to is looked at when it is fetched. Raises Invalid."""
    try:
        parts = urlsplit(uri)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    plain = parts.scheme == "http" and http_allowed and host in ("127.0.0.1", "::1", "localhost")
    formed = uri.isascii() and uri.isprintable() and " " not in uri and "\\" not in uri and len(uri) <= 500
    if not formed or not host or not (parts.scheme == "https" or plain) or parts.username or parts.password or parts.fragment:
        raise Invalid(
            ErrorCode.UNSAFE_JWKS_URI, "An issuer's keys are fetched from an https:// address without a user name or fragment.", path=path
        )
