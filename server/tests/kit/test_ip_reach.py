"""Where addresses lead, by the corpus that the gateway's resolver is held to as well."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenon.kit.ip_reach import Reach, judge

CORPUS = json.loads((Path(__file__).parents[3] / "contracts" / "address-corpus.json").read_text())


@pytest.mark.parametrize("case", CORPUS["addresses"], ids=lambda case: case["address"])
def test_an_address_leads_where_the_corpus_says(case: dict[str, str]) -> None:
    assert judge(ipaddress.ip_address(case["address"])).reach.value == case["reach"], case["why"]


@pytest.mark.parametrize("case", CORPUS["not_addresses"], ids=lambda case: case["text"] or "nothing")
def test_what_is_no_address_is_not_read_as_one(case: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        ipaddress.ip_address(case["text"])


@given(st.ip_addresses(v=6))
def test_a_zone_leads_nowhere(address: ipaddress.IPv6Address) -> None:
    assert judge(ipaddress.IPv6Address(f"{address}%eth0")).reach is Reach.NEVER


@given(st.ip_addresses())
def test_no_special_address_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    judgement = judge(address)
    if judgement.reach is Reach.PUBLIC:
        judged = judgement.embedded_ipv4 or address
        special = ("private", "loopback", "link_local", "multicast", "unspecified", "reserved")
        assert [name for name in special if getattr(judged, f"is_{name}")] == []


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_leads_to_the_same_place(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:", "64:ff9b::"):
        judgement = judge(ipaddress.ip_address(f"{prefix}{address}"))
        assert (judgement.reach, judgement.embedded_ipv4) == (judge(address).reach, address)
