"""The API's own pages: public in every environment, loading nothing from another host."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from importlib.resources import files
from typing import Any

import httpx2
import pytest

from tenon.entrypoints.api import pages
from tenon.entrypoints.api.app import build
from tenon.kit.settings import Settings


def client_of(settings: Settings, environment: str) -> httpx2.AsyncClient:
    app = build(settings.model_copy(update={"environment": environment}))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize("path", ["/docs", "/v1/graphiql"])
async def test_a_page_and_all_it_loads_are_public_and_local(settings: Settings, environment: str, path: str) -> None:
    async with client_of(settings, environment) as client:
        page = await client.get(path)
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert "//" not in re.sub(r"<!--.*?-->", "", page.text), "a page names no other host"
        loaded = [address for address in re.findall(r'(?:src|href)="([^"]+)"', page.text) if address.startswith("/assets/")]
        assert len(loaded) >= 4
        for address in loaded:
            asset = await client.get(address)
            assert asset.status_code == 200, address
            assert asset.headers["content-type"].split(";")[0] in {"text/javascript", "text/css"}
            assert len(asset.content) > 100


async def test_only_the_listed_files_are_served(settings: Settings) -> None:
    async with client_of(settings, "production") as client:
        for path in ("/assets/", "/assets/manifest.json", "/assets/../vendor/manifest.json", "/assets/graphiql.min.js.gz", "/docs/"):
            assert (await client.get(path)).status_code == 401, path  # as every path that is not public


async def test_a_file_is_sent_again_only_when_it_changed(settings: Settings) -> None:
    async with client_of(settings, "production") as client:
        first = await client.get("/assets/graphiql.min.js")
        again = await client.get("/assets/graphiql.min.js", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        plain = await client.get("/assets/graphiql.min.js", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == first.content


def test_the_stored_files_are_those_of_the_manifest() -> None:
    vendor = files(pages) / "vendor"
    manifest: dict[str, dict[str, str]] = json.loads((vendor / "manifest.json").read_text())
    stored = {file.name.removesuffix(".gz"): file for file in vendor.iterdir() if file.name.endswith(".gz")}
    assert stored.keys() == manifest.keys()
    for name, entry in manifest.items():
        assert hashlib.sha256(gzip.decompress(stored[name].read_bytes())).hexdigest() == entry["sha256"], name


def test_no_style_or_font_comes_from_another_host() -> None:
    vendor = files(pages) / "vendor"
    for name in ("graphiql.min.css", "swagger-ui.css"):
        text = gzip.decompress((vendor / f"{name}.gz").read_bytes()).decode()
        assert "@import" not in text
        foreign = [address for address in re.findall(r"url\(\s*['\"]?([^)'\"]{1,40})", text) if not address.startswith(("data:", "#"))]
        assert not foreign, (name, foreign)


async def test_the_reference_names_the_key_and_the_shape_of_errors(settings: Settings) -> None:
    async with client_of(settings, "production") as client:
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
    assert document["security"] == [{"api_key": []}]
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"], path
            assert operation["responses"]["default"]["content"].keys() == {"application/problem+json"}
