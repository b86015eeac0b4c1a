"""Merkle trees as they are stored: their nodes, old roots and proofs by key look-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import UUID

from tenon.core.audit import repository
from tenon.core.audit.log import merkle
from tenon.kit.database import WriteSession


async def stored_nodes(session: WriteSession, tenant: UUID, generation: int, indices: Iterable[int]) -> Callable[[int], bytes]:
    """What `Frontier.append` returned for these leaves."""
    sorted_indices = sorted(set(indices))
    rows = await session.rows(repository.NODES, {"tenant": tenant, "generation": generation, "indices": sorted_indices})
    nodes = {int(row["index"]): bytes(row["nodes"]) for row in rows}
    return nodes.__getitem__


async def root_at(session: WriteSession, tenant: UUID, generation: int, size: int) -> bytes:
    """The root that the tree had with `size` leaves; raises KeyError when it never had so many."""
    if size == 0:
        return merkle.EMPTY_ROOT
    spans = [(0, size)]
    return merkle.resolve(spans, await stored_nodes(session, tenant, generation, merkle.homes_of(spans)))[0]


async def inclusion_paths(session: WriteSession, tenant: UUID, generation: int, indices: list[int], size: int) -> dict[int, list[bytes]]:
    """For each leaf its path to the root of the tree of `size`."""
    spans = {index: merkle.inclusion_spans(index, size) for index in indices}
    homes = {home for each in spans.values() for home in merkle.homes_of(each)}
    stored = await stored_nodes(session, tenant, generation, homes)
    return {index: merkle.resolve(each, stored) for index, each in spans.items()}


async def consistency_path(session: WriteSession, tenant: UUID, generation: int, old: int, size: int) -> list[bytes]:
    """The proof that the tree of `size` begins with the tree of `old` leaves."""
    spans = merkle.consistency_spans(old, size)
    return merkle.resolve(spans, await stored_nodes(session, tenant, generation, merkle.homes_of(spans)))
