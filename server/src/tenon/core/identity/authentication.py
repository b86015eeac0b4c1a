"""From an API key to a Context: one look-up under the login `auth`, remembered for less than a second."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.engine import RowMapping

from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, ProjectId, SessionId, TenantId
from tenon.core.identity import api_keys, repository
from tenon.core.identity.contracts import KeyKind
from tenon.kit import clock
from tenon.kit.database import Database
from tenon.kit.errors import Unauthenticated

REMEMBER_SECONDS = 0.8  # how long a revoked key may still pass in one API process
REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    """A key that was good when it was looked up at `asked` (monotonic seconds)."""

    asked: float
    expires_at: datetime | None
    context: Context


class Authenticator:
    """Turns an API key into a Context. What is remembered is found by the key's SHA-256, so its text is kept nowhere.

    Only good keys are remembered, so nobody can fill the memory; one look-up at a time for a key, so a busy key does not storm the database.
    """

    def __init__(self, auth: Database) -> None:
        self._auth = auth
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Known | None]] = {}

    async def authenticate(self, text: str, *, request_id: str, trace_id: str = "", sampled: bool = False) -> Context:
        """The context of this key's principal. Raises Unauthenticated, always with the same sentence: why is for nobody outside."""
        known = self._remembered(api_keys.sha256(text)) or await self._ask(text)
        if known is None or (known.expires_at is not None and known.expires_at <= clock.now()):
            raise Unauthenticated("invalid_api_key", "This API key is not valid. Check it, or ask an operator for a new one.")
        return replace(known.context, request_id=request_id, trace_id=trace_id, trace_sampled=sampled)

    async def still_valid(self, ctx: Context) -> bool:
        """Whether the key behind a long-lived stream would still authenticate to the same authority."""
        row = await self._row(ctx.key_id) if ctx.key_id else None
        if row is None or not _is_usable(row):
            return False
        now = context_of_row(row)
        return (now.roles, now.clearance) == (ctx.roles, ctx.clearance)

    def _remembered(self, sha256: bytes) -> _Known | None:
        known = self._known.get(sha256)
        return known if known is not None and time.monotonic() - known.asked < REMEMBER_SECONDS else None

    async def _ask(self, text: str) -> _Known | None:
        parsed = api_keys.parse(text)
        if parsed is None:
            return None
        asking = self._asking.get(parsed.sha256)
        if asking is None:  # a task of its own: a caller that goes away does not cancel the others' look-up
            asking = self._asking[parsed.sha256] = asyncio.create_task(self._look_up(parsed))
            asking.add_done_callback(lambda _: self._asking.pop(parsed.sha256, None))
        return await asyncio.shield(asking)

    async def _look_up(self, parsed: api_keys.ParsedKey) -> _Known | None:
        asked = time.monotonic()
        row = await self._row(parsed.key_id)
        if row is None or not hmac.compare_digest(bytes(row["secret_sha256"]), parsed.sha256) or not _is_usable(row):
            self._known.pop(parsed.sha256, None)
            return None
        known = self._known[parsed.sha256] = _Known(asked, row["expires_at"], context_of_row(row))
        self._known.move_to_end(parsed.sha256)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return known

    async def _row(self, key_id: str) -> RowMapping | None:
        async with self._auth.system() as session:
            return await session.row(repository.KEY_RECORD, {"key_id": key_id})


def _is_usable(row: RowMapping) -> bool:
    expired = row["expires_at"] is not None and row["expires_at"] <= clock.now()
    return not (row["revoked_at"] or row["disabled_at"] or row["owner_disabled_at"] or expired)


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
