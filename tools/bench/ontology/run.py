"""Object reads beside PostGraphile and pgbench, on one PostgreSQL with the same flights, in one run (`make bench-ontology`).

Needs npm (for the peer and its Node), wrk and pgbench. Each server is one process, warmed, then loaded by `wrk` with 200 different values, at
one and at eight connections, alternating; the median of the rounds is printed. Tenon's answers pass the whole HTTP stack with authentication;
PostGraphile runs without any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg.conninfo
from reads import Read, reads
from servers import postgraphile, tenon
from world import Loaded, load

from tenon.kit.database import embedded

CONNECTIONS = (1, 8)


@dataclass(frozen=True, slots=True)
class Result:
    """Requests a second and the median time of one."""

    per_second: float
    p50: str


def main() -> None:
    """Load, start, measure, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=6, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--hold", action="store_true", help="keep everything running instead of measuring")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenon-bench-") as scratch, ExitStack() as running:
        Path(scratch).chmod(0o755)
        server = embedded.start(Path(scratch), embedded.free_port(), extra=("max_wal_size=8GB",))
        running.callback(server.stop)
        world = asyncio.run(load(server, Path(scratch)))
        ours = running.enter_context(tenon(world))
        peer = running.enter_context(postgraphile(world, embedded.free_port()))
        if given.hold:
            print(json.dumps({"tenon": ours, "key": world.key, "peer": peer, "admin": world.admin, "scratch": scratch}), flush=True)
            while True:
                time.sleep(3600)
        for read in reads(world):
            _same_answers(read, ours, peer, world.key)
            _measure(read, ours, peer, world, Path(scratch), given.seconds, given.rounds)


def _same_answers(read: Read, ours: str, peer: str, key: str) -> None:
    """Both servers must answer with the same number of objects and values before they are compared."""
    for mine, theirs in list(zip(read.tenon, read.peer, strict=True))[:10]:
        counts = [_leaves(_post(ours, "/v1/graphql", mine, key)), _leaves(_post(peer, "/graphql", theirs, None))]
        if counts[0] != counts[1] or counts[0] < 5:
            sys.exit(f"the {read.name} read's answers differ: {counts[0]} and {counts[1]} values for {mine}")


def _post(address: str, path: str, body: str, key: str | None) -> object:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(urllib.request.Request(address + path, body.encode(), headers), timeout=10) as answer:  # noqa: S310 (loopback)
        return json.load(answer)


def _leaves(value: object) -> int:
    if isinstance(value, dict):
        return sum(_leaves(each) for each in value.values())
    if isinstance(value, list):
        return sum(_leaves(each) for each in value)
    return 1


def _measure(read: Read, ours: str, peer: str, world: Loaded, scratch: Path, seconds: int, rounds: int) -> None:
    for connections in CONNECTIONS:
        found: dict[str, list[Result]] = {}
        for _ in range(rounds):
            found.setdefault("Tenon, GraphQL", []).append(_wrk(ours, "/v1/graphql", read.tenon, world.key, connections, seconds, scratch))
            found.setdefault("PostGraphile", []).append(_wrk(peer, "/graphql", read.peer, None, connections, seconds, scratch))
            if read.rest:
                found.setdefault("Tenon, REST", []).append(_wrk(ours, None, read.rest, world.key, connections, seconds, scratch))
            found.setdefault("pgbench, the same JSON", []).append(_pgbench(read.floor, world.admin, connections, seconds, scratch))
        medians = {name: statistics.median(each.per_second for each in results) for name, results in found.items()}
        for name, results in found.items():
            p50 = sorted(results, key=lambda each: each.per_second)[len(results) // 2].p50
            ratio = medians[name] / medians["PostGraphile"]
            print(f"{read.name:8} c={connections}  {name:24} {medians[name]:9,.0f} requests/s  p50 {p50:>9}  {ratio:5.2f} x PostGraphile", flush=True)


def _wrk(address: str, path: str | None, items: list[str], key: str | None, connections: int, seconds: int, scratch: Path) -> Result:
    """Load with `wrk`: POST of each body in turn, or GET of each path."""
    script, values = scratch / "load.lua", ",".join(json.dumps(item) for item in items)
    authorization = f'["authorization"]="Bearer {key}",' if key else ""
    make = f'wrk.format("POST", "{path}", headers, item)' if path else 'wrk.format("GET", item, headers)'
    script.write_text(
        f"local headers = {{{authorization} [\"content-type\"]=\"application/json\"}}\nlocal ready, at = {{}}, 0\n"
        f"init = function() for i, item in ipairs({{{values}}}) do ready[i] = {make} end end\n"
        "request = function() at = at % #ready + 1; return ready[at] end\n"
    )
    command = ["wrk", "-t1", f"-c{connections}", "--latency", "-s", str(script)]
    subprocess.run([*command, "-d1s", address], check=True, capture_output=True)  # warm: plans, connections
    text = subprocess.run([*command, f"-d{seconds}s", address], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"{address} failed under load:\n{text}")
    rate, p50 = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"50%\s+(\S+)", text)
    assert rate and p50
    return Result(float(rate[1]), p50[1])


def _pgbench(statements: list[str], admin: str, connections: int, seconds: int, scratch: Path) -> Result:
    """The floor: the same JSON from hand-written SQL, prepared, without any server of ours in between."""
    parts = psycopg.conninfo.conninfo_to_dict(admin)
    files = []
    for number, statement in enumerate(statements[:20]):
        file = scratch / f"floor-{number}.sql"
        file.write_text(statement + "\n")
        files += ["-f", str(file)]
    command = ["pgbench", "-n", "-M", "prepared", "-h", str(parts["host"]), "-p", str(parts["port"]), "-U", str(parts["user"])]
    command += ["-c", str(connections), "-j", "1", "-T", str(seconds), *files, str(parts["dbname"])]
    text = subprocess.run(command, check=True, capture_output=True, text=True, env={"PGPASSWORD": str(parts["password"]), "PATH": "/usr/bin:/bin"}).stdout
    rate, latency = re.search(r"tps = ([\d.]+)", text), re.search(r"latency average = (\S+) ms", text)
    assert rate and latency
    return Result(float(rate[1]), f"{float(latency[1]):.2f}ms")


if __name__ == "__main__":
    main()
