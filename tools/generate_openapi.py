"""Write contracts/openapi.json from the application; with --check, say whether the checked-in one is what the code serves."""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
from pathlib import Path

from tenon.entrypoints.api.app import build
from tenon.kit.database import bootstrap
from tenon.kit.settings import DatabaseSettings, Settings

OPENAPI = Path(__file__).parents[1] / "contracts" / "openapi.json"


def generated() -> str:
    """The document as text. Nothing is opened: the application is only built."""
    folder = Path(tempfile.mkdtemp())
    for name in ("sealing.key", "signing.key"):
        (folder / name).write_bytes(secrets.token_bytes(32))
    settings = Settings(
        database=DatabaseSettings(port=1, installation="00000000", passwords=bootstrap.new_passwords()),
        state_dir=folder,
        sealing_key_file=folder / "sealing.key",
        signing_key_file=folder / "signing.key",
        checkpoint_dir=folder,
    )
    return json.dumps(build(settings).openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write, or compare."""
    text = generated()
    if "--check" not in sys.argv:
        OPENAPI.write_text(text)
        return 0
    if OPENAPI.exists() and OPENAPI.read_text() == text:
        return 0
    print("contracts/openapi.json is not what the code serves: `make generate`, then look at the diff.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
