"""Tokens of trusted issuers: the corpus that the gateway's crate `jose` runs too, and the strict forms."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenon.core.identity.federation.token_verification import TokenRefused, Unverified, base64url, compile_verifier, strict_json

CORPUS = json.loads((Path(__file__).parents[4] / "contracts" / "tokens" / "corpus.json").read_text())
VERIFIERS = {
    name: compile_verifier(
        fields["issuer"],
        fields["audiences"],
        fields["algorithm"],
        json.dumps(fields["jwks"]).encode(),
        fields["leeway_ms"],
        fields["lifetime_max_ms"],
    )
    for name, fields in CORPUS["issuers"].items()
}


def verdict(case: dict[str, Any]) -> str:
    text = case["token"] if "token" in case else case["character"] * case["count"]
    try:
        Unverified.parse(text.encode()).verify(VERIFIERS[case["issuer"]], CORPUS["now_unix_ms"])
    except TokenRefused as refused:
        return refused.reason
    return "accept"


@pytest.mark.parametrize("case", CORPUS["cases"], ids=lambda case: case["name"])
def test_the_corpus(case: dict[str, Any]) -> None:
    assert verdict(case) == case["verdict"]


@given(st.binary(max_size=60))
def test_each_value_has_one_base64url_text(value: bytes) -> None:
    text = base64.urlsafe_b64encode(value).rstrip(b"=")
    assert base64url(text) == value
    assert base64url(text + b"=") is None


@given(st.text(alphabet="ABwx-_+/=\n 09", max_size=12))
def test_what_is_read_is_written_the_same(text: str) -> None:
    value = base64url(text.encode())
    assert value is None or base64.urlsafe_b64encode(value).rstrip(b"=") == text.encode()


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parsers(token: bytes) -> None:
    for read in (Unverified.parse, strict_json):
        with contextlib.suppress(TokenRefused):
            read(token)


@pytest.mark.parametrize(
    ("changes"), [{"issuer": ""}, {"audiences": []}, {"audiences": ["a", ""]}, {"algorithm": "HS256"}, {"jwks": b"[]"}, {"jwks": b"{"}]
)
def test_an_issuer_that_could_check_nothing_is_refused(changes: dict[str, Any]) -> None:
    good: dict[str, Any] = {"issuer": "i", "audiences": ["a"], "algorithm": "ES256", "jwks": b'{"keys":[]}'}
    compile_verifier(**good)
    with pytest.raises(ValueError):
        compile_verifier(**(good | changes))
