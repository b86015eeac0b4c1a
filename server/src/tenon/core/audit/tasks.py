"""The worker's audit tasks: sequence, sign, publish."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

from tenon.core.audit import metrics
from tenon.core.audit.log import signed_notes
from tenon.core.audit.log.signed_heads import SignedHeads
from tenon.core.audit.sequencing import tile_files
from tenon.core.audit.sequencing.sequencer import Head, Sequencer
from tenon.kit.database import Database
from tenon.kit.settings import Settings

POLL_INTERVAL_SECONDS = 0.1
# A quiet log is not checked ten times a second for what there is to sign; but another replica may have died between sequencing and signing.
QUIET_AFTER_SECONDS = 3.0
QUIET_POLL_SECONDS = 5.0


class SequencerTask:
    """One run sequences a batch, signs what has grown for a second and publishes what was signed."""

    def __init__(self, database: Database, sequencer: Sequencer, directory: Path) -> None:
        self._database = database
        self._sequencer = sequencer
        self._directory = directory
        self._waiting: dict[UUID, Head] | None = None  # signed, not yet published; None: not looked yet
        self._unsigned_since: float | None = None
        self._busy_at = time.monotonic()
        self._polled_at = 0.0

    async def __call__(self) -> int:
        """The number of entries sequenced."""
        done, now = await self._sequencer.sequence(), time.monotonic()
        if done:
            self._busy_at = now
            self._unsigned_since = self._unsigned_since or now
        if now - self._busy_at < QUIET_AFTER_SECONDS or now - self._polled_at > QUIET_POLL_SECONDS:
            self._polled_at = now
            await self._sign()
        metrics.CHECKPOINT_LAG.set(now - self._unsigned_since if self._unsigned_since else 0)
        return done

    async def _sign(self) -> None:
        heads = await self._sequencer.sign()
        if heads:
            self._busy_at, self._unsigned_since = time.monotonic(), None
        metrics.CHECKPOINTS.inc(len(heads))
        await self._publish(heads)

    async def _publish(self, heads: list[Head]) -> None:
        """A head stays waiting until it is published, also over a failure or, by looking at all heads first, over a restart."""
        if self._waiting is None:
            self._waiting = {head.tenant: head for head in await self._sequencer.heads()}
        self._waiting.update((head.tenant, head) for head in heads)
        for head in list(self._waiting.values()):
            async with self._database.system() as session:
                await tile_files.publish(session, self._directory, head)
            del self._waiting[head.tenant]


def sequencer_task(database: Database, settings: Settings) -> Callable[[], Awaitable[int]]:
    """The task for the worker's loop, every POLL_INTERVAL_SECONDS. `database` has login `sequencer`; raises Unavailable without a signing key."""
    installation = settings.database.installation
    signer = signed_notes.Signer.load(signed_notes.key_name(installation), settings.signing_key_file)
    tile_files.write_public_key(settings.checkpoint_dir, signer.verifier_key)
    sequencer = Sequencer(database, SignedHeads(settings.checkpoint_dir), signer, installation)
    return SequencerTask(database, sequencer, settings.checkpoint_dir)
