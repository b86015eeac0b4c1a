"""The API's own pages: its reference (Swagger UI) and GraphiQL, served from this package without any network.

Owns: `/docs`, `/v1/graphiql` and the files they load under `/assets/`.
Promises: no page loads or sends anything from or to another host; its content security policy holds the browser to that. A page holds no
key and no data, so all of it is public, in production too.
Needs: the files that `tools/vendor_pages.py` stored in `vendor/`.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_OWN = {"/docs": "docs.html", "/v1/graphiql": "graphiql.html"}
_OWN_ASSETS = ("docs.js", "graphiql.js", "pages.css")
_VENDORED = (
    "graphiql.min.css",
    "graphiql.min.js",
    "react-dom.production.min.js",
    "react.production.min.js",
    "swagger-ui-bundle.js",
    "swagger-ui.css",
)
_MEDIA_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
# `unsafe-inline` for styles alone: both projects set them on elements.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
PATHS = frozenset({*_OWN, *(f"/assets/{name}" for name in (*_OWN_ASSETS, *_VENDORED))})


def routes() -> list[Route]:
    """A route for each page and each file it loads."""
    return [Route(path, _serve, methods=["GET"]) for path in sorted(PATHS)]


@dataclass(frozen=True, slots=True)
class _File:
    compressed: bytes
    etag: str
    media_type: str


@cache
def _file(name: str) -> _File:
    """One file, read and compressed once."""
    folder = files(__name__)
    vendored = name in _VENDORED
    compressed = (folder / "vendor" / f"{name}.gz").read_bytes() if vendored else gzip.compress((folder / name).read_bytes(), mtime=0)
    return _File(compressed, f'"{hashlib.sha256(compressed).hexdigest()[:32]}"', _MEDIA_TYPES[name.rpartition(".")[2]])


async def _serve(request: Request) -> Response:
    path = request.scope["path"]
    file = _file(_OWN.get(path, path.removeprefix("/assets/")))
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": _POLICY,
        "etag": file.etag,
        "referrer-policy": "no-referrer",
        "vary": "accept-encoding",
        "x-content-type-options": "nosniff",
    }
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(gzip.decompress(file.compressed), headers=headers, media_type=file.media_type)
    return Response(file.compressed, headers=headers | {"content-encoding": "gzip"}, media_type=file.media_type)
