"""Which credential a token stands for: the issuers of its name, one verified signature, one subject. As in the gateway's crate `policy`."""

from __future__ import annotations

from sqlalchemy.engine import RowMapping

from tenon.core.identity import repository
from tenon.core.identity.federation.token_verification import TokenRefused, Unverified, Verifier, compile_verifier
from tenon.kit.database import Database
from tenon.kit.lru import LruCache

ISSUERS_MAX = 8  # of one name and audience; more signatures are not checked for one token
COMPILED_MAX = 1_000


class TokenRejected(Exception):
    """For nobody outside: the sentence says which check failed."""


class TokenCredentials:
    """Looks up and verifies under the login `auth`. Compiled issuers are kept by their revision."""

    def __init__(self, auth: Database) -> None:
        self._auth = auth
        self._compiled: LruCache[tuple[str, int], Verifier | None] = LruCache(COMPILED_MAX)

    async def credential(self, token: bytes, now_unix_ms: int) -> tuple[RowMapping, int]:
        """(the credential's record, the instant from which the token is refused). Raises TokenRejected."""
        try:
            unverified = Unverified.parse(token)
        except TokenRefused as refused:
            raise TokenRejected(refused.reason) from None
        async with self._auth.system() as session:
            rows = await session.rows(repository.ISSUERS_NAMED, {"issuer": unverified.claimed_issuer or ""})
            verifiers = [(row, verifier) for row in rows if (verifier := self._verifier(row)) is not None]
            if len(verifiers) > 1:
                verifiers = [(row, verifier) for row, verifier in verifiers if unverified.names_audience_of(verifier)][:ISSUERS_MAX]
            matches, reason = [], "issuer"
            for row, verifier in verifiers:
                try:
                    claims = unverified.verify(verifier, now_unix_ms)
                except TokenRefused as refused:
                    reason = refused.reason
                    continue
                where = {"tenant": row["tenant_id"], "issuer": row["id"], "subject": claims.subject}
                # PostgreSQL holds no NUL in a text, so no credential can have one.
                record = await session.row(repository.SUBJECT_RECORD, where) if "\0" not in claims.subject else None
                if record is None:
                    reason = "subject_unknown"
                else:
                    matches.append((record, claims.expires_unix_ms))
        if len(matches) != 1:
            raise TokenRejected("ambiguous" if matches else reason)
        return matches[0]

    def _verifier(self, row: RowMapping) -> Verifier | None:
        key = (str(row["id"]), row["revision"])
        if key in self._compiled:
            return self._compiled.get(key)
        try:
            verifier = compile_verifier(
                row["issuer"], row["audiences"], row["algorithm"], row["jwks"].encode(), row["leeway_ms"], row["lifetime_max_ms"]
            )
        except ValueError:
            verifier = None
        return self._compiled.put(key, verifier)
