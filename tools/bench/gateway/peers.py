#!/usr/bin/env python3
"""The gateway beside other AI gateways on the same machine, in interleaved rounds: what a call costs them.

LiteLLM comes from PyPI into a virtual environment in the cache folder and runs as its documentation recommends for production. Another peer is
given by its command. It must stay one process in the foreground, listen on `{port}`, call `http://127.0.0.1:{upstream}/v1` for the model `m`, and
accept the key `sk-bench`:

    peers.py --peer busbar='/path/to/busbar --config {dir}/busbar.yaml' --peer-config busbar=busbar.yaml

`{dir}`, `{port}` and `{upstream}` are filled in, in the command and in the configuration file, whose copy lies in `{dir}` under its own name.
Needs `nginx`, `wrk`, and Python's venv for LiteLLM.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench import BARE, everything, gateway_rival, plain_rivals
from load import Rival, burst, chat_body, lua_script, rounds
from page import update
from stage import CHAT, Stage, cpu_seconds, free_port, machine, memory_mb

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tenon"
MARKS = ("<!-- bench-peers:begin -->", "<!-- bench-peers:end -->")
LITELLM = "litellm[proxy]==1.106.2"
KEY = "sk-bench"
MANY = 16
START_SECONDS_MAX = 120
# https://docs.litellm.ai/docs/proxy/prod, October 2026: a master key, no debugging, one Uvicorn worker.
CONFIG = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
general_settings: {{master_key: sk-bench}}
litellm_settings: {{set_verbose: false, json_logs: true, request_timeout: 600, telemetry: false}}
"""
QUIET = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@dataclass(frozen=True)
class Peer:
    """A running one."""

    name: str
    url: str
    process: subprocess.Popen[str]
    log: Path


def litellm(stage: Stage, upstream: int) -> Peer:
    """A LiteLLM proxy of one worker."""
    environment = CACHE / "peers" / "litellm"
    python = environment / "bin" / "python"
    if not (environment / "bin" / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", LITELLM], check=True)
    program = "import importlib.metadata as m; print(m.version('litellm'))"
    version = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    directory = stage.fresh("litellm")
    (directory / "config.yaml").write_text(CONFIG.format(upstream=upstream))
    command = [
        str(environment / "bin" / "litellm"),
        "--config",
        str(directory / "config.yaml"),
        "--host",
        "127.0.0.1",
        "--num_workers",
        "1",
    ]
    port = free_port()
    quiet = QUIET | {"PATH": os.environ["PATH"], "HOME": str(directory)}
    return started(stage, f"LiteLLM {version}", [*command, "--port", str(port)], port, directory, quiet)


def other(stage: Stage, upstream: int, name: str, command: str, config: Path | None) -> Peer:
    """A peer by its command."""
    directory, port = stage.fresh(name), free_port()
    places = {"{dir}": str(directory), "{port}": str(port), "{upstream}": str(upstream)}

    def filled(text: str) -> str:
        for path, value in places.items():
            text = text.replace(path, value)
        return text

    if config:
        (directory / config.name).write_text(filled(config.read_text()))
    return started(stage, name, shlex.split(filled(command)), port, directory, dict(os.environ))


def started(stage: Stage, name: str, command: list[str], port: int, directory: Path, environment: dict[str, str]) -> Peer:
    """Start it; what it says goes to a log."""
    log = directory / "log"
    with log.open("w") as file:
        process = stage.start(command, env=environment, cwd=directory, stdout=file, stderr=file)
    return Peer(name, f"http://127.0.0.1:{port}", process, log)


def wait_answering(peer: Peer, body: str) -> None:
    """Until it completes a call."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(peer.url + CHAT, body.encode(), headers)
    deadline = time.monotonic() + START_SECONDS_MAX
    trouble = "it ended"
    while time.monotonic() < deadline and peer.process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert b"Forty-two." in answer.read(), "not the engine's answer"
                return
        except OSError as error:
            trouble = str(error)
            time.sleep(0.3)
    raise SystemExit(f"{peer.name} does not answer: {trouble}\n{peer.log.read_text(errors='replace')[-3000:]}")


def settle(rival: Rival) -> None:
    """What callers left behind when the load stopped is worked off before the next has its turn."""
    deadline = time.monotonic() + 15
    before, now = -1.0, cpu_seconds(rival.pid)
    while now - before > 0.02 and time.monotonic() < deadline:
        time.sleep(0.5)
        before, now = now, cpu_seconds(rival.pid)


def measured(stage: Stage, options: argparse.Namespace) -> list[Rival]:
    """Everybody in one run."""
    configs = {name: Path(path).resolve() for name, path in (item.split("=", 1) for item in options.peer_config)}
    upstream, collector = stage.engine(), stage.engine()
    body = chat_body(1024)
    script = lua_script(stage.fresh("lua") / "post.lua", KEY, body)
    peers = [] if options.no_litellm else [litellm(stage, upstream)]
    for name, command in (item.split("=", 1) for item in options.peer):
        peers.append(other(stage, upstream, name, command, configs.get(name)))
    rivals = plain_rivals(stage, upstream, body)[:1]
    rivals += [gateway_rival(stage, stage.gateway(upstream, variant), variant.name, body) for variant in (BARE, everything(collector))]
    for peer in peers:
        wait_answering(peer, body)
        rivals.append(Rival(peer.name, peer.url, peer.process.pid, script))
        burst(rivals[-1], 4, options.seconds)  # what is loaded and compiled at the first calls is not what a call costs
    rounds(rivals, options.rounds, options.seconds, (MANY, 1), settle)
    for rival in rivals:
        rival.memory_mb = memory_mb(rival.pid)["RssAnon"]
    return rivals


def markdown(rivals: list[Rival], options: argparse.Namespace, on: dict[str, object]) -> str:
    """A table, the gateway's everything on as the measure."""
    lines = [
        f"{on['cores']} cores ({on['cpu']}), {options.rounds} interleaved rounds of {options.seconds:g} s, medians; ranges in brackets."
        f" Load average before it: {on['load_average_before']:.1f} (near 0 = nobody else used the machine).",
        "",
        f"| | c={MANY} CPU a request | ÷ everything on | c={MANY} rps | c=1 p50 | c=1 p99 | anonymous memory |",
        "|---|---|---|---|---|---|---|",
    ]
    measure = next(rival for rival in rivals if rival.name == everything(0).name).row(MANY)["cpu_us"]
    for rival in rivals:
        many, one = rival.row(MANY), rival.row(1)
        lines.append(
            f"| {rival.name} | {many['cpu_us']:,.0f} µs ({many['cpu_us_low']:,.0f}–{many['cpu_us_high']:,.0f}) | {many['cpu_us'] / measure:.1f}"
            f" | {many['rps']:,.0f} | {one['p50_us']:,.0f} µs | {one['p99_us']:,.0f} µs | {rival.memory_mb:,.0f} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="long, for peers that complete few calls a second")
    parser.add_argument("--no-litellm", action="store_true")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--peer-config", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--page", type=Path, help="write the table into this page, between its marks")
    options = parser.parse_args()
    on = machine()
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as directory:
        stage = Stage(Path(directory))
        try:
            rivals = measured(stage, options)
        finally:
            stage.end()
    text = markdown(rivals, options, on)
    print(f"\n{text}")
    if options.page:
        update(options.page, MARKS, text)
    failed = [rival.name for rival in rivals if any(sample.errors for samples in rival.samples.values() for sample in samples)]
    if failed:
        sys.exit(f"calls failed at {failed}")


if __name__ == "__main__":
    main()
