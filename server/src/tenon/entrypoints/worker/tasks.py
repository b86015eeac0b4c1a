"""Every background loop there is."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tenon.core import events
from tenon.core.audit.tasks import POLL_INTERVAL_SECONDS as SEQUENCER_POLL_SECONDS
from tenon.core.audit.tasks import sequencer_task
from tenon.core.events.tasks import POLL_INTERVAL_SECONDS as OUTBOX_POLL_SECONDS
from tenon.core.events.tasks import outbox_task
from tenon.core.identity.tasks import POLL_INTERVAL_SECONDS as ISSUERS_POLL_SECONDS
from tenon.core.identity.tasks import issuers_task
from tenon.entrypoints.worker import event_lag
from tenon.entrypoints.worker.database_maintenance import DatabaseMaintenance
from tenon.entrypoints.worker.loops import Loop
from tenon.inference.billing.tasks import POLL_INTERVAL_SECONDS as LEASES_POLL_SECONDS
from tenon.inference.billing.tasks import lease_retention_task
from tenon.inference.usage.tasks import POLL_INTERVAL_SECONDS as RELEASE_POLL_SECONDS
from tenon.inference.usage.tasks import quarantine_release_task
from tenon.kit.database import Database
from tenon.kit.settings import Settings
from tenon.ontology.actions.tasks import POLL_INTERVAL_SECONDS as PROPOSALS_POLL_INTERVAL_SECONDS
from tenon.ontology.actions.tasks import proposals_task

EVENT_LAG_POLL_SECONDS = 0.25


def loops(settings: Settings, opened: AsyncExitStack) -> list[Loop]:
    """The loops, on logins that `opened` closes."""

    def login(name: str) -> Database:
        database = Database(settings.database, name, pool_size=3)
        opened.push_async_callback(database.close)
        return database

    relay = login("relay")
    return [
        Loop("audit.sequence", sequencer_task(login("sequencer"), settings), SEQUENCER_POLL_SECONDS),
        Loop("events.outbox", outbox_task(relay, settings), OUTBOX_POLL_SECONDS),
        Loop("events.relay", events.subscribe(relay, event_lag.CONSUMER, event_lag.observe), EVENT_LAG_POLL_SECONDS),
        Loop("actions.proposals", proposals_task(relay, login("api")), PROPOSALS_POLL_INTERVAL_SECONDS),
        Loop("identity.issuers", issuers_task(login("sync"), settings), ISSUERS_POLL_SECONDS),
        Loop("usage.release", quarantine_release_task(login("usage")), RELEASE_POLL_SECONDS),
        Loop("billing.leases", lease_retention_task(login("lease")), LEASES_POLL_SECONDS),
        Loop("database.maintenance", DatabaseMaintenance(login("migrate")), 60.0),
    ]
