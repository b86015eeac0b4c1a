"""The document holds every route of the application, the plain ASGI reads too."""

from __future__ import annotations

from tenon.entrypoints.api.app import build
from tenon.kit.settings import Settings


def test_every_hot_route_is_documented(settings: Settings) -> None:
    app = build(settings)
    documented = app.openapi()["paths"]
    for route in app.hot:
        methods = {method.lower() for method in route.methods or ()} - {"head"}
        assert methods <= documented[route.path].keys()
    assert app.openapi() is app.openapi()
