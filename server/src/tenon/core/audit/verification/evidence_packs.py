"""Verify an evidence pack or a receipt offline: no database, no settings, no other file of Tenon; the standard library and `cryptography`.

It may be copied and run alone: `python evidence_packs.py PACK [log.pub]`. The proof rests on the key that the reader got out of band:
`log.pub`, published by the operator when the log began. A pack can always agree with a key that it brings itself.

A pack is a ZIP of stored members laid out in exactly one way, so that every byte of the file is covered. The Merkle tree under the signed
checkpoint covers the entries, the manifest everything else; the container is rebuilt and compared.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RECEIPT_FORMAT = "tenon-receipt/1"
PACK_FORMAT = "tenon-evidence/1"
PAYLOAD_STATES = ("present", "withheld", "erased")
_ENTRY_FIELDS = {"entry", "index", "path", "payload", "payload_state", "salt"}
_RECEIPT_FIELDS = _ENTRY_FIELDS | {"format", "checkpoint", "public_key"}
_MEMBER = re.compile(r"entries/(\d{12})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json")
_ENTRY_ID = re.compile(rb'\\"id\\":\\"([0-9a-f-]{36})\\"')


class Damaged(Exception):
    """Something that does not verify, said in a sentence."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, in which file of the pack, and with which entry."""

    where: str
    message: str
    entry: str | None = None


@dataclass(slots=True)
class Report:
    """What was verified. `ok` says that nothing contradicts; only with `pinned` does it prove anything."""

    pinned: bool
    origin: str = ""
    size: int = 0
    root: str = ""
    indices: list[int] = field(default_factory=list)
    payloads_missing: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def lines(self) -> Iterator[str]:
        """The report for a person."""
        for problem in self.problems:
            yield f"FAILED  {problem.where}{f' (entry {problem.entry})' if problem.entry else ''}: {problem.message}"
        if self.origin:
            yield f"log     {self.origin}, {self.size} entries, root {self.root}"
        if self.indices:
            low, high = min(self.indices), max(self.indices)
            gaps = high - low + 1 - len(self.indices)
            yield f"entries {len(self.indices)}, from {low} to {high}, {f'{gaps} between them not in here' if gaps else 'without a gap'}"
        if self.payloads_missing:
            yield f"note    {self.payloads_missing} payloads are not in here (erased, or above the exporter's clearance); their hashes are proven"
        if not self.pinned:
            yield "WARNING no key was given: this shows only that the pack agrees with itself. Give the log.pub that you got from the operator."
        if not self.ok:
            yield "verification FAILED"
        else:
            yield "verified" if self.pinned else "consistent, but not proven"


