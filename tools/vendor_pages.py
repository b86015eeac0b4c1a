"""Fetch the browser code of the API's own pages from npm, check it, and store it compressed beside the API.

The files are the projects' own builds; nothing is compiled here. Running this needs npm and a network, serving the pages needs neither.
To take a newer version, change VERSIONS and FILES, run `python tools/vendor_pages.py`, and look at both pages in a browser.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "server" / "src" / "tenon" / "entrypoints" / "api" / "pages" / "vendor"
# package -> (version, the registry's integrity of the archive)
VERSIONS = {
    "swagger-ui-dist": ("5.35.0", "sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ=="),
    "graphiql": ("4.1.2", "sha512-rNlzQIAzm6i2KBXmVQWBgLvt0TloxFVB2d18bukvdsvjEuFDHsKx5IVOomL1W1o5WW+tE54+ioHb2AEKzO2cUg=="),
    "react": ("18.3.1", "sha512-wS+hAgJShR0KhEvPJArfuPVN1+Hz1t0Y6n5jLrGQbkb4urgPE/0Rve+1kMB1v/oWgHgm4WIcV+i7F2pTVj+2iQ=="),
    "react-dom": ("18.3.1", "sha512-5m4nQKp+rZRb09LNH59GM4BxTh9251/ylbKIbpe7TpGxfJ+9kv6BLkLBXIjjspbgbnIBNqlI23tRnTWT0snUIw=="),
}
# (package, path in its archive) -> the name it is served under
FILES = {
    ("swagger-ui-dist", "swagger-ui-bundle.js"): "swagger-ui-bundle.js",
    ("swagger-ui-dist", "swagger-ui.css"): "swagger-ui.css",
    ("swagger-ui-dist", "LICENSE"): "swagger-ui.LICENSE.txt",
    ("graphiql", "graphiql.min.js"): "graphiql.min.js",
    ("graphiql", "graphiql.min.css"): "graphiql.min.css",
    ("graphiql", "LICENSE"): "graphiql.LICENSE.txt",
    ("react", "umd/react.production.min.js"): "react.production.min.js",
    ("react-dom", "umd/react-dom.production.min.js"): "react-dom.production.min.js",
    ("react", "LICENSE"): "react.LICENSE.txt",
}


def fetch(package: str, folder: Path) -> tarfile.TarFile:
    """The package's archive, once its integrity is the pinned one."""
    version, integrity = VERSIONS[package]
    packed = subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, capture_output=True, text=True, check=True)
    archive = folder / packed.stdout.strip().splitlines()[-1]
    digest = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != integrity:
        sys.exit(f"{package}@{version} is not the archive that VERSIONS pins: {digest}")
    return tarfile.open(archive)


def main() -> int:
    """Write every file, compressed, and the manifest that a test compares with them."""
    VENDOR.mkdir(exist_ok=True)
    manifest: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        archives = {package: fetch(package, Path(folder)) for package in VERSIONS}
        for (package, path), name in FILES.items():
            member = archives[package].extractfile(f"package/{path}")
            if member is None:
                sys.exit(f"{package} has no file {path}")
            content = member.read()
            (VENDOR / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
            manifest[name] = {"package": f"{package}@{VERSIONS[package][0]}", "path": path, "sha256": hashlib.sha256(content).hexdigest()}
    (VENDOR / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
