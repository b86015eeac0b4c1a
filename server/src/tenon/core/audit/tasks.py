"""The worker's audit tasks: sequence, sign, publish."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

from tenon.core.audit import metrics, notes, publishing
from tenon.core.audit.journal import Journal
from tenon.core.audit.sequencer import Head, Sequencer
from tenon.kit.database import Database
from tenon.kit.settings import Settings

REST_SECONDS = 0.1


class SequencerTask:
    """One run sequences a batch, signs what has grown for a second and publishes what was signed."""

    def __init__(self, database: Database, sequencer: Sequencer, directory: Path) -> None:
        self._database = database
        self._sequencer = sequencer
        self._directory = directory
        self._waiting: dict[UUID, Head] | None = None  # signed, not yet published; None: not looked yet
        self._unsigned_since: float | None = None

    async def __call__(self) -> int:
        """The number of entries sequenced."""
        done = await self._sequencer.sequence()
        if done and self._unsigned_since is None:
            self._unsigned_since = time.monotonic()
        heads = await self._sequencer.sign()
        if heads:
            self._unsigned_since = None
        metrics.CHECKPOINTS.inc(len(heads))
        metrics.CHECKPOINT_LAG.set(time.monotonic() - self._unsigned_since if self._unsigned_since is not None else 0)
        await self._publish(heads)
        return done

    async def _publish(self, heads: list[Head]) -> None:
        """A head stays waiting until it is published, also over a failure or, by looking at all heads first, over a restart."""
        if self._waiting is None:
            self._waiting = {head.tenant: head for head in await self._sequencer.heads()}
        self._waiting.update((head.tenant, head) for head in heads)
        for head in list(self._waiting.values()):
            async with self._database.system() as session:
                await publishing.publish(session, self._directory, head)
            del self._waiting[head.tenant]


def sequencer_task(database: Database, settings: Settings) -> Callable[[], Awaitable[int]]:
    """The task for the worker's loop, every REST_SECONDS. `database` has login `sequencer`; raises Unavailable without a signing key."""
    installation = settings.database.installation
    signer = notes.Signer.load(notes.key_name(installation), settings.signing_key_file)
    publishing.write_public_key(settings.checkpoint_dir, signer.verifier_key)
    sequencer = Sequencer(database, Journal(settings.checkpoint_dir), signer, installation)
    return SequencerTask(database, sequencer, settings.checkpoint_dir)
