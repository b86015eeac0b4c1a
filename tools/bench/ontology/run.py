"""Object reads beside PostGraphile and pgbench, on one PostgreSQL with the same flights, in one run (`make bench-ontology`).

Needs npm (for the peer and its Node), wrk and pgbench. Each server is one process, warmed, then loaded by `wrk` with 200 different values, at
one and at eight connections, in interleaved rounds; the medians go into docs/performance.md. Tenon's answers pass the whole HTTP stack with
authentication; PostGraphile runs without any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg.conninfo
from loaded import CHECKOUT, Loaded, load
from reads import Read, reads
from servers import Server, postgraphile, tenon

from tenon.kit.database import embedded
from tools.testing.ports import free_port

CONNECTIONS = (1, 8)
REPORT = CHECKOUT / "docs" / "performance.md"
BEGIN, END = "<!-- bench-ontology:begin -->", "<!-- bench-ontology:end -->"
PEER = "PostGraphile"


@dataclass(frozen=True, slots=True)
class Result:
    """Requests a second, the median time of one, and the server's CPU for one in µs (None: pgbench has no server of its own)."""

    per_second: float
    p50: str
    cpu_us: float | None = None


def main() -> None:
    """Load, start, measure, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=5, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--hold", action="store_true", help="keep everything running instead of measuring")
    arguments = options.parse_args()
    load_before = os.getloadavg()[0]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    with tempfile.TemporaryDirectory(prefix="tenon-bench-") as scratch, ExitStack() as running:
        Path(scratch).chmod(0o755)
        server = embedded.start(Path(scratch), free_port(), extra=("max_wal_size=8GB",))
        running.callback(server.stop)
        loaded = asyncio.run(load(server, Path(scratch)))
        ours = running.enter_context(tenon(loaded))
        peer = running.enter_context(postgraphile(loaded, free_port()))
        if arguments.hold:
            print(
                json.dumps({"tenon": ours.address, "key": loaded.key, "peer": peer.address, "admin": loaded.admin, "scratch": scratch}),
                flush=True,
            )
            while True:
                time.sleep(3600)
        bench = Bench(ours, peer, loaded, Path(scratch), arguments.seconds, arguments.rounds)
        _write([f"{os.cpu_count()} cores, {arguments.rounds} interleaved rounds of {arguments.seconds} s, medians (lowest–highest in brackets)."
                f" Load average before it: {load_before:.1f}.", "", *bench.table()])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    """The servers under comparison."""

    ours: Server
    peer: Server
    loaded: Loaded
    scratch: Path
    seconds: int
    rounds: int

    def table(self) -> list[str]:
        """Measure every read; the report's lines."""
        lines = ["| read | connections | who | requests/s | p50 | server CPU a request | ÷ PostGraphile |", "|---|---|---|---|---|---|---|"]
        for read in reads(self.loaded):
            _same_answers(read, self.ours.address, self.peer.address, self.loaded.key)
            for connections in CONNECTIONS:
                figures = self._measure(read, connections)
                base = statistics.median(each.per_second for each in figures[PEER])
                lines += [_line(read.name, connections, name, results, base) for name, results in figures.items()]
                print("\n".join(lines[-len(figures) :]), flush=True)
        return lines

    def _measure(self, read: Read, connections: int) -> dict[str, list[Result]]:
        ours, key = self.ours, self.loaded.key
        ways: dict[str, Callable[[], Result]] = {
            "Tenon, GraphQL": lambda: self._wrk(ours, "/v1/graphql", read.tenon, key, connections),
            PEER: lambda: self._wrk(self.peer, "/graphql", read.peer, None, connections),
            "pgbench, the same JSON": lambda: _pgbench(read.floor, self.loaded.admin, connections, self.seconds, self.scratch),
        }
        if read.rest:
            ways["Tenon, REST"] = lambda: self._wrk(ours, None, read.rest, key, connections)
        figures: dict[str, list[Result]] = {name: [] for name in ways}
        for _ in range(self.rounds):
            for name, way in ways.items():
                figures[name].append(way())
        return figures

    def _wrk(self, server: Server, path: str | None, items: list[str], key: str | None, connections: int) -> Result:
        """Load with `wrk`: POST of each body in turn, or GET of each path."""
        script = self.scratch / "load.lua"
        script.write_text(_script(path, items, key))
        command = ["wrk", "-t1", f"-c{connections}", "--latency", "-s", str(script)]
        subprocess.run([*command, "-d1s", server.address], check=True, capture_output=True)  # warm: plans, connections
        before = server.cpu_seconds()
        text = subprocess.run([*command, f"-d{self.seconds}s", server.address], check=True, capture_output=True, text=True).stdout
        spent = server.cpu_seconds() - before
        if "Non-2xx" in text or "Socket errors" in text:
            sys.exit(f"{server.address} failed under load:\n{text}")
        rate, p50 = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"50%\s+([\d.]+\S+)", text)
        count = re.search(r"(\d+) requests in", text)
        if not (rate and p50 and count):
            sys.exit(f"wrk said:\n{text}")
        return Result(float(rate[1]), p50[1], spent / int(count[1]) * 1e6)


