"""Words: the field's terms, not ours. Names private words in identifiers, comments, texts and docs, each with what to say instead.

Two tables: words that stand nowhere (identifiers, comments, texts, docs), and words that plain English needs but that name nothing in code.
An identifier is judged by its parts (`limit_told` and `LimitTold` both hold `told`); one of more than five parts is a sentence, as tests'
names are.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Nowhere: the word, and what to write instead.
NOWHERE = {
    "told": "sent, published, logged, refused with: whichever it is",
    "tell": "log, notify, send, publish, report or set: whichever it is",
    "tells": "logs, notifies, sends, publishes, reports or sets: whichever it is",
    "door": "endpoint, handler or route",
    "doors": "endpoints, handlers or routes",
    "road": "request path or pipeline",
    "roads": "request paths or pipelines",
    "amiss": "wrong",
    "anew": "again",
    "heard": "received",
    "asker": "KeyResolver",
    "farewell": "close timeout, or end of a connection",
    "unsayable": "untranslatable",
    "rehearse": "run dry",
    "rehearsal": "dry run",
    "rehearsals": "dry runs",
    "foresee": "compute the diff",
    "foreseeing": "dry_run_diff",
    "reckon": "compute",
    "wish": "query or request",
    "keeper": "manager",
    "converse": "serve",
    "overdue": "expired",
}
NOWHERE_PHRASES = {
    "for ever": "indefinitely, or without end",
    "for_ever": "a name with run or loop",
    "room card": "package contract",
    "held against": "compared with",
    "cannot_say": "fail_translation",
    "leave_span": "emit_span",
}
# In identifiers only: prose needs these words in their plain sense.
IDENTIFIERS = {
    "ask": "request, query or resolve",
    "asked": "requested",
    "asks": "requests",
    "bell": "notify",
    "desk": "a name that says what it holds",
    "given": "input or argument",
    "greet": "serve",
    "house": "Stack",
    "ill": "unhealthy",
    "journal": "access log",
    "look": "poll, check or snapshot",
    "news": "version watch",
    "patience": "grace period",
    "standing": "health state",
    "trail": "call trace",
    "wanted": "requested",
    "world": "Stack, or a name that says what it holds",
}
WHOLE_IDENTIFIERS = {"found": "name the thing", "made": "name the thing", "place": "slot index, or name the thing"}

# What stays, each with its reason; this list only shrinks.
ALLOWED: dict[tuple[str, str], str] = {
    ("tools/lints/words.py", "*"): "the tables themselves",
    ("tests/conformance/test_words.py", "*"): "tries each word",
    ("server/migrations/versions/0007_governance.py", "*"): "a migration stays as it ran; 0013 renames its columns",
    ("server/migrations/versions/0013_column_names.py", "*"): "names the columns that it renames",
}
SENTENCE_PARTS = 5
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_RUST_TEXT = re.compile(r'b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"', re.DOTALL)
_RUST_COMMENT = re.compile(r"//[^\n]*")
_IDENTIFIER = re.compile(r"\b[A-Za-z_]\w*\b")
_LIBRARY_CALL = re.compile(r"\.tell\(\)")  # a file\'s position, in Python
_OF_THE_FIELD = {"well_known", "open_world_hint"}  # RFC 8615; the Model Context Protocol


def main() -> int:
    """Print every private word in the tracked files."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    problems: list[str] = []
    for name in sorted(listed.stdout.split()):
        path = ROOT / name
        if path.suffix in {".py", ".rs", ".md", ".toml", ".proto"} and "generated" not in path.parts and path.exists():
            problems += check_file(name, path.read_text())
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check_file(name: str, text: str) -> list[str]:
    """What is wrong with one file."""
    if (name, "*") in ALLOWED:
        return []
    problems = list(_anywhere(name, text))
    if name.endswith(".py"):
        library = {"given"} if "hypothesis" in text else set()  # its decorator
        problems += _identifiers(name, _python_names(text), _OF_THE_FIELD | library)
    elif name.endswith(".rs"):
        problems += _identifiers(name, _rust_names(text), _OF_THE_FIELD)
    return problems


def _anywhere(name: str, text: str) -> Iterator[str]:
    """Words and phrases that stand nowhere."""
    for number, line in enumerate(text.split("\n"), 1):
        lower = line.lower()
        words = {part.lower() for part in _PARTS.findall(_LIBRARY_CALL.sub("", line))}
        for word in sorted(words & NOWHERE.keys()):
            if (name, word) not in ALLOWED:
                yield f"{name}:{number}: “{word}”: {NOWHERE[word]}."
        for phrase, instead in NOWHERE_PHRASES.items():
            if re.search(rf"(?<![a-z]){phrase}(?![a-z])", lower) and (name, phrase) not in ALLOWED:
                yield f"{name}:{number}: “{phrase}”: {instead}."


def _identifiers(name: str, names: Iterator[tuple[int, str]], allowed: set[str]) -> Iterator[str]:
    """Words that name nothing in code; each identifier once a file."""
    seen: set[str] = set(allowed)
    for number, identifier in names:
        if identifier in seen:
            continue
        seen.add(identifier)
        parts = [part.lower() for part in _PARTS.findall(identifier)]
        is_sentence = len(parts) > SENTENCE_PARTS
        for word in sorted(set() if is_sentence else set(parts) & IDENTIFIERS.keys()):
            if (name, word) not in ALLOWED:
                yield f"{name}:{number}: `{identifier}`: not “{word}” but {IDENTIFIERS[word]}."
        if identifier in WHOLE_IDENTIFIERS and (name, identifier) not in ALLOWED:
            yield f"{name}:{number}: `{identifier}`: {WHOLE_IDENTIFIERS[identifier]}."


def _python_names(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def _rust_names(text: str) -> Iterator[tuple[int, str]]:
    blank = _RUST_TEXT.sub(lambda match: '""' + "\n" * match[0].count("\n"), _RUST_COMMENT.sub("", text))
    for number, line in enumerate(blank.split("\n"), 1):
        for match in _IDENTIFIER.finditer(line):
            yield number, match[0]


if __name__ == "__main__":
    sys.exit(main())
