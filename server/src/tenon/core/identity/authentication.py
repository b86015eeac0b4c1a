"""From an API key or a trusted issuer's token to a Context: a look-up under the login `auth`, remembered for less than a second."""

from __future__ import annotations

import asyncio
import hmac
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy.engine import RowMapping

from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, ProjectId, SessionId, TenantId
from tenon.core.identity import api_keys, key_scopes, repository
from tenon.core.identity.contracts import KeyKind
from tenon.core.identity.federation.token_credentials import TokenCredentials, TokenRejected
from tenon.kit import clock
from tenon.kit.database import Database
from tenon.kit.errors import ErrorCode, Unauthenticated
from tenon.kit.lru import LruCache

REMEMBER_SECONDS = 0.8  # how long a revoked key may still pass in one API process
REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    """A key that was good when it was looked up at `looked_up_at` (monotonic seconds)."""

    looked_up_at: float
    expires_at: datetime | None
    context: Context
    networks: tuple[str, ...]
    certificate_sha256: bytes | None


class Authenticator:
    """Turns an API key or a token into a Context. What is remembered is found by its SHA-256, so its text is kept nowhere.

    Only good keys are remembered, so nobody can fill the memory; one look-up at a time for a key, so a busy key does not storm the database.
    """

    def __init__(self, auth: Database) -> None:
        self._auth = auth
        self._federated = TokenCredentials(auth)
        self._known: LruCache[bytes, _Known] = LruCache(REMEMBERED_MAX)
        self._pending: dict[bytes, asyncio.Task[_Known | None]] = {}

    async def authenticate(
        self, text: str, *, request_id: str, address: str | None = None, trace_id: str = "", sampled: bool = False
    ) -> Context:
        """The context of this key's principal. Raises Unauthenticated, always with the same sentence: why is for nobody outside; and
        Forbidden for a good key that is bound to another network, or to a certificate."""
        known = self._remembered(api_keys.sha256(text)) or await self._resolve(text)
        if known is None or (known.expires_at is not None and known.expires_at <= clock.now()):
            raise Unauthenticated(ErrorCode.INVALID_API_KEY, "This API key is not valid. Check it, or ask an operator for a new one.")
        key_scopes.check_source(known.networks, known.certificate_sha256, address)
        return replace(known.context, request_id=request_id, trace_id=trace_id, trace_sampled=sampled)

    async def still_valid(self, ctx: Context) -> bool:
        """Whether the key behind a long-lived stream would still authenticate to the same authority."""
        if ctx.valid_until is not None and ctx.valid_until <= clock.now():
            return False
        row = await self._row(ctx.key_id) if ctx.key_id else None
        if row is None or not _is_usable(row):
            return False
        now = context_of_row(row)
        return (now.roles, now.clearance) == (ctx.roles, ctx.clearance)

    def _remembered(self, sha256: bytes) -> _Known | None:
        known = self._known.get(sha256)
        return known if known is not None and time.monotonic() - known.looked_up_at < REMEMBER_SECONDS else None

    async def _resolve(self, text: str) -> _Known | None:
        parsed = api_keys.parse(text)
        if parsed is None and text.count(".") != 2:
            return None
        sha256 = parsed.sha256 if parsed else api_keys.sha256(text)
        task = self._pending.get(sha256)
        if task is None:  # a task of its own: a caller that goes away does not cancel the others' look-up
            resolution = self._resolve_key(parsed) if parsed else self._resolve_token(text, sha256)
            task = self._pending[sha256] = asyncio.create_task(resolution)
            task.add_done_callback(lambda _: self._pending.pop(sha256, None))
        return await asyncio.shield(task)

    async def _resolve_key(self, parsed: api_keys.ParsedKey) -> _Known | None:
        looked_up_at = time.monotonic()
        row = await self._row(parsed.key_id)
        secret = bytes(row["secret_sha256"] or b"") if row is not None else b""
        if row is None or not hmac.compare_digest(secret, parsed.sha256) or not _is_usable(row):
            self._known.discard(parsed.sha256)
            return None
        return self._known.put(parsed.sha256, _Known(looked_up_at, row["expires_at"], context_of_row(row), *_bounds(row)))

    async def _resolve_token(self, token: str, sha256: bytes) -> _Known | None:
        """A token's end is the caller's end, if the credential does not end before."""
        looked_up_at = time.monotonic()
        try:
            row, expires_unix_ms = await self._federated.credential(
                token.encode("latin-1", "replace"), int(clock.now().timestamp() * 1_000)
            )
        except TokenRejected:
            self._known.discard(sha256)
            return None
        if not _is_usable(row):
            return None
        end = datetime.fromtimestamp(expires_unix_ms / 1_000, UTC)
        expires_at = min(end, row["expires_at"] or end)
        return self._known.put(
            sha256, _Known(looked_up_at, expires_at, replace(context_of_row(row), valid_until=expires_at), *_bounds(row))
        )

    async def _row(self, key_id: str) -> RowMapping | None:
        async with self._auth.system() as session:
            return await session.row(repository.KEY_RECORD, {"key_id": key_id})


def _is_usable(row: RowMapping) -> bool:
    expired = row["expires_at"] is not None and row["expires_at"] <= clock.now()
    return not (row["revoked_at"] or row["disabled_at"] or row["owner_disabled_at"] or row["issuer_disabled_at"] or expired)


def _bounds(row: RowMapping) -> tuple[tuple[str, ...], bytes | None]:
    return tuple(row["source_networks"]), bytes(row["certificate_sha256"]) if row["certificate_sha256"] else None


def context_of_row(row: RowMapping) -> Context:
    """A session sees its ceiling, and never more than its agent and its owner may see now."""
    chain = [Actor(PrincipalId(row["id"]), PrincipalKind(row["principal_kind"]), row["name"])]
    clearance = frozenset(row["clearance"])
    if row["owner_id"]:
        chain.append(Actor(PrincipalId(row["owner_id"]), PrincipalKind(row["owner_kind"]), row["owner_name"]))
        clearance &= frozenset(row["owner_clearance"])
    kind = KeyKind(row["kind"])
    return Context(
        tenant=TenantId(row["tenant_id"]),
        chain=tuple(chain),
        roles=frozenset(row["roles"]),
        clearance=clearance & frozenset(row["ceiling"]) if kind is KeyKind.SESSION else clearance,
        request_id="",
        project=ProjectId(row["project_id"]),
        session=SessionId(row["session_id"]) if row["session_id"] else None,
        key_id=row["key_id"],
        opens_sessions_only=kind is KeyKind.AGENT,
    )
