"""Queries of the ontology catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tenon.kit import canonical
from tenon.kit.database import WriteSession
from tenon.ontology.schema.contracts import Ontology
from tenon.ontology.schema.tables.physical_names import content_of, from_content

_NEWEST = text("""
    select version, digest, content, number_last from tenon.ontology_version where tenant_id = :tenant order by version desc limit 1
""")
_NEWEST_VERSION = text("select version from tenon.ontology_version where tenant_id = :tenant order by version desc limit 1")
_INSERT = text("""
    insert into tenon.ontology_version (tenant_id, version, digest, source, content, number_last, published_by)
    values (:tenant, :version, :digest, :source, :content, :number_last, :principal)
""").bindparams(bindparam("content", type_=JSONB))


@dataclass(frozen=True, slots=True)
class Published:
    """The newest version, and the highest number it or any before it gave to a table or column."""

    ontology: Ontology
    number_last: int


async def newest(session: WriteSession, tenant: UUID) -> Published | None:
    """The tenant's newest version."""
    row = await session.row(_NEWEST, {"tenant": tenant})
    if row is None:
        return None
    return Published(from_content(row["content"], row["version"], row["digest"]), row["number_last"])


async def newest_version(session: WriteSession, tenant: UUID) -> int | None:
    """The number of the tenant's newest version."""
    version = await session.scalar(_NEWEST_VERSION, {"tenant": tenant})
    return None if version is None else int(version)


async def lock(session: WriteSession, tenant: UUID) -> None:
    """Let one change of a tenant's ontology run at a time; released with the transaction."""
    await session.execute("select pg_advisory_xact_lock(hashtextextended('ontology:' || :tenant, 0))", {"tenant": str(tenant)})


async def insert(session: WriteSession, ontology: Ontology, source: str, number_last: int, principal: UUID) -> None:
    """Publish a version."""
    await session.execute(
        _INSERT,
        {
            "tenant": ontology.tenant,
            "version": ontology.version,
            "digest": ontology.digest,
            "source": source,
            "content": canonical.plain(content_of(ontology)),
            "number_last": number_last,
            "principal": principal,
        },
    )
