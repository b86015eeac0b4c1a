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

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.generated import write_or_check

OPENAPI = Path(__file__).parents[1] / "contracts" / "openapi.json"


def generated() -> str:
    """The document as text. Nothing is opened: the application is only built."""
    with tempfile.TemporaryDirectory() as folder:
        return document(Path(folder))


def document(folder: Path) -> str:
    """The document of an application whose keys lie in this folder."""
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
    return write_or_check(OPENAPI, generated())


if __name__ == "__main__":
    sys.exit(main())
