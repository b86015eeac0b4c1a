#!/usr/bin/env python3
"""Counts the instructions of one request with callgrind, for each feature, and compares with what is checked in.

Times drift with the machine, instructions hardly: so growth of the hot path is seen here. `--check` fails when a count is more than 3 % above
instructions.json; without it the file is written again. Needs `valgrind` (Debian) and a release build. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import BARE, everything
from load import chat_body
from stage import CHAT, Gateway, Stage, Variant

KEPT = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
REQUESTS = 2000


def send_calls(gateway: Gateway, count: int, body: str) -> None:
    """So many calls, one after the other, on one connection."""
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    for _ in range(count):
        connection.request("POST", CHAT, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"the gateway answered {answer.status}: {text.decode()}")


def counted(directory: Path, variant: Variant) -> dict[str, int]:
    """Instructions a request on the reactor, and on the control thread that ships its record."""
    stage = Stage(directory)
    try:
        collector, upstream = stage.engine(), stage.engine()
        if variant.name == "gateway, everything on":
            variant = everything(collector)
        out = stage.fresh("callgrind") / "out"
        wrapper = ("valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}", "--quiet")
        gateway = stage.gateway(upstream, variant, wrapper, start_seconds_max=120)
        body = chat_body(1024)
        send_calls(gateway, 300, body)
        settle(gateway)
        control(gateway, "-z")
        send_calls(gateway, REQUESTS, body)
        settle(gateway)
        control(gateway, "-d")
        deadline = time.monotonic() + 30
        while not (totals := read(out)) and time.monotonic() < deadline:
            time.sleep(0.2)
        reactor, shipping, *_ = sorted(totals, reverse=True)
        return {"reactor": reactor // REQUESTS, "control": shipping // REQUESTS}
    finally:
        stage.end()


def settle(gateway: Gateway) -> None:
    """Until all records have been acknowledged."""
    deadline = time.monotonic() + 60
    while gateway.metric("tenon_gateway_wal_backlog_records") > 0 and time.monotonic() < deadline:
        time.sleep(0.2)


def control(gateway: Gateway, what: str) -> None:
    """Speak to callgrind inside the process."""
    subprocess.run(["callgrind_control", what, str(gateway.pid)], check=True, capture_output=True)


def read(out: Path) -> list[int]:
    """Totals of each thread in the dump."""
    counts = []
    for part in out.parent.glob(f"{out.name}.1-*"):
        match = re.search(r"^totals: (\d+)", part.read_text(errors="replace"), re.MULTILINE)
        if match:
            counts.append(int(match.group(1)))
    return counts if len(counts) > 2 else []


def main() -> None:
    """Count, then keep or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    variants = [
        BARE,
        Variant("+ limits", kit=("--limits",)),
        Variant("+ hard budget", kit=("--budget",)),
        Variant("gateway, everything on"),
    ]
    if options.check:
        variants = [variants[0], variants[-1]]
    counts = {}
    for variant in variants:
        with tempfile.TemporaryDirectory(prefix="instructions-") as directory:
            counts[variant.name] = counted(Path(directory), variant)
            print(
                f"{variant.name:<40} reactor {counts[variant.name]['reactor']:7,}  control {counts[variant.name]['control']:6,}", flush=True
            )
    if not options.check:
        KEPT.write_text(json.dumps(counts, indent=2) + "\n")
        return
    kept = json.loads(KEPT.read_text())
    grown = [
        f"{name}, {thread}: {now:,} instructions a request, {kept[name][thread]:,} are checked in"
        for name, row in counts.items()
        for thread, now in row.items()
        if thread == "reactor" and now > kept[name][thread] * (1 + TOLERANCE)
    ]
    if grown:
        sys.exit("The hot path has grown. If it must, run tools/bench/gateway/instructions.py and say why:\n" + "\n".join(grown))


if __name__ == "__main__":
    main()
