"""Generate the Python side of `contracts/gateway.proto` (`make generate`).

The proto is copied to the package path that its module will have before protoc runs: generated imports are absolute by proto path, so
nothing has to be rewritten afterwards. The output is committed; `--check` (and a test) fails when it differs. Generate with the locked
grpcio-tools: generated code refuses a runtime that is older than its generator.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.generated import ROOT, diff

PROTO = ROOT / "contracts" / "gateway.proto"
PACKAGE = Path("tenon/inference/gateway_sync/generated")
TARGET = ROOT / "server" / "src" / PACKAGE
PACKAGE_DOCSTRING = '"""Generated from contracts/gateway.proto by tools/generate_grpc.py; do not edit."""\n'


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
    (into / PACKAGE / "__init__.py").write_text(PACKAGE_DOCSTRING)


def differences() -> list[str]:
    """A diff for each generated file that is not the committed one; files that came or went are named."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {path.name: path.read_text() for path in (Path(scratch) / PACKAGE).iterdir()}
    gone = [f"{path.name} is generated no longer" for path in sorted(TARGET.iterdir()) if path.is_file() and path.name not in fresh]
    return gone + [difference for name, text in sorted(fresh.items()) if (difference := diff(TARGET / name, text))]


def main() -> int:
    """Generate, or with `--check` show what differs."""
    if "--check" not in sys.argv:
        generate(ROOT / "server" / "src")
        return 0
    if different := differences():
        print("\n".join(different))
        print("Generated code differs from contracts/gateway.proto. Run `make generate` and read the diff.")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