def _script(path: str | None, items: list[str], key: str | None) -> str:
    values = ",".join(json.dumps(item) for item in items)
    authorization = f'["authorization"]="Bearer {key}",' if key else ""
    make = f'wrk.format("POST", "{path}", headers, item)' if path else 'wrk.format("GET", item, headers)'
    return (
        f'local headers = {{{authorization} ["content-type"]="application/json"}}\nlocal ready, at = {{}}, 0\n'
        f"init = function() for i, item in ipairs({{{values}}}) do ready[i] = {make} end end\n"
        "request = function() at = at % #ready + 1; return ready[at] end\n"
    )


def _line(read: str, connections: int, name: str, results: list[Result], base: float) -> str:
    rates = sorted(each.per_second for each in results)
    median = statistics.median(rates)
    p50 = sorted(results, key=lambda each: each.per_second)[len(results) // 2].p50
    cpu = [each.cpu_us for each in results if each.cpu_us is not None]
    spent = f"{statistics.median(cpu):,.0f} µs" if cpu else ""
    return f"| {read} | {connections} | {name} | {median:,.0f} ({rates[0]:,.0f}–{rates[-1]:,.0f}) | {p50} | {spent} | {median / base:.2f} |"


def _same_answers(read: Read, ours: str, peer: str, key: str) -> None:
    """Both servers must answer with the same number of objects and values before they are compared."""
    for mine, theirs in list(zip(read.tenon, read.peer, strict=True))[:10]:
        counts = [_leaves(_post(ours, "/v1/graphql", mine, key)), _leaves(_post(peer, "/graphql", theirs, None))]
        if counts[0] != counts[1] or counts[0] < 5:
            sys.exit(f"the {read.name} read's answers differ: {counts[0]} and {counts[1]} values for {mine}")


def _post(address: str, path: str, body: str, key: str | None) -> object:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(urllib.request.Request(address + path, body.encode(), headers), timeout=10) as answer:
        return json.load(answer)


def _leaves(value: object) -> int:
    if isinstance(value, dict):
        return sum(_leaves(each) for each in value.values())
    if isinstance(value, list):
        return sum(_leaves(each) for each in value)
    return 1


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
    environment = {**os.environ, "PGPASSWORD": str(parts["password"])}
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    rate, latency = re.search(r"tps = ([\d.]+)", text), re.search(r"latency average = (\S+) ms", text)
    if not (rate and latency):
        sys.exit(f"pgbench said:\n{text}")
    return Result(float(rate[1]), f"{float(latency[1]):.2f}ms (mean)")


def _write(lines: list[str]) -> None:
    """Replace the figures in the report."""
    text = REPORT.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    REPORT.write_text("\n".join([f"{head}{BEGIN}", *lines, END]) + tail)


if __name__ == "__main__":
    main()
