#!/usr/bin/env python3
"""Measures the gateway against nginx as a plain proxy and against bare hyper, in one run, in interleaved rounds.

All stand in front of the same engine and are loaded by the same program. nginx only passes bytes on. CPU is that of the whole process, control
thread and log writer included, from /proc/PID/stat. Standard library only. Needs `nginx`, `wrk` and a release build (made if missing).

Sections: requests (everything on, against nginx), features (what each costs), bodies (300 KB), translation, streams, memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from load import Rival, chat_body, lua_script, rounds, streams
from stage import Gateway, Stage, Variant, binary, free_port, machine, memory_mb, wait_listening

HERE = Path(__file__).resolve().parent
MARKS = ("<!-- bench-gateway:begin -->", "<!-- bench-gateway:end -->")
GOVERNED = ("--limits", "--budget")
BARE = Variant("gateway, nothing configured")


def everything(collector: int) -> Variant:
    """Key with scopes, limits, budget reservation, durable metering and shipping, routing by load and health, 1 % of calls traced."""
    return Variant("gateway, everything on", traced(collector), (*GOVERNED, "--scopes", "--routing"))


def traced(collector: int, ratio: str = "0.01") -> dict[str, str]:
    """Spans to a collector."""
    return {"TENON_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}", "TENON_TRACE_SAMPLE_RATIO": ratio}


def gateway_rival(stage: Stage, gateway: Gateway, name: str, body: str) -> Rival:
    """A gateway under load."""
    script = lua_script(stage.fresh("lua") / "post.lua", gateway.key, body)
    return Rival(name, gateway.url, gateway.pid, script)


def plain_rivals(stage: Stage, upstream: int, body: str) -> list[Rival]:
    """nginx and bare hyper."""
    script = lua_script(stage.fresh("lua") / "post.lua", "none", body)
    peers = [("nginx plain proxy", *stage.proxy(upstream)), ("bare hyper relay", *stage.relay(upstream))]
    return [Rival(name, url, pid, script) for name, url, pid in peers]


def requests(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """1 KB chat calls, everything on and nothing configured, against nginx and bare hyper; every call must be a record in the end."""
    upstream, collector = stage.engine(), stage.engine()
    body = chat_body(1024)
    gateways = {variant.name: stage.gateway(upstream, variant) for variant in (BARE, everything(collector))}
    rivals = plain_rivals(stage, upstream, body) + [gateway_rival(stage, gateway, name, body) for name, gateway in gateways.items()]
    rounds(rivals, options.rounds, options.seconds)
    out = {rival.name: {f"c{at}": rival.row(at) for at in rival.samples} for rival in rivals}
    for name, gateway in gateways.items():
        out[name]["memory"] = memory_mb(gateway.pid)
        out[name]["records"] = records(gateway)
    return out


def records(gateway: Gateway) -> dict[str, int]:
    """Calls that were settled, and records the control plane holds: they must be equal."""
    deadline = time.monotonic() + 20
    while gateway.metric("tenon_gateway_wal_backlog_records") > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    outcomes = ("completed", "client_gone", "upstream_error", "timeout", "cut")
    settled = sum(int(gateway.metric(f'tenon_gateway_calls_total{{outcome="{name}"}}')) for name in outcomes)
    return {"settled": settled, "stored": int(gateway.query_kit("count"))}


def features(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """One feature at a time on top of nothing configured, each in a gateway of its own."""
    upstream, collector = stage.engine(), stage.engine()
    body = chat_body(1024)
    variants = [
        BARE,
        Variant("+ scopes of the key", kit=("--scopes",)),
        Variant("+ limits (key, project, tenant, model)", kit=("--limits",)),
        Variant("+ hard budget", kit=("--budget",)),
        Variant("+ routing by load and health", kit=("--routing",)),
        Variant("+ spans of 1 % of calls", traced(collector)),
        Variant("+ spans of every call", traced(collector, "1")),
        Variant("+ strict metering (waits for the disk)", {"TENON_GATEWAY_WAL_STRICT": "true"}),
    ]
    rivals = [gateway_rival(stage, stage.gateway(upstream, variant), variant.name, body) for variant in variants]
    rounds(rivals, options.rounds, options.seconds / 2, (64,))
    return {rival.name: {"c64": rival.row(64)} for rival in rivals}


def bodies(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """300 KB chat calls; nginx holds them in memory."""
    upstream = stage.engine()
    body = chat_body(300_000)
    rivals = [*plain_rivals(stage, upstream, body)[:1], gateway_rival(stage, stage.gateway(upstream, BARE), BARE.name, body)]
    rounds(rivals, max(2, options.rounds // 2), options.seconds / 2, (16, 1))
    return {rival.name: {f"c{at}": rival.row(at) for at in rival.samples} for rival in rivals}


def translation(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """A 1 KB chat call to an engine of the same protocol and, translated, to an Anthropic one."""
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "Forty-two."}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 210, "output_tokens": 4},
    }  # fmt: skip
    body = chat_body(1024)
    same, other = stage.engine(), free_port()
    stage.nginx(f"server {{ listen 127.0.0.1:{other} backlog=4096; location / {{ return 200 '{json.dumps(message)}'; }} }}")
    wait_listening(other)
    rivals = [
        gateway_rival(stage, stage.gateway(same, BARE), "same protocol", body),
        gateway_rival(stage, stage.gateway(other, Variant("", kit=("--anthropic",))), "OpenAI to Anthropic and back", body),
    ]
    rounds(rivals, max(2, options.rounds // 2), options.seconds / 2, (64,))
    return {rival.name: {"c64": rival.row(64)} for rival in rivals}


def stream_engine(stage: Stage, gap_ms: int) -> int:
    """An engine that streams; its port."""
    port = free_port()
    stage.start([str(binary("tenon-bench")), "stream-server", f"127.0.0.1:{port}", str(gap_ms)])
    wait_listening(port)
    return port


def streaming(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Time to the first token with frames 2 ms apart; CPU a frame and memory a stream with many streams at a slow pace."""
    out: dict[str, Any] = {"first": {}, "many": {}}
    unbuffered = "proxy_buffering off;"
    engine = stream_engine(stage, 2)
    (nginx_url, nginx_pid), gateway = stage.proxy(engine, unbuffered), stage.gateway(engine, BARE)
    paths = [("direct", f"http://127.0.0.1:{engine}", 1), ("nginx", nginx_url, nginx_pid), ("gateway", gateway.url, gateway.pid)]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in paths}
    for number in range(options.rounds):
        for name, url, pid in paths if number % 2 == 0 else paths[::-1]:
            runs[name].append(streams(url, gateway.key, 1, 8, options.seconds / 2, pid))
    for name, results in runs.items():
        out["first"][name] = {key: sorted(run[key] for run in results)[len(results) // 2] for key in ("first_p50_us", "first_p99_us")}
    engine = stream_engine(stage, 500)
    (nginx_url, nginx_pid), gateway = stage.proxy(engine, unbuffered), stage.gateway(engine, BARE)
    for name, url, pid in (("nginx", nginx_url, nginx_pid), ("gateway", gateway.url, gateway.pid)):
        out["many"][name] = many(url, gateway.key, options, pid)
        print(f"  {options.streams} streams through {name}: {out['many'][name]}", flush=True)
    return out


def many(url: str, key: str, options: argparse.Namespace, pid: int) -> dict[str, float]:
    """Memory is read while they run and again when all have left."""
    import threading

    before, peak = memory_mb(pid)["RssAnon"], 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, memory_mb(pid)["RssAnon"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    measured = streams(url, key, options.streams, 12, 6, pid)
    done.set()
    watcher.join()
    time.sleep(8)  # freed memory goes back to the system a little later
    kb = (peak - before) * 1024 / options.streams
    return measured | {"kb_a_stream": kb, "idle_before_mb": before, "idle_after_mb": memory_mb(pid)["RssAnon"]}


def memory(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Idle with ten thousand keys."""
    gateway = stage.gateway(stage.engine(), Variant("idle", kit=("--keys", "10000")))
    time.sleep(4)
    return {"idle_10k_keys": memory_mb(gateway.pid)}


SECTIONS = {
    "requests": requests,
    "features": features,
    "bodies": bodies,
    "translation": translation,
    "streaming": streaming,
    "memory": memory,
}


def main() -> None:
    """Run the sections, keep the figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--json", type=Path, default=HERE / "latest.json")
    parser.add_argument("--page", type=Path, help="write the figures into this page, between its marks")
    options = parser.parse_args()
    result: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() and len(options.only) < len(SECTIONS) else {}
    result["machine"] = machine()
    result["method"] = {"rounds": options.rounds, "seconds": options.seconds, "streams": options.streams}
    for name in options.only:
        print(name, flush=True)
        with tempfile.TemporaryDirectory(prefix="bench-gateway-") as directory:
            stage = Stage(Path(directory))
            try:
                result[name] = SECTIONS[name](stage, options)
            finally:
                stage.end()
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    from page import markdown, update

    text = markdown(result)
    print(text)
    if options.page:
        update(options.page, MARKS, text)
    wrong = [
        name
        for name, row in result.get("requests", {}).items()
        if "records" in row and row["records"]["settled"] != row["records"]["stored"]
    ]
    if wrong:
        sys.exit(f"calls settled and records stored differ: {wrong}")


if __name__ == "__main__":
    main()
