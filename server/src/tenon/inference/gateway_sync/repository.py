"""SQL of the stream's history, run as the login `sync`. The stream's rows belong to the slices that make them."""

from __future__ import annotations

from tenon.kit.database import WriteSession

# Revisions compare only within one history of one database: a restore starts a new timeline or has another identifier.
_HISTORY = """
select concat_ws('.', s.system_identifier, c.timeline_id, (select oid from pg_database where datname = current_database()))
from pg_control_system() s, pg_control_checkpoint() c
"""


async def history(session: WriteSession) -> str:
    """Names this history of this database."""
    return str(await session.scalar(_HISTORY))
