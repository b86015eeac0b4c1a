"""RFC 6962 trees against published vectors and against the definition, written down naively."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenon.core.audit.log import merkle
from tenon.core.audit.verification import evidence_packs

# The tree of certificate-transparency-go and of RFC 6962's reference implementation.
LEAVES = [
    bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return hashlib.sha256(b"\x01" + naive_root(hashes[:half]) + naive_root(hashes[half:])).digest()


def grown(hashes: list[bytes]) -> tuple[merkle.Frontier, list[bytes]]:
    frontier = merkle.Frontier(0, [])
    return frontier, [frontier.append(leaf) for leaf in hashes]


def leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(b"leaf %d" % n) for n in range(count)]


def test_published_roots() -> None:
    frontier = merkle.Frontier(0, [])
    assert frontier.root() == base64.b64decode("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        frontier.append(merkle.leaf_hash(leaf))
        assert frontier.root().hex() == root


def test_published_inclusion_path() -> None:
    _, stored = grown([merkle.leaf_hash(leaf) for leaf in LEAVES])
    path = merkle.resolve(merkle.inclusion_spans(5, 8), stored.__getitem__)
    assert [step.hex() for step in path] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_published_consistency_proof() -> None:
    _, stored = grown([merkle.leaf_hash(leaf) for leaf in LEAVES])
    proof = merkle.resolve(merkle.consistency_spans(6, 8), stored.__getitem__)
    assert [step.hex() for step in proof] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(st.integers(0, 300))
def test_roots_and_stored_frontiers_follow_the_definition(count: int) -> None:
    frontier, stored = grown(leaves(count))
    assert frontier.root() == naive_root(leaves(count))
    assert merkle.Frontier.load(count, frontier.dump()) == frontier
    if count:
        assert merkle.resolve([(0, count)], stored.__getitem__) == [frontier.root()]


@given(st.data())
def test_inclusion_holds_for_its_leaf_and_for_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    frontier, stored = grown(leaves(size))
    path, leaf = merkle.resolve(merkle.inclusion_spans(index, size), stored.__getitem__), leaves(size)[index]
    assert evidence_packs.includes(leaf, index, size, path, frontier.root())
    assert not evidence_packs.includes(leaves(301)[300], index, size, path, frontier.root())
    assert not evidence_packs.includes(leaf, index, size, [*path, leaf], frontier.root())
    if path:
        assert not evidence_packs.includes(leaf, index, size, path[:-1], frontier.root())
        assert not evidence_packs.includes(leaf, index ^ 1, size, path, frontier.root())


@given(st.data())
def test_consistency_holds_for_a_prefix_and_for_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(1, size))
    frontier, stored = grown(leaves(size))
    proof = merkle.resolve(merkle.consistency_spans(old, size), stored.__getitem__)
    old_root = naive_root(leaves(old))
    assert evidence_packs.continues(old, size, old_root, frontier.root(), proof)
    other = naive_root([merkle.leaf_hash(b"other"), *leaves(old)[1:]])
    assert not evidence_packs.continues(old, size, other, frontier.root(), proof)
    if old < size:
        assert not evidence_packs.continues(old, size, old_root, frontier.root(), proof[:-1])


def test_a_damaged_frontier_is_refused() -> None:
    with pytest.raises(ValueError, match="complete subtrees"):
        merkle.Frontier.load(3, b"\0" * 32)