# --- the tree (RFC 9162 §2.1) -------------------------------------------------------------------------------------------------------


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def includes(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """Whether `path` proves that the leaf hash stands at `index` in the tree (§2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, computed = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            computed = _node(step, computed)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            computed = _node(computed, step)
        at, last = at >> 1, last >> 1
    return last == 0 and computed == root


def continues(old: int, size: int, old_root: bytes, root: bytes, proof: list[bytes]) -> bool:
    """Whether `proof` shows that the tree of `size` begins with the tree of `old` leaves (§2.1.4.2)."""
    if not 0 < old <= size:
        return False
    if old == size:
        return not proof and old_root == root
    steps = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    at, last = old - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    if not steps:
        return False
    computed_old = computed = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            computed_old, computed = _node(step, computed_old), _node(step, computed)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            computed = _node(computed, step)
        at, last = at >> 1, last >> 1
    return last == 0 and computed_old == old_root and computed == root


# --- the signature (c2sp.org/signed-note, c2sp.org/tlog-checkpoint) ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed tree head. `extension` names the older log after a restore."""

    origin: str
    size: int
    root: bytes
    extension: tuple[str, ...]


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Damaged("a base64 value cannot be read") from None
    if base64.b64encode(raw).decode() != text:  # unused bits: two texts for one value
        raise Damaged("a base64 value is not in its only form")
    return raw


def read_key(line: str) -> tuple[str, bytes, Ed25519PublicKey]:
    """(name, key hash, key) of a verifier key `name+hash+key`; raises Damaged."""
    name, _, rest = line.strip().partition("+")
    key_hash, _, encoded = rest.partition("+")
    key = _base64(encoded)
    if len(key) != 33 or key[0] != 1:
        raise Damaged("the log's key is not an Ed25519 verifier key")
    if hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() != key_hash:
        raise Damaged("the log's key does not fit its own name and hash")
    return name, bytes.fromhex(key_hash), Ed25519PublicKey.from_public_bytes(key[1:])


def open_checkpoint(note: str, key_line: str) -> Checkpoint:
    """The checkpoint in a signed note, if this key signed exactly this text; raises Damaged."""
    name, key_hash, key = read_key(key_line)
    body, separator, signatures = note.rpartition("\n\n")
    if not separator:
        raise Damaged("the checkpoint is not a signed note")
    text = body + "\n"
    prefix = f"\u2014 {name} "
    if signatures.count("\n") != 1 or not signatures.startswith(prefix) or not signatures.endswith("\n"):
        raise Damaged("the checkpoint is not signed by the log's key")
    signature = _base64(signatures[len(prefix) : -1])
    if signature[:4] != key_hash:
        raise Damaged("the checkpoint is signed by another key")
    try:
        key.verify(signature[4:], text.encode())
    except InvalidSignature:
        raise Damaged("the checkpoint's signature is wrong") from None
    lines = text.split("\n")[:-1]
    if len(lines) < 3 or not lines[1].isdecimal() or str(int(lines[1])) != lines[1]:
        raise Damaged("the checkpoint has no origin, size and root")
    return Checkpoint(lines[0], int(lines[1]), _base64(lines[2]), tuple(lines[3:]))


# --- one entry -------------------------------------------------------------------------------------------------------------------------


def canonical(document: Mapping[str, Any]) -> bytes:
    """The only form in which documents of a pack are written."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_document(raw: bytes, fields: set[str]) -> dict[str, Any]:
    """A document in its only form with exactly these fields; raises Damaged."""
    try:
        document = json.loads(raw)
        if not isinstance(document, dict) or set(document) != fields or canonical(document) != raw:
            raise Damaged("the document is altered: it is not in the form in which it was written")
    except (ValueError, RecursionError):
        raise Damaged("the document is damaged: it cannot be read") from None
    return document


def check_entry(document: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """Raise Damaged unless the entry and its payload are what the checkpoint covers; the entry's id."""
    try:
        raw, index, hexed = document["entry"].encode(), document["index"], document["path"]
        entry, path = json.loads(raw), [bytes.fromhex(step) for step in hexed]
        if type(index) is not int or [step.hex() for step in path] != hexed:
            raise Damaged("the proof is altered")
        entry_id, tenant, expected = str(entry["id"]), str(entry["tenant_id"]), str(entry["payload_hash"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged("the entry or its proof cannot be read") from None
    if not includes(hashlib.sha256(b"\x00" + raw).digest(), index, checkpoint.size, path, checkpoint.root):
        raise Damaged(f"the entry is not what the log holds at {index}, or its proof is altered")
    if checkpoint.origin.rsplit("/", 1)[-1] != tenant:
        raise Damaged("the entry belongs to another tenant than the log")
    _check_payload(document, expected)
    return entry_id


def _check_payload(document: Mapping[str, Any], expected: str) -> None:
    payload, salt, state = document["payload"], document["salt"], document["payload_state"]
    if state not in PAYLOAD_STATES or (state == "present") != (payload is not None) or (payload is None) != (salt is None):
        raise Damaged("the payload's state is altered")
    if payload is None:
        return
    if not isinstance(payload, str) or not isinstance(salt, str) or not re.fullmatch("[0-9a-f]{64}", salt):
        raise Damaged("the payload or its salt cannot be read")
    if hashlib.sha256(bytes.fromhex(salt) + payload.encode()).hexdigest() != expected:
        raise Damaged("the payload or its salt is altered")


# --- the container -----------------------------------------------------------------------------------------------------------------

_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")
_LISTED = re.compile(rb"PK\x01\x02")
_DATE = 0x21  # 1980-01-01, the oldest a ZIP can say: a pack carries no clock


def _local(name: bytes, data: bytes) -> bytes:
    return _LOCAL.pack(b"PK\3\4", 20, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(name), 0) + name


def _central(name: bytes, data: bytes, offset: int) -> bytes:
    sizes = (zlib.crc32(data), len(data), len(data), len(name))
    return _CENTRAL.pack(b"PK\1\2", 0x314, 20, 0, 0, 0, _DATE, *sizes, 0, 0, 0, 0, 0o100644 << 16, offset) + name


def write_container(members: Mapping[str, bytes]) -> bytes:
    """The ZIP of these members in their order: the same members are always the same bytes."""
    parts, directory, offset = [], [], 0
    for name, data in members.items():
        header = _local(name.encode(), data)
        directory.append(_central(name.encode(), data, offset))
        parts += [header, data]
        offset += len(header) + len(data)
    listing = b"".join(directory)
    return b"".join(parts) + listing + _END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(listing), offset, 0)


def read_container(raw: bytes) -> tuple[dict[str, bytes], list[Problem]]:
    """The members, and every place where the file is not what `write_container` makes of them."""
    members: dict[str, bytes] = {}
    problems: list[Problem] = []
    offset = 0
    for start, end in _member_bounds(raw):
        offset = end
        length = int.from_bytes(raw[start + 26 : start + 28], "little")
        name_at = start + _LOCAL.size
        name = raw[name_at : name_at + length].decode("utf-8", "replace")
        data = raw[name_at + length : end]
        if _local(name.encode(), data) != raw[start : name_at + length] or name in members:
            listed = [known for at, known in _listed_names(raw).items() if start <= at < end]
            problems += [_problem(known, "its header or checksum in the container is altered") for known in listed or [name]]
        members.setdefault(name, data)
    if not problems:
        problems += _directory_problems(raw, members, offset)
    return members, problems


def _directory_problems(raw: bytes, members: Mapping[str, bytes], directory: int) -> list[Problem]:
    """Where the list of members at the container's end is not what it must be."""
    expected = write_container(members)
    if expected == raw:
        return []
    at = next((n for n, pair in enumerate(zip(expected, raw, strict=False)) if pair[0] != pair[1]), min(len(expected), len(raw)))
    begun = [match for match in _LISTED.finditer(expected, directory) if match.start() <= at]
    names = list(members)
    where = names[len(begun) - 1] if 0 < len(begun) <= len(names) and at < len(expected) - _END.size else "the container"
    return [_problem(where, f"the container's directory is altered at byte {at}")]


def _member_bounds(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where members stand: by their own headers, and where one is damaged by the next header's signature."""
    at = 0
    while at + _LOCAL.size <= len(raw) and raw[at : at + 4] not in (b"PK\1\2", b"PK\5\6"):
        fields = _LOCAL.unpack_from(raw, at)
        end = at + _LOCAL.size + fields[9] + fields[8]
        if fields[0] != b"PK\3\4" or raw[end : end + 4] not in (b"PK\3\4", b"PK\1\2"):
            computed = [n for n in (raw.find(b"PK\3\4", at + 4), raw.find(b"PK\1\2", at + 4)) if n >= 0]
            end = min(computed, default=len(raw))
        yield at, end
        at = end


def _listed_names(raw: bytes) -> dict[int, str]:
    """Offset -> name, as far as the directory can be read."""
    names = {}
    for match in _LISTED.finditer(raw):
        if match.start() + _CENTRAL.size <= len(raw):
            fields = _CENTRAL.unpack_from(raw, match.start())
            name_at = match.start() + _CENTRAL.size
            names[fields[16]] = raw[name_at : name_at + fields[10]].decode("utf-8", "replace")
    return names


def _problem(where: str, message: str) -> Problem:
    match = _MEMBER.fullmatch(where)
    return Problem(where, message, match[2] if match else None)


def manifest(members: Mapping[str, bytes]) -> bytes:
    """What must stand in `manifest.json`: the digest of every other member."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != "manifest.json"}
    return canonical({"format": PACK_FORMAT, "files": digests})


# --- packs and receipts ------------------------------------------------------------------------------------------------------------


def verify_pack(path: Path, public_key: str | None = None) -> Report:
    """Verify a pack or a single receipt. `public_key`: the text of the log.pub that the reader trusts, one verifier key a line."""
    return verify_bytes(path.read_bytes(), public_key, path.name)


def verify_bytes(raw: bytes, public_key: str | None = None, name: str = "the file") -> Report:
    """`verify_pack` for content at hand."""
    report = Report(pinned=public_key is not None)
    _run(report, name, raw, lambda: _verify(raw, public_key, report))
    return report


def _verify(raw: bytes, public_key: str | None, report: Report) -> None:
    if raw[:1] == b"{" or raw[-1:] == b"}":
        document = read_document(raw, _RECEIPT_FIELDS)
        if document["format"] != RECEIPT_FORMAT:
            raise Damaged(f"this is not a {RECEIPT_FORMAT}")
        checkpoint = _open(document["checkpoint"], document["public_key"], public_key, report)
        _verify_entry(document, checkpoint, report)
        return
    members, problems = read_container(raw)
    report.problems += problems
    try:
        note, key = members["checkpoint"].decode(), members["log.pub"].decode()
    except (KeyError, UnicodeDecodeError):
        raise Damaged("the pack has no readable checkpoint and log.pub") from None
    if members.get("manifest.json") != manifest(members):
        _blame_manifest(members, report)
    checkpoint = _open(note, key, public_key, report)
    for member, data in members.items():
        if member not in ("README.txt", "checkpoint", "log.pub", "manifest.json"):
            _run(report, member, data, lambda member=member, data=data: _verify_member(member, data, checkpoint, report))  # type: ignore[misc]


def _open(note: str, key: str, pinned: str | None, report: Report) -> Checkpoint:
    """Open the checkpoint with the pinned key, or for lack of one with the pack's own."""
    if pinned is not None and key.strip() not in [line.strip() for line in pinned.splitlines()]:
        raise Damaged("the pack brings another key than the one you trust")
    if key.strip() + "\n" != key:
        raise Damaged("log.pub is altered")
    checkpoint = open_checkpoint(note, key)
    report.origin, report.size, report.root = checkpoint.origin, checkpoint.size, checkpoint.root.hex()
    return checkpoint


def _verify_member(member: str, data: bytes, checkpoint: Checkpoint, report: Report) -> None:
    match = _MEMBER.fullmatch(member)
    if match is None:
        raise Damaged("this file does not belong in a pack, or its name is altered")
    document = read_document(data, _ENTRY_FIELDS)
    if (_verify_entry(document, checkpoint, report), document["index"]) != (match[2], int(match[1])):
        raise Damaged("the file's name is not its entry's")


def _verify_entry(document: Mapping[str, Any], checkpoint: Checkpoint, report: Report) -> str:
    entry_id = check_entry(document, checkpoint)
    report.indices.append(document["index"])
    report.payloads_missing += document["payload"] is None
    return entry_id


def _blame_manifest(members: Mapping[str, bytes], report: Report) -> None:
    """Say which file is not the one that the manifest names; if none can be named, the manifest itself."""
    try:
        named = dict(json.loads(members["manifest.json"])["files"])
    except (KeyError, ValueError, TypeError):
        named = {}
    wrong = [name for name, data in members.items() if name in named and named[name] != hashlib.sha256(data).hexdigest()]
    missing = [name for name in named if name not in members]
    report.problems += [_problem(name, "the file is not the one that the manifest names") for name in wrong]
    report.problems += [_problem(str(name), "the file is named by the manifest and is not here") for name in missing]
    if not wrong and not missing:
        report.problems.append(Problem("manifest.json", "the manifest is altered"))


def _run(report: Report, where: str, raw: bytes, check: Callable[[], None]) -> None:
    """Run a check; what it finds damaged goes to the report under the entry's id, as far as that can still be read."""
    try:
        check()
    except Damaged as damage:
        problem, match = _problem(where, str(damage)), _ENTRY_ID.search(raw)
        if problem.entry is None and match and b"PK\5\6" not in raw:
            problem = Problem(where, str(damage), match[1].decode())
        report.problems.append(problem)


def verify_command(path: Path, key: Path | None, write: Callable[[str], object] = sys.stdout.write) -> int:
    """`tenon audit verify PACK --key log.pub`: 0 proven, 1 failed, 2 nothing contradicts but no key was given."""
    if not path.is_file() or (key is not None and not key.is_file()):
        write(f"There is no file {path if not path.is_file() else key}.\n")
        return 1
    report = verify_pack(path, key.read_text() if key else None)
    for line in report.lines():
        write(line + "\n")
    return 1 if not report.ok else 0 if report.pinned else 2


if __name__ == "__main__":
    sys.exit(verify_command(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
