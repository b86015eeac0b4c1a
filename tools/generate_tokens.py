"""Write contracts/tokens/corpus.json: tokens on which the gateway and the control plane must give the same verdict. With --check, compare.

The keys are fixed (tools/tokens/keys.json) and so is every byte. Verdicts are written by hand in tools/tokens/cases.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.generated import write_or_check
from tools.tokens.cases import all_cases
from tools.tokens.issuers import ISSUERS, NOW

CORPUS = Path(__file__).parents[1] / "contracts" / "tokens" / "corpus.json"
ABBREVIATED = 10_000  # tokens longer than this are kept as a character and a count


def generated() -> str:
    """One line a case, so that a change is seen as one."""
    cases = []
    for name, issuer, token, verdict in all_cases():
        kept = {"token": token} if len(token) < ABBREVIATED else {"character": token[0], "count": len(token)}
        cases.append({"name": name, "issuer": issuer, "verdict": verdict} | kept)
    if len({case["name"] for case in cases}) != len(cases):
        raise SystemExit("two cases have one name")
    lines = ",\n".join("  " + json.dumps(case, ensure_ascii=True) for case in cases)
    issuers = ",\n".join(f"  {json.dumps(name)}: {json.dumps(issuer)}" for name, issuer in ISSUERS.items())
    return f'{{\n "now_unix_ms": {NOW},\n "issuers": {{\n{issuers}\n }},\n "cases": [\n{lines}\n ]\n}}\n'


def main() -> int:
    """Write, or compare."""
    return write_or_check(CORPUS, generated())


if __name__ == "__main__":
    sys.exit(main())
