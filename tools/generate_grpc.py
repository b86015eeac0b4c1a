"""Generate the Python side of `contracts/gateway.proto` (make target: `make contracts`).

The proto is copied to the package path that its module shall have before protoc runs: generated imports are absolute by proto path, so
nothing has to be rewritten afterwards. The output is committed; `--check` (and a test) fails when it differs. Generate with the locked
grpcio-tools: generated code refuses a runtime that is older than its generator.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "contracts" / "gateway.proto"
PACKAGE = Path("tenon/inference/gateway_sync/generated")
TARGET = ROOT / "server" / "src" / PACKAGE
ROOM_CARD = '"""Generated from contracts/gateway.proto by tools/generate_grpc.py; do not edit."""\n'


def generate(into: Path) -> None:
    """Write the generated modules of the contract below `into`. Raises RuntimeError when protoc refuses."""
    from importlib.resources import files

    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / PACKAGE / "gateway.proto"
        source.parent.mkdir(parents=True)
        shutil.copy(PROTO, source)
        outputs = [f"--{kind}_out={into}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        beside_python = Path(sys.executable).parent  # the environment need not be activated
        plugins = [f"--plugin=protoc-gen-{name}={beside_python}/protoc-gen-{name}" for name in ("mypy", "mypy_grpc")]
        well_known = str(files("grpc_tools") / "_proto")
        status = protoc.main(["protoc", f"-I{scratch}", f"-I{well_known}", *plugins, *outputs, str(source)])
    if status != 0:
        raise RuntimeError(f"protoc refused {PROTO.name} with status {status}")
    (into / PACKAGE / "__init__.py").write_text(ROOM_CARD)


def differences() -> list[str]:
    """Names of generated files that differ from the committed ones, either way."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {path.name: path.read_bytes() for path in (Path(scratch) / PACKAGE).iterdir()}
    committed = {path.name: path.read_bytes() for path in TARGET.iterdir() if path.is_file()}
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def main() -> int:
    """Generate, or with `--check` say what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the committed output differs")
    if parser.parse_args().check:
        if different := differences():
            sys.stderr.write(f"Generated code differs from contracts/gateway.proto: {', '.join(different)}. Run tools/generate_grpc.py.\n")
            return 1
        return 0
    generate(ROOT / "server" / "src")
    return 0


if __name__ == "__main__":
    sys.exit(main())
