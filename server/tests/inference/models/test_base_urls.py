"""Where a gateway may be sent: the guard against requests forged through it."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenon.inference.models.base_urls import is_written_as_private, safe_base_url
from tenon.kit.errors import Invalid


def allowed(url: str, *, loopback: bool = False) -> str | None:
    """The normal form, or None when refused."""
    try:
        return safe_base_url(url, loopback_allowed=loopback)
    except Invalid as error:
        return None if (error.code, error.path) == ("unsafe_base_url", "base_url") else f"refused as {error.code}"


CORPUS = json.loads((Path(__file__).parents[4] / "contracts" / "address-corpus.json").read_text())["urls"]


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["url"][:40].encode("unicode_escape").decode() or "nothing")
def test_a_base_url_is_judged_as_the_corpus_says(case: dict[str, str]) -> None:
    normal = case.get("normal")
    assert allowed(case["url"]) == (normal if case["verdict"] == "allowed" else None), case["why"]
    assert allowed(case["url"], loopback=True) == normal, case["why"]


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("HTTPS://API.Example.com/v1/", "https://api.example.com/v1"),
        ("http://vllm.models.svc.cluster.local:8000/v1", "http://vllm.models.svc.cluster.local:8000/v1"),
        ("http://10.1.2.3:8000", "http://10.1.2.3:8000"),
        ("https://[2001:db8::1]:8443/v1", "https://[2001:db8::1]:8443/v1"),
    ],
)
def test_ordinary_and_private_addresses_are_taken_in_one_form(url: str, normal: str) -> None:
    assert allowed(url) == normal


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://a.example/", "file:///etc/passwd", "//a.example", "a.example/v1", "http://", "http:///v1", "gopher://a.example",
        "http://user@a.example/", "http://user:pass@a.example/", "http://@a.example/", "https://a.example\\@b.example/",
        "http://a.example/?x", "http://a.example/#x", "http://a.example/?", "http://a.example/../admin", "http://a.example/./v1",
        "http://a.example/%2e%2e/", "http://a.example//v1", "http://a.example:0/", "http://a.example:99999/", "http://a.example:x/",
        "http://a.exa mple/", "http://a.example/\nHost: b", "http://ä.example/", "http://-a.example/", "http://a..example/",
        "http://169.254.169.254/latest", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://0.0.0.0/", "http://[::]/",
        "http://224.0.0.1/", "http://[ff02::1]/", "http://255.255.255.255/", "http://0.1.2.3/", "http://metadata.google.internal/",
        "http://metadata/", "http://100.100.100.200/", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:10.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://" + "a" * 600 + ".example/",
    ],
)  # fmt: skip
def test_what_is_never_an_upstream(url: str) -> None:
    assert allowed(url) is None
    assert allowed(url, loopback=True) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "localhost.", "a.localhost", "[::1]"])
def test_loopback_is_for_development_only(host: str) -> None:
    assert allowed(f"http://{host}:8000/v1") is None
    assert allowed(f"http://{host}:8000/v1", loopback=True)


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.0.0.01", "1.2.3.4.5", "017700000001", "a.0x1"]
)
def test_numbers_in_disguise_are_refused_everywhere(host: str) -> None:
    assert allowed(f"http://{host}/", loopback=True) is None


@given(st.ip_addresses())
def test_no_special_address_passes(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    shown = f"[{address}]" if address.version == 6 else str(address)
    if allowed(f"http://{shown}/") is not None:
        special = {name for name in ("loopback", "link_local", "multicast", "unspecified") if getattr(address, f"is_{name}")}
        assert special == set()


@given(st.text(max_size=40))
def test_whatever_passes_is_its_own_normal_form(text: str) -> None:
    normal = allowed(f"https://{text}", loopback=True)
    assert normal is None or allowed(normal, loopback=True) == normal


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://127.0.0.1:8000/v1", True), ("http://localhost:8000/v1", True), ("http://10.1.2.3/v1", True), ("http://[fd12::1]/v1", True),
        ("http://a.localhost/v1", True), ("https://93.184.216.34/v1", False), ("https://api.example.com/v1", False),
    ],
)  # fmt: skip
def test_only_what_says_so_may_lead_into_a_private_network(url: str, private: bool) -> None:
    """A name alone does not: the gateway refuses to connect when it resolves to such an address."""
    assert is_written_as_private(url) is private
