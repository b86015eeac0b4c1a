#!/usr/bin/env python3
"""Does it grow? Two gateways with everything on, one under whole calls and callers' mistakes, one under streams that are left in the middle.

Memory, open files and the log's backlog are read every few seconds. The verdict compares the last third with the second: what grows there
is a leak, for caches and pools are full long before. `soak.py --minutes 30`; two minutes by default. Exit code 1 when something grew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import everything
from load import Rival, burst, chat_body, lua_script
from stage import CHAT, Gateway, Stage, binary, free_port, memory_mb, wait_listening

SAMPLE_SECONDS = 5.0
GROWTH_MB_MAX = 2.0
LOG_GROWTH_MB_MAX = 64.0
FILES_MAX = 128  # connections to the engine are kept for the next call
COOL_SECONDS = 12


def misuse(gateway: Gateway, stop: threading.Event) -> None:
    """Callers who leave, send nonsense, have no key, or never finish what they began."""
    host, port = gateway.url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer "
    good, body = f"{head}{gateway.key}\r\n", chat_body(2000)
    requests = [
        f"{good}content-length: {len(body)}\r\n\r\n{body}",  # and gone before the answer
        f"{good}content-length: 2\r\n\r\n{{]",
        f"{head}tnn_test_svc_unknown\r\ncontent-length: 2\r\n\r\n{{}}",
        f"{good}content-length: 100000\r\n\r\n{{",  # and gone
        "GET / HTTP/1.1\r\n",
    ]
    count = 0
    while not stop.wait(0.005):
        count += 1
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(requests[count % len(requests)].encode())
            if count % 2:
                caller.settimeout(0.02)
                with contextlib.suppress(OSError):
                    caller.recv(4096)


def whole_calls(gateway: Gateway, script: Path, stop: threading.Event) -> None:
    """Bursts of calls, a new connection for each."""
    rival = Rival("soak", gateway.url, gateway.pid, script)
    while not stop.is_set():
        burst(rival, 64, 5)


def broken_streams(gateway: Gateway, stop: threading.Event) -> None:
    """Hundreds of streams at a time; every burst ends in the middle of some."""
    while not stop.is_set():
        command = [str(binary("tenon-bench")), "stream-load", gateway.url + CHAT, gateway.key, "300", "100000", "4"]
        load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            load.wait(3)
        except subprocess.TimeoutExpired:
            load.kill()
            load.wait()


def sample(gateway: Gateway) -> dict[str, float]:
    """What may grow."""
    files = len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))
    log, backlog = gateway.metric("tenon_gateway_wal_bytes"), gateway.metric("tenon_gateway_wal_backlog_records")
    return {"anon_mb": memory_mb(gateway.pid)["RssAnon"], "files": files, "backlog": backlog, "log_mb": log / 2**20}


def judge(name: str, samples: list[dict[str, float]], cooled: dict[str, float]) -> dict[str, object]:
    """The growth from the second third to the last, and what was left when everybody had gone."""
    third = len(samples) // 3
    parts = [samples[third : 2 * third], samples[2 * third :]]
    means = [{key: statistics.mean(s[key] for s in part) for key in samples[0]} for part in parts]
    growth = {key: means[1][key] - means[0][key] for key in samples[0]}
    left = cooled["files"] > samples[0]["files"] + FILES_MAX or cooled["backlog"] > 0
    grew = left or growth["anon_mb"] > GROWTH_MB_MAX or growth["log_mb"] > LOG_GROWTH_MB_MAX
    report: dict[str, object] = {"second_third": means[0], "last_third": means[1], "growth": growth}
    report |= {"first": samples[0], "cooled": cooled, "grew": grew}
    print(f"{name}: {'GREW' if grew else 'steady'} {json.dumps(report)}", flush=True)
    return report


def run(stage: Stage, seconds: float) -> dict[str, dict[str, object]]:
    """Both gateways at once, watched."""
    stream_port = free_port()
    stage.start([str(binary("tenon-bench")), "stream-server", f"127.0.0.1:{stream_port}", "10"])
    wait_listening(stream_port)
    on = everything(stage.engine())
    gateways = {"whole calls": stage.gateway(stage.engine(), on), "streams": stage.gateway(stream_port, on)}
    whole, streams = gateways.values()
    script = lua_script(stage.directory / "soak.lua", whole.key, chat_body(1000))
    stop = threading.Event()
    loads: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        (misuse, (whole, stop)),
        (whole_calls, (whole, script, stop)),
        (broken_streams, (streams, stop)),
    ]
    threads = [threading.Thread(target=target, args=arguments, daemon=True) for target, arguments in loads]
    samples: dict[str, list[dict[str, float]]] = {name: [sample(gateway)] for name, gateway in gateways.items()}
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(SAMPLE_SECONDS)
        for name, gateway in gateways.items():
            samples[name].append(sample(gateway))
    stop.set()
    for thread in threads:
        thread.join(15)
    time.sleep(COOL_SECONDS)  # connections close, the last records ship, freed memory goes back to the system
    return {name: judge(name, samples[name], sample(gateway)) for name, gateway in gateways.items()}


def main() -> int:
    """Run, keep the figures if asked, say whether something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenon-soak-") as directory:
        stage = Stage(Path(directory))
        try:
            report = run(stage, options.minutes * 60)
        finally:
            stage.end()
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    return int(any(result["grew"] for result in report.values()))


if __name__ == "__main__":
    raise SystemExit(main())
