"""RFC 6962 / RFC 9162 Merkle trees that only grow: hashing, appending, and which nodes a proof needs.

Every complete subtree gets its hash when its last leaf is appended, and is stored with that leaf. Node (level, k) covers the leaves
k·2^level … (k+1)·2^level - 1. It is the `level`-th hash of its last leaf. So a tree needs no table of nodes: every node is found by one
key look-up, and any old root or proof costs O(log n) of them. Verifying is not here but in `verification`, which stands alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Frontier:
    """The right edge of a tree: the hashes of its complete subtrees, largest first. All that appending needs."""

    size: int
    hashes: list[bytes]

    @classmethod
    def load(cls, size: int, stored: bytes) -> Frontier:
        """From `dump`; raises ValueError when it does not fit the size."""
        if len(stored) != HASH_BYTES * size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(stored) / HASH_BYTES}")
        return cls(size, [stored[at : at + HASH_BYTES] for at in range(0, len(stored), HASH_BYTES)])

    def dump(self) -> bytes:
        """What to store."""
        return b"".join(self.hashes)

    def append(self, leaf: bytes) -> bytes:
        """Add one leaf hash; the hashes of all subtrees that it completes, its own first, to be stored with it."""
        completed = [leaf]
        before = self.size
        while before & 1:
            leaf = node_hash(self.hashes.pop(), leaf)
            completed.append(leaf)
            before >>= 1
        self.hashes.append(leaf)
        self.size += 1
        return b"".join(completed)

    def root(self) -> bytes:
        """The tree's root hash."""
        return fold(self.hashes)


def fold(subtrees: list[bytes]) -> bytes:
    """The root over complete subtrees from left to right, largest first."""
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1]
    for subtree in reversed(subtrees[:-1]):
        root = node_hash(subtree, root)
    return root


Span = tuple[int, int]  # leaves [first, end)
Node = tuple[int, int]  # (level, k)


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The subtrees whose hashes prove leaf `index` in a tree of `size`, lowest first (RFC 9162 §2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    spans: list[Span] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((first, middle))
            first = middle
    return spans[::-1]


def consistency_spans(old: int, size: int) -> list[Span]:
    """The subtrees whose hashes prove that a tree of `size` goes on from one of `old` leaves (RFC 9162 §2.1.4.1)."""
    if not 0 < old <= size:
        raise ValueError(f"no proof from {old} to {size} leaves")
    spans: list[Span] = []
    first, end, whole = 0, size, True
    while old != end:
        middle = first + _split(end - first)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((first, middle))
            first, whole = middle, False
    if not whole:
        spans.append((first, end))
    return spans[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def nodes_of(span: Span) -> Iterator[Node]:
    """The complete subtrees that make up a span of a proof, left to right."""
    first, end = span
    while first < end:
        level = (end - first).bit_length() - 1
        yield level, first >> level
        first += 1 << level


def home_of(node: Node) -> int:
    """The index of the leaf that the node's hash is stored with."""
    level, k = node
    return (k + 1 << level) - 1


def homes_of(spans: list[Span]) -> set[int]:
    """The leaves to fetch for these spans."""
    return {home_of(node) for span in spans for node in nodes_of(span)}


def resolve(spans: list[Span], stored: Callable[[int], bytes]) -> list[bytes]:
    """The spans' hashes; `stored(index)` gives what `append` returned for that leaf."""

    def hash_of(node: Node) -> bytes:
        at = node[0] * HASH_BYTES
        return stored(home_of(node))[at : at + HASH_BYTES]

    return [fold([hash_of(node) for node in nodes_of(span)]) for span in spans]
