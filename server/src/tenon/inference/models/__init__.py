"""Models: the names callers use, the endpoints that serve them, the routes between.

Owns: endpoints (with their upstream credentials, sealed for the gateways), models, routes, and one revision a tenant over all of them.
Promises: a credential goes in and never comes out here; no endpoint points at the machine itself or its metadata service; every change is
one new revision. Needs: policy, audit, the sealing key's file.
"""

from tenon.inference.models.base_urls import is_written_as_private
from tenon.inference.models.contracts import (
    Balancing,
    Endpoint,
    EndpointDraft,
    Model,
    Route,
    RoutingTable,
    SealedEndpoint,
    Serving,
    Timeouts,
)
from tenon.inference.models.service import (
    Upstreams,
    create_endpoint,
    delete_endpoint,
    delete_model,
    find_endpoint,
    list_endpoints,
    list_models,
    newest_revision,
    put_model,
    replace_endpoint,
    routing_between,
)

__all__ = [
    "Balancing",
    "Endpoint",
    "EndpointDraft",
    "Model",
    "Route",
    "RoutingTable",
    "SealedEndpoint",
    "Serving",
    "Timeouts",
    "Upstreams",
    "create_endpoint",
    "delete_endpoint",
    "delete_model",
    "find_endpoint",
    "is_written_as_private",
    "list_endpoints",
    "list_models",
    "newest_revision",
    "put_model",
    "replace_endpoint",
    "routing_between",
]
